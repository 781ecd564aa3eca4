"""Scores of benchmarks by hand."""

import numpy as np
import pytest

from hfvla.evaluation.benchmarks.catalog import BENCHMARKS
from hfvla.evaluation.benchmarks.scoring import anls, benchmark_scores, judge, read_yes_no, relaxed_match
from hfvla.evaluation.benchmarks.wording import benchmark_sample


@pytest.mark.parametrize(
    ("text", "expected"),
    [("Yes", "yes"), ("no.", "no"), ("Yes, no doubt", "yes"), ("I say no", "no"), ("yes and no?", "yes"),
     ("It is yes or no", ""), ("nothing", ""), ("", "")],
)  # fmt: skip
def test_yes_or_no(text, expected):
    assert read_yes_no(text) == expected


def test_relaxed_match_is_within_five_percent():
    assert relaxed_match("100", "105") and not relaxed_match("100", "105.1")
    assert relaxed_match("20%", "0.2") and relaxed_match("Blue", "blue") and not relaxed_match("Blue", "light blue")
    assert not relaxed_match("0", "0.001") and relaxed_match("0", "0")


def test_anls():
    assert anls(["paris"], "Paris ") == 1.0
    assert anls(["paris", "london"], "londen") == pytest.approx(1 - 1 / 6)
    assert anls(["paris"], "rome") == 0.0  # below a half


def yes_no(name, kind, answer, group):
    return benchmark_sample(name, "Is it?", [], scorer="yes_no", answers=(answer,), category=kind, group=group)


def test_mme_points():
    kinds = ["OCR", "artwork", "celebrity", "color", "count", "existence", "landmark", "position", "posters", "scene"]
    samples = [yes_no(f"{k}{n}", k, "Yes" if n % 2 else "No", f"{k}{n // 2}") for k in kinds for n in range(4)]
    texts = ["Yes" if s.references[0] == "Yes" else "No" for s in samples]
    texts[1] = "No"  # one of four of the first category: 3 / 4 of the questions, 1 / 2 of the pictures
    scores = np.array([judge(BENCHMARKS["MME"], s, t) for s, t in zip(samples, texts, strict=True)])
    found = benchmark_scores(BENCHMARKS["MME"], samples, texts, scores)
    assert found["points/OCR"] == pytest.approx(75 + 50) and found["points/scene"] == 200
    assert found["perception"] == pytest.approx(125 + 9 * 200)
    assert "cognition" not in found  # its categories are not there
    assert found["accuracy"] == pytest.approx(39 / 40) and found["answered"] == 1.0


def test_pope_counts_yes():
    answers, texts = ["yes", "yes", "no", "no"], ["yes", "no", "yes", "no"]
    samples = [yes_no(str(n), "random", a, str(n)) for n, a in enumerate(answers)]
    found = benchmark_scores(BENCHMARKS["POPE"], samples, texts, np.array([1.0, 0, 0, 1]))
    assert (found["precision"], found["recall"], found["f1"], found["yes_share"]) == (0.5, 0.5, 0.5, 0.5)


def test_hallusion_groups():
    # Indices end in set, figure and question. Set 0: figure 0 has questions 0, 1; figure 1 has question 0.
    names = ["hb_v_d_0_0_0", "hb_v_d_0_0_1", "hb_v_d_0_1_0"]
    samples = [yes_no(name, "VD", "1", name) for name in names]
    found = benchmark_scores(BENCHMARKS["HallusionBench"], samples, ["yes", "no", "yes"], np.array([1.0, 0, 1]))
    assert found["figure_accuracy"] == 0.5 and found["question_accuracy"] == 0.5
    assert judge(BENCHMARKS["HallusionBench"], samples[0], "Yes") == 1.0  # 1 is yes


def test_unpublished_answers_are_not_scored():
    hidden = benchmark_sample("1", "Which?", [], scorer="choice", choices=["a", "b"])
    assert np.isnan(judge(BENCHMARKS["MMStar"], hidden, "A"))


def test_ocrbench_looks_inside():
    sample = benchmark_sample("1", "What?", [], scorer="contains", answers=("STOP sign",))
    assert judge(BENCHMARKS["OCRBench"], sample, "It says stop\nsign.") == 1.0


def test_a_question_of_several_categories_counts_in_each():
    samples = [yes_no("1", "random,popular", "yes", "1"), yes_no("2", "random", "no", "2")]
    found = benchmark_scores(BENCHMARKS["POPE"], samples, ["yes", "yes"], np.array([1.0, 0.0]))
    assert found["n"] == 3 and found["accuracy"] == pytest.approx(2 / 3)
    assert found["accuracy_by_category/random"] == 0.5 and found["accuracy_by_category/popular"] == 1.0


def test_splits_are_told_apart():
    samples = [
        benchmark_sample(str(n), "What?", [], scorer="relaxed", answers=("3",), details={"split": split})
        for n, split in enumerate(["human", "human", "augmented"])
    ]
    found = benchmark_scores(BENCHMARKS["ChartQA_TEST"], samples, ["3", "4", "3"], np.array([1.0, 0.0, 1.0]))
    assert found["accuracy_by_split/human"] == 0.5 and found["accuracy_by_split/augmented"] == 1.0


def test_formulas_and_open_questions():
    formula = "Handwritten Mathematical Expression Recognition"
    sample = benchmark_sample("1", "What?", [], scorer="contains", answers=("x ^ 2",), category=formula)
    assert judge(BENCHMARKS["OCRBench"], sample, "x^2 + 1") == 1.0
    assert judge(BENCHMARKS["OCRBench"], sample, "X^2 + 1") == 0.0  # here letter case counts
    opened = benchmark_sample("2", "How many?", [], scorer="choice", answers=("two dogs",))
    assert judge(BENCHMARKS["MMMU_DEV_VAL"], opened, "The 2 dogs.") == 1.0

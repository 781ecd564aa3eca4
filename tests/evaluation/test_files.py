"""Files of an evaluation lie beside its report, and videos are shown in it; small numbers keep their digits."""

import pytest

from hfvla.evaluation.run import write_evaluation
from hfvla.evaluation.tables import headline_metrics, lower_is_better, number
from hfvla.family import EvaluationResult


def result(**files):
    names = {f"{name}.{kind}": content for name, (kind, content) in files.items()}
    return EvaluationResult(metrics={"n": 4, "mse": 0.5}, files=names)


def test_files_lie_beside_the_report_and_videos_are_shown(tmp_path):
    write_evaluation({"held_out": result(film=("mp4", b"moving"), forces=("csv", b"1,2"))}, tmp_path, {})
    assert (tmp_path / "film.mp4").read_bytes() == b"moving" and (tmp_path / "forces.csv").read_bytes() == b"1,2"
    html = (tmp_path / "report.html").read_text("utf-8")
    assert html.count("<video") == 1 and 'src="film.mp4"' in html and "forces.csv" not in html


def test_files_of_several_sets_do_not_meet(tmp_path):
    sets = {"one": result(film=("mp4", b"first")), "two": result(film=("mp4", b"second")), "three": result()}
    write_evaluation(sets, tmp_path, {})
    assert (tmp_path / "one_film.mp4").read_bytes() == b"first"
    assert (tmp_path / "two_film.mp4").read_bytes() == b"second" and not (tmp_path / "film.mp4").exists()
    html = (tmp_path / "report.html").read_text("utf-8")
    assert html.count("<video") == 2 and 'src="one_film.mp4"' in html and 'src="two_film.mp4"' in html


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [
        (0.5, "mse", "0.500"), (0.0, "mse", "0.000"), (0.01, "mse", "0.010"), (0.000123456, "mse", "0.000123"),
        (-0.0042, "skill", "-0.0042"), (1.5e-9, "mse/dx_m", "1.5e-09"), (12.3456, "mae", "12.346"),
        (50.0, "episodes", "50"), (0.0, "failures", "0"), (None, "mse", "–"),
    ],
)  # fmt: skip
def test_numbers_of_metres_keep_their_digits(value, metric, text):
    assert number(value, metric) == text


def test_errors_and_forces_are_better_when_small():
    assert all(map(lower_is_better, ("mse", "first_mae", "peak_force_n", "closed_loop/peak_force_p95_n")))
    assert not any(map(lower_is_better, ("success_rate", "skill", "correlation")))


def test_counts_are_no_headline():
    found = EvaluationResult(metrics={"n": 8, "failures": 0, "accuracy": 0.5})
    assert headline_metrics(found) == ["accuracy"]

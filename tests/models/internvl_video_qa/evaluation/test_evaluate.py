"""What an evaluation reports, when it is known what the model answers."""

import numpy as np
import pytest

from hfvla.errors import DataError
from hfvla.evaluation.plots import HTML_KINDS, render
from hfvla.family import EvaluationContext
from hfvla.models.internvl_video_qa.evaluation import evaluate as evaluation
from hfvla.models.internvl_video_qa.evaluation import predicting as latency
from hfvla.models.internvl_video_qa.evaluation.scores import Gold, failure_reason

from .. import scripted
from ..scripted import favour, truth


@pytest.fixture
def ask(monkeypatch):
    """Evaluate rows under a rule; returns the result and the script."""

    def _ask(rule, rows, **context):
        script = scripted.Script(rule)
        for module in (evaluation, latency):
            monkeypatch.setattr(module, "predict_letters", script)
        monkeypatch.setattr(evaluation, "predict_orders", script.all_orders)
        settings = {"bootstrap_samples": 20, "max_generate": 3, **context}
        found = evaluation.evaluate(scripted.Model(), scripted.Processor(), rows, EvaluationContext(**settings))
        return found, script

    return _ask


def sees_the_moment(row, mode, shown):
    """Scenes: right with any frame. Moments: with support frames, or spread ones and an id that ends in 0 or 4."""
    moment = row["kind"] == "light"
    lucky = mode == "segments" and row["id"][-1] in "04"
    known = mode != "none" and (not moment or mode == "support" or lucky)
    return favour(shown, truth(row)) if known else favour(shown, shown[0])


def test_support_frames_single_frame_and_blank_stand_side_by_side(ask):
    rows = scripted.questions(40)
    result, script = ask(sees_the_moment, rows)
    at_first = [row["answer"] == 0 for row in rows]
    moment = [row["kind"] == "light" for row in rows]
    # spread frames: scenes are right, and moments with an id that ends in 0 or 4, or with the right choice at A
    lucky = [row["id"][-1] in "04" for row in rows]
    expected = np.mean([not m or k or a for m, k, a in zip(moment, lucky, at_first, strict=True)])
    assert result.metrics["accuracy"] == result.metrics["accuracy_without_support"] == pytest.approx(expected)
    assert result.metrics["accuracy_with_support"] == 1.0
    assert result.ablations["with_support_frames"]["accuracy_by_needs/moment"] == 1.0
    single = np.mean([not m or a for m, a in zip(moment, at_first, strict=True)])
    assert single < expected
    assert result.baselines["single_frame"]["accuracy"] == pytest.approx(single)
    assert result.ablations["no_frames"]["accuracy"] == pytest.approx(np.mean(at_first))
    assert result.metrics["accuracy_by_kind/scene"] == 1.0 and result.metrics["n_by_kind/scene"] == 20
    assert result.metrics["chance"] == 0.25 and result.metrics["failures"] == 0
    assert {call[0] for call in script.calls} == {"segments", "support", "middle", "none"}


def test_intervals_are_paired_by_video_and_hold_the_value(ask):
    result, _ = ask(sees_the_moment, scripted.questions(40), bootstrap_samples=200)
    for name in ("accuracy", "accuracy_with_support", "accuracy_by_needs/moment"):
        low, high = result.intervals[name]
        assert low <= result.metrics.get(name, 1.0) <= high
    low, high = result.intervals["difference/single_frame/accuracy"]
    assert 0 <= low < high
    assert result.intervals["difference/single_frame/accuracy_by_kind/scene"] == (0.0, 0.0)


def test_a_model_that_likes_a_letter_is_caught_by_permuting(ask):
    result, script = ask(lambda row, mode, shown: favour(shown, shown[1]), scripted.questions(20))
    assert result.metrics["position_bias"] == pytest.approx(100)
    assert result.metrics["accuracy_at/B"] == 1 and result.metrics["accuracy_permuted"] == pytest.approx(0.25)
    assert result.metrics["share_of_answers/B"] == 1
    assert result.intervals["position_bias"] == pytest.approx((100, 100))
    shown = {order for mode, _, orders in script.calls for order in orders if order}
    assert shown == {(0, 1, 2, 3), (3, 0, 1, 2), (2, 3, 0, 1), (1, 2, 3, 0)}


def test_a_model_that_knows_has_no_bias_and_is_calibrated_by_its_strength(ask):
    result, _ = ask(lambda row, mode, shown: favour(shown, truth(row)), scripted.questions(20))
    assert result.metrics["position_bias"] == 0 and result.metrics["same_choice"] == 1
    confidence = np.exp(2) / (np.exp(2) + 3)
    assert result.metrics["ece"] == pytest.approx(1 - confidence)
    assert result.rows[0]["confidence"] == pytest.approx(confidence)
    assert result.rows[0]["correct"] and result.rows[0]["answer"] == truth(scripted.questions(20)[0])


def test_choices_that_speak_of_their_place_are_not_permuted(ask):
    rows = scripted.questions(4).map(lambda row: {"choices": [*row["choices"][:3], "All of the above"]})
    result, script = ask(lambda row, mode, shown: favour(shown, shown[0]), rows)
    assert "position_bias" not in result.metrics
    assert {order for _, _, orders in script.calls for order in orders} == {(0, 1, 2, 3)}


def test_baselines_are_fitted_on_other_videos(ask):
    rows, train = scripted.questions(10), scripted.questions(30, seed=5)  # v0 to v4 are in both
    result, _ = ask(lambda row, mode, shown: favour(shown, shown[0]), rows, train_rows=train)
    assert set(result.baselines) == {"majority_letter", "longest_choice", "question_only", "single_frame"}
    assert any("10 training questions are on videos that are evaluated here" in note for note in result.notes)
    assert any("fitted on 20 training questions" in note for note in result.notes)
    without, _ = ask(lambda row, mode, shown: favour(shown, shown[0]), rows)
    assert set(without.baselines) == {"longest_choice", "single_frame"}
    assert any("majority_letter left out" in note for note in without.notes)


def broken(name):
    return lambda row, mode, shown: None if row["video"] == name else favour(shown, truth(row))


def test_a_broken_video_is_counted_named_and_wrong(ask):
    result, _ = ask(broken("v3.mp4"), scripted.questions(40), max_bad_fraction=0.05)
    assert result.metrics["failures"] == 2 and result.metrics["failures/the video is truncated"] == 2
    assert result.metrics["accuracy"] == pytest.approx(38 / 40) and result.metrics["answered"] == pytest.approx(0.95)
    assert any("2 of 40" in note and "q006: v3.mp4" in note for note in result.notes)
    row = result.rows[6]
    assert row["prediction"] is None and "truncated" in row["failure"] and "correct" not in row
    assert result.metrics["position_bias"] == 0  # over the 38 that were answered


def test_too_many_broken_videos_end_it(ask):
    with pytest.raises(DataError, match=r"2 of 40 questions cannot be answered; first: q006: v3.mp4.*at most 1.0%"):
        ask(broken("v3.mp4"), scripted.questions(40))


def test_unlabelled_rows_are_predicted_and_not_scored(ask):
    result, _ = ask(lambda row, mode, shown: favour(shown, shown[2]), scripted.questions(6, labelled=False))
    assert result.metrics["n"] == 6 and "accuracy" not in result.metrics and not result.baselines
    assert [row["prediction"] for row in result.rows] == ["C"] * 6 and result.rows[0]["gold"] is None
    assert result.metrics["latency_p50_s"] >= 0


def test_without_support_frames_there_is_no_score_with_them(ask):
    result, script = ask(lambda row, mode, shown: favour(shown, truth(row)), scripted.questions(6, support=False))
    assert "accuracy_with_support" not in result.metrics and "support" not in {call[0] for call in script.calls}


def test_nothing_to_evaluate_is_an_error(ask):
    with pytest.raises(DataError, match="nothing to evaluate"):
        ask(lambda *_: None, [])


def test_figures_can_be_drawn(ask):
    result, _ = ask(sees_the_moment, scripted.questions(12), train_rows=scripted.questions(8, start=50))
    names = {figure.name for figure in result.figures}
    assert names >= {
        "confusion",
        "letters",
        "reliability",
        "accuracy_by_kind",
        "accuracy_by_needs",
        "roc_pr",
        "worst_mistakes",
    }
    pictures = [render(figure, dpi=20) for figure in result.figures if figure.kind not in HTML_KINDS]
    assert len(pictures) >= len(result.figures) - 1 and all(picture.startswith(b"\x89PNG") for picture in pictures)


def test_calibration_finds_the_temperature_of_an_overconfident_model(monkeypatch):
    rows = scripted.questions(200)

    def rule(row, mode, shown):
        right = int(row["id"][1:]) % 4 != 0  # three of four
        return favour(shown, truth(row) if right else next(c for c in shown if c != truth(row)), 6.0)

    monkeypatch.setattr(evaluation, "predict_letters", scripted.Script(rule))
    model = scripted.Model()
    found = evaluation.calibrate(model, scripted.Processor(), rows, EvaluationContext())
    # confidence e^(6/T) / (e^(6/T) + 3) is to be 3/4: T = 6 / ln 9
    assert model.config.calibration["temperature"] == pytest.approx(6 / np.log(9), rel=0.01)
    assert found["n"] == 200 and found["nll_after"] < found["nll_before"]


def test_calibration_without_answers_is_one(monkeypatch):
    model = scripted.Model()
    model.config.calibration = {"temperature": 3.0}
    found = evaluation.calibrate(
        model, scripted.Processor(), scripted.questions(3, labelled=False), EvaluationContext()
    )
    assert found["n"] == 0 and model.config.calibration == {"temperature": 1.0}


def test_needs_and_reasons_are_read_from_rows():
    row = scripted.questions(1)[0]
    assert Gold.of([row]).by["needs"] == ("moment",)
    message = "v0.mp4: the video is truncated; got '7 bytes'; expected 9 bytes. Copy it again."
    assert failure_reason(message, row) == "the video is truncated"
    assert failure_reason("q000: the question is empty", row) == "the question is empty"

"""The selection family's evaluator on a model whose answers are known."""

import json

import numpy as np
import pytest

from hfvla.data.samples.robots import ROBOTS
from hfvla.errors import DataError
from hfvla.evaluation.plots import HTML_KINDS, KINDS, render
from hfvla.family import EvaluationContext
from hfvla.models.ember_vlm.evaluation.evaluate import calibrate, evaluate

from .fakes import FakeCollator, FakeModel, dataset, scene_row, task_row

PLACES = ["roof", "reef", "valve", "parcel", "hill"]


@pytest.fixture(autouse=True)
def _fake_collator(monkeypatch):
    monkeypatch.setattr("hfvla.models.ember_vlm.batches.EmberVLMCollator", FakeCollator)


def _context(**options):
    return EvaluationContext(**{"bootstrap_samples": 40, "max_generate": 0, "batch_size": 4, **options})


def _text_rows(count=20, **options):
    return dataset([task_row(i, PLACES[i % 5], **options) for i in range(count)])


def test_a_model_that_reads_is_right_everywhere():
    model = FakeModel().train()
    result = evaluate(model, None, _text_rows(10), _context())
    assert result.metrics["n"] == 10
    for name in ("top1_in_set", "exact_match", "jaccard", "macro_f1", "weighted_f1", "single_accuracy", "f1/Drone"):
        assert result.metrics[name] == 1.0
    # confidence sigmoid(2) of the right robot, always right
    assert result.metrics["ece"] == pytest.approx(1 - 1 / (1 + np.exp(-2)), abs=1e-6)
    assert result.intervals["exact_match"] == (1.0, 1.0)
    assert model.batch_sizes == [4, 4, 2]
    assert model.training  # left as it was found
    assert not result.ablations  # no pictures


def test_temperature_and_threshold_of_the_checkpoint_are_used():
    model = FakeModel()
    model.config.calibration = {"temperature": 2.0, "threshold": 0.3}
    result = evaluate(model, None, _text_rows(5), _context())
    # votes 2 and -1: sigmoid(1) = 0.73 and sigmoid(-0.5) = 0.38 >= 0.3, so every robot is chosen
    assert result.rows[0]["confidence"] == pytest.approx(0.7311, abs=1e-4)
    assert result.metrics["jaccard"] == pytest.approx(1 / 5)


def test_rows_hold_the_predictions():
    rows = evaluate(FakeModel(), None, _text_rows(5), _context()).rows
    assert [row["prediction"] for row in rows] == [[robot] for robot in ROBOTS]
    assert rows[1]["id"] == "real:1" and rows[1]["gold"] == ["Underwater Robot"] and rows[1]["exact_match"] is True
    json.dumps(rows, allow_nan=False)


def test_ablations_tell_what_picture_and_text_give():
    # 8 scene rows that only the picture answers, 4 text rows whose picture agrees
    rows = dataset(
        [scene_row(i, ["red", "blue"][i % 2]) for i in range(8)]
        + [task_row(i, ["roof", "reef"][i % 2], image=["red", "blue"][i % 2]) for i in range(4)]
    )
    train = dataset([task_row(i + 100, ["roof", "roof", "reef"][i % 3]) for i in range(12)])
    result = evaluate(FakeModel(), None, rows, _context(train_rows=train))
    ablations = result.ablations
    assert result.metrics["top1_in_set"] == 1.0
    assert ablations["with_image"]["top1_in_set"] == 1.0
    assert ablations["image_only"]["top1_in_set"] == 1.0  # the pictures always agree
    # without a picture the scene rows get five equal votes and the first robot: right for the 4 red ones
    assert ablations["blank_image"]["top1_in_set"] == pytest.approx((4 + 4) / 12)
    assert ablations["text_only"]["top1_in_set"] == pytest.approx((4 + 4) / 12)
    assert ablations["shuffled_image"]["top1_in_set"] < 1.0
    assert ablations["scene_only/with_image"] == ablations["scene_only/with_image"] | {"n": 8, "top1_in_set": 1.0}
    assert ablations["scene_only/blank_image"]["top1_in_set"] == 0.5
    assert ablations["scene_only/prior"]["top1_in_set"] == 0.5  # the majority is the drone
    assert any("2 distinct pictures in 12 rows" in note for note in result.notes)


def test_equal_pixels_with_different_labels_are_counted():
    rows = [scene_row(0, "red"), scene_row(1, "red"), scene_row(2, "blue")]
    rows[1]["robots"] = ["Humanoid"]
    notes = evaluate(FakeModel(), None, dataset(rows), _context()).notes
    assert any("1 are shared by several rows, 1 of them with different gold sets" in note for note in notes)


def test_baselines_follow_the_source_and_never_see_evaluated_tasks():
    rows = _text_rows(10)
    own = [task_row(i + 26, PLACES[i % 5]) for i in range(20)]
    generated = [task_row(i + 52, PLACES[i % 5], source="generated") for i in range(20)]
    result = evaluate(FakeModel(), None, rows, _context(train_rows=dataset(own + generated + list(rows))))
    assert list(result.baselines) == ["majority", "tfidf_logreg", "tfidf_logreg_all"]
    assert result.baselines["tfidf_logreg"]["top1_in_set"] == 1.0  # the key word is enough
    assert result.baselines["majority"]["top1_in_set"] == pytest.approx(0.2)
    assert any(note.startswith("10 training rows share a task") for note in result.notes)
    assert any("tfidf_logreg: fitted on 20 training rows" in note for note in result.notes)
    assert any("tfidf_logreg_all: fitted on 40 training rows" in note for note in result.notes)
    assert result.intervals["difference/majority/top1_in_set"][0] > 0
    assert set(result.intervals["baselines/majority/top1_in_set"]) != {0.0}

    only_generated = evaluate(FakeModel(), None, rows, _context(train_rows=dataset(generated)))
    assert list(only_generated.baselines) == ["majority", "tfidf_logreg"]
    without = evaluate(FakeModel(), None, rows, _context())
    assert not without.baselines and any("no baselines" in note for note in without.notes)


def test_written_text_is_scored_against_head_and_gold():
    rows = dataset([task_row(i, PLACES[i % 5], plan=True) for i in range(10)])
    result = evaluate(FakeModel(), None, rows, _context(max_generate=10))
    scores = result.metrics
    assert scores["reasoning/n"] == 10
    assert scores["reasoning/four_steps"] == scores["reasoning/consistency"] == scores["reasoning/relevance"] == 1.0
    assert scores["written/exact_match"] == scores["head/exact_match"] == 1.0
    # the plan has two steps, the fake writes the first of them with the right robot
    assert scores["plan/subtask_accuracy"] == pytest.approx(1 / 2)
    assert {figure.name for figure in result.figures} >= {"chain_comparison", "reasoning_examples"}
    assert result.rows[3]["written_decision"] == result.rows[3]["prediction"]

    stubborn = evaluate(FakeModel(decide="Humanoid"), None, rows, _context(max_generate=10)).metrics
    assert stubborn["reasoning/consistency"] == pytest.approx(2 / 10)  # the head says Humanoid for the two valves
    assert stubborn["written/exact_match"] == pytest.approx(2 / 10)
    assert stubborn["head/exact_match"] == 1.0


def test_text_is_generated_for_so_many_rows_only():
    result = evaluate(FakeModel(), None, _text_rows(12), _context(max_generate=3))
    assert result.metrics["reasoning/n"] == 3
    assert sum("reasoning" in row for row in result.rows) == 3


def test_unlabelled_rows_are_predicted_and_not_scored():
    rows = [task_row(i, PLACES[i]) for i in range(5)]
    for row in rows[2:]:
        row["robots"] = []
    some = evaluate(FakeModel(), None, dataset(rows), _context(max_generate=5))
    assert some.metrics["n"] == 2 and len(some.rows) == 5
    assert any("3 of 5 rows have no gold set" in note for note in some.notes)
    none = evaluate(FakeModel(), None, dataset(rows).select([2, 3, 4]), _context(max_generate=2))
    assert "exact_match" not in none.metrics and len(none.rows) == 3
    assert none.rows[0]["prediction"] == ["Humanoid"]


def test_every_figure_can_be_drawn():
    rows = dataset([task_row(i, PLACES[i % 5], image="red", plan=True) for i in range(10)])
    result = evaluate(FakeModel(), None, rows, _context(max_generate=4))
    names = [figure.name for figure in result.figures]
    assert len(names) == len(set(names))
    assert {"confusion", "reliability", "per_robot_radar", "per_robot_f1", "ablations"} <= set(names)
    for figure in result.figures:
        assert figure.kind in KINDS
        json.dumps(figure.data, allow_nan=False)
        if figure.kind not in HTML_KINDS:
            assert render(figure).startswith(b"\x89PNG")


def test_robots_outside_the_fleet_and_empty_data_are_refused():
    rows = [task_row(0, "roof")]
    rows[0]["robots"] = ["Dron"]
    with pytest.raises(DataError, match=r"real:0: .*'Dron'.*Did you mean 'Drone'"):
        evaluate(FakeModel(), None, dataset(rows), _context())
    with pytest.raises(DataError, match="0 rows"):
        evaluate(FakeModel(), None, dataset([task_row(0, "roof")]).select([]), _context())


def test_calibration_cools_an_overconfident_model():
    # logits 3 * (2, -1), the gold robot is another one in a third of the rows
    rows = [task_row(i, PLACES[i % 5]) for i in range(60)]
    for row in rows[::3]:
        row["robots"] = [ROBOTS[(ROBOTS.index(row["robots"][0]) + 1) % 5]]
    model = FakeModel()
    model.scale.data.fill_(3.0)
    found = calibrate(model, None, dataset(rows), _context())
    assert model.config.calibration == {"temperature": found["temperature"], "threshold": found["threshold"]}
    assert found["temperature"] > 2.0
    assert found["nll_after"] < found["nll_before"]
    # the NLL has its minimum there
    slope = [_nll(3 / (found["temperature"] * factor)) for factor in (0.9, 1.0, 1.1)]
    assert slope[1] < min(slope[0], slope[2])


def _nll(scale):
    high, low = scale * 2.0, scale * -1.0  # of 5 robots one is high: right in 2 of 3 rows, else one low one is gold
    softplus = np.logaddexp
    right = softplus(0, -high) + 4 * softplus(0, low)
    wrong = softplus(0, high) + softplus(0, -low) + 3 * softplus(0, low)
    return (2 * right + wrong) / 15


def test_few_rows_move_the_calibration_only_part_of_the_way():
    rows = [task_row(i, PLACES[i % 5]) for i in range(60)]
    for row in rows[::3]:
        row["robots"] = [ROBOTS[(ROBOTS.index(row["robots"][0]) + 1) % 5]]
    model = FakeModel()
    full = calibrate(model, None, dataset(rows), _context())["temperature"]
    part = calibrate(model, None, dataset(rows[:15]), _context())
    assert np.log(part["temperature"]) == pytest.approx(np.log(full) / 2, abs=1e-3)  # 15 of 30 rows
    assert "Fewer than 30" in part["note"]
    for row in rows:
        row["robots"] = []
    none = calibrate(model, None, dataset(rows), _context())
    assert (none["temperature"], none["threshold"], none["n"]) == (1.0, 0.5, 0)
    assert model.config.calibration == {"temperature": 1.0, "threshold": 0.5}

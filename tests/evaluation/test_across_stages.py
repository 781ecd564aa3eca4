"""What a run's stages gave one after another."""

import json

import pytest

from hfvla.evaluation.across_stages import across_stages
from hfvla.evaluation.charts.draw import draw_svg
from hfvla.evaluation.run_record import read_run
from hfvla.evaluation.tracking import log_evaluation
from hfvla.family import EvaluationResult

SCORES = {
    "captions": {
        "start": {"n": 4, "cider": 0.0, "loss": 7.0, "cider/shape": 0.0},
        "first": {"n": 4, "cider": 3.25, "loss": 0.5, "cider/shape": 1.0},
        "second": {"n": 4, "cider": 0.25, "loss": 4.0, "cider/shape": 2.0},
    }
}


def stages():
    first = {"name": "first", "seconds": 3600.0, "steps": 10, "parameters": 200, "trainable_parameters": 50}
    second = {**first, "name": "second", "seconds": 1800.0, "trainable_parameters": 100}
    first |= {
        "energy": {"kwh": 0.5},
        "log_history": [{"step": 5, "first/energy_kwh": 0.125}, {"step": 5, "loss": 1.0}],
    }
    second |= {"energy": {"kwh": 0.25}, "log_history": [{"step": 5, "second/energy_kwh": 0.1}]}
    return [first, second]


def figures(*given):
    return {figure.name: figure for figure in across_stages(*given)}


def test_what_a_later_stage_forgets_is_seen():
    (cider, loss) = figures(stages(), SCORES)["across_captions"].data["panels"]
    assert (cider["title"], loss["title"]) == ("cider", "loss")
    assert cider["series"]["captions"] == {"x": [0.0, 1.0, 2.0], "y": [0.0, 3.25, 0.25]}
    assert "1 first, 2 second" in figures(stages(), SCORES)["across_captions"].caption


def test_energy_goes_on_from_stage_to_stage():
    (panel,) = figures(stages())["energy_timeline"].data["panels"]
    # half of the first stage's hour; the second begins where the first ended, and takes half an hour
    assert panel["series"]["first"] == {"x": [0.0, 0.5, 1.0], "y": [0.0, 0.125, 0.5]}
    assert panel["series"]["second"] == {"x": [1.0, 1.25, 1.5], "y": [0.5, pytest.approx(0.6), 0.75]}


def test_what_parameters_bought():
    table = figures(stages(), SCORES)["parameter_efficiency"].data
    assert table["columns"][-1] == "captions: cider"
    assert table["rows"][0] == ["first", "50", "25.0%", 10, "60.0", "500.00", "3.250 (+3.250)"]
    assert table["rows"][1] == ["second", "100", "50.0%", 10, "30.0", "250.00", "0.250 (-3.000)"]


def test_what_was_not_measured_leaves_nothing():
    bare = [{"name": "first", "log_history": []}, {"name": "second", "log_history": []}]
    assert not figures(bare) and not figures(stages()[:1], SCORES)
    assert "across_captions" not in figures(bare, {"captions": {"start": {"n": 1}, "first": {"n": 2}}})


def test_reports_and_trackers_get_them(tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (tmp_path / "run.json").write_text(json.dumps({"stages": stages(), "stage_scores": SCORES}))
    record = read_run(tmp_path)
    names = [figure.name for figure in record.across]
    assert names == ["across_captions", "energy_timeline", "parameter_efficiency"]
    assert set(names) <= {figure.name for figure in record.figures}
    assert all(draw_svg(figure) for figure in record.across if figure.kind == "curves")
    log_evaluation(
        "tensorboard", {"all": EvaluationResult({"cider": 0.5})}, tmp_path / "logs", "p", "g", across=record.across
    )
    events = EventAccumulator(str(tmp_path / "logs" / "evaluation"))
    events.Reload()
    assert "final/run/across_captions" in events.Tags()["images"]

"""Scores, intervals and figures of an evaluation reach the trackers, and none of them can end it."""

import sys
import time
from importlib.util import find_spec
from types import ModuleType

import pytest

from hfvla.evaluation.tracking import log_evaluation, log_figures, run_group, tracker_names
from hfvla.family import EvaluationResult, Figure

BARS = Figure("bars", "bars", "Bars", {"groups": ["a"], "series": {"x": [0.4]}})
TABLE = Figure("table", "table", "Table", {"columns": ["a"], "rows": [[1]]})
RESULT = EvaluationResult(
    {"n": 4, "accuracy": 0.5, "undefined": float("nan")},
    intervals={"accuracy": (0.25, 0.75)},
    baselines={"majority": {"accuracy": 0.25}},
    figures=[BARS, TABLE],
)


def events_of(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def test_tensorboard_gets_scores_intervals_and_figures(tmp_path):
    log_evaluation(["tensorboard"], {"seen": RESULT}, tmp_path, "p", "p-1", ["evaluation"])
    events = events_of(tmp_path / "evaluation")
    scalars = {name: events.Scalars(name)[0].value for name in events.Tags()["scalars"]}
    assert scalars == {
        "final/seen/n": 4, "final/seen/accuracy": 0.5, "final/seen/accuracy/low": 0.25,
        "final/seen/accuracy/high": 0.75, "final/seen/baselines/majority/accuracy": 0.25,
    }  # fmt: skip
    assert events.Tags()["images"] == ["final/seen/bars"]


def test_figures_of_a_validation_go_where_the_training_writes(tmp_path, monkeypatch):
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", str(tmp_path / "stage"))
    log_figures(["tensorboard", "wandb"], [BARS, TABLE], "eval/align", 40)  # no run of wandb is open
    images = events_of(tmp_path / "stage")
    assert images.Tags()["images"] == ["eval/align/bars"] and images.Images("eval/align/bars")[0].step == 40


def test_a_tracker_that_fails_is_said_and_costs_nothing(tmp_path, monkeypatch, caplog):
    broken = ModuleType("wandb")

    def init(**_):
        raise RuntimeError("no space")

    broken.init = init
    monkeypatch.setitem(sys.modules, "wandb", broken)
    log_evaluation(["wandb", "tensorboard"], {"seen": RESULT}, tmp_path, "p", "g", pictures=False)
    assert "wandb did not take the evaluation: RuntimeError: no space" in caplog.text
    assert events_of(tmp_path / "evaluation").Tags()["images"] == []


def test_names_and_groups(tmp_path):
    assert tracker_names(["wandb", "none", "tensorboard"]) == ["tensorboard", "wandb"]
    assert tracker_names(None) == tracker_names("none") == []
    assert run_group("a", tmp_path) == run_group("a", str(tmp_path)) != run_group("a", tmp_path / "b")


@pytest.mark.skipif(find_spec("wandb") is None, reason="wandb is not installed")
def test_wandb_keeps_it_offline_in_the_runs_group(tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.delenv("WANDB_DIR", raising=False)
    import wandb

    begun, init = [], wandb.init
    monkeypatch.setattr(wandb, "init", lambda **given: begun.append(given) or init(**given))
    log_evaluation(["wandb"], {"seen": RESULT}, tmp_path, "p", "p-1", ["evaluation", "toy"])
    assert begun[0]["group"] == "p-1"
    (run,) = (tmp_path / "wandb").glob("offline-run-*")
    for _ in range(200):  # its service writes in its own time
        written = b"".join(path.read_bytes() for path in run.glob("*.wandb"))
        if b"final/seen/bars" in written:
            break
        time.sleep(0.1)
    for word in (b"evaluation", b"final/seen/accuracy", b"final/seen/bars"):
        assert word in written
    assert list((run / "files/media/images/final/seen").glob("bars_*.png"))

"""experiment_summary.json from a run's record, and what a notebook shows of it."""

import json
from unittest.mock import Mock

from hfvla.recipe import Stage
from hfvla.training.run.result import RunResult
from hfvla.training.run.summary import write_summary
from hfvla.training.run.tables import trainable_text
from hfvla.training.stage.groups import GroupRow


def test_phases_energy_and_cache(tmp_path):
    rows = [
        {"group": "head", "phase": 0, "parameters": 10, "trainable": 10},
        {"group": "total", "phase": 0, "parameters": 100, "trainable": 10},
        {"group": "total", "phase": 1, "parameters": 100, "trainable": 60},
    ]
    (tmp_path / "a").mkdir()
    (tmp_path / "a/trainable.json").write_text(json.dumps(rows))
    one = {"name": "a", "seconds": 4.0, "steps": 8, "epochs": 1.6, "rows": {"train": 40, "validation": 0}}
    one |= {"batch_size": 8}  # 5 steps an epoch, and 3 of the next
    one |= {"energy": {"kwh": 0.25, "seconds": 4.0}, "cache": {"hits": 40, "misses": 0}}
    two = {"name": "b", "seconds": 1.0, "steps": 2, "epochs": 1.0, "rows": {"train": 8}, "energy": None}
    two |= {"parameters": 50, "trainable_parameters": 5}
    found = write_summary(tmp_path, {"stages": [one, two], "seconds": 9.0, "seed": 1})
    assert json.loads((tmp_path / "experiment_summary.json").read_text()) == found
    first, second = found["stages"]
    assert [(row["phase"], row["share"]) for row in first["trainable"]] == [(0, 0.1), (1, 0.6)]
    assert first["samples"] == 64 and first["cache"]["hits"] == 40 and "cache" not in second
    assert second["trainable"] == [{"phase": 0, "parameters": 50, "trainable": 5, "share": 0.1}]
    assert found["totals"] == {
        "seconds": 9.0, "training_seconds": 5.0, "steps": 10, "samples": 72, "energy_kwh": 0.25,
        "stages_without_energy": 1,
    }  # fmt: skip
    assert found["metrics"] == {}


def test_a_notebook_shows_a_result_in_a_few_lines():
    stage = {"name": "one", "steps": 20, "seconds": 61.0, "best_metric": None}
    scores = {
        "metrics": {"n": 4, "top1_in_set": 0.75, "recall/Drone": 0.5},
        "baselines": {"most": {"top1_in_set": 0.5}},
    }
    result = RunResult({"output_dir": "out", "stages": [stage], "evaluation": {"held_out": scores}, "finished": True})
    printer = Mock()
    result._repr_pretty_(printer, cycle=False)
    assert printer.text.call_args.args[0].splitlines() == [
        "stage one done: 20 steps in 1:01",
        "evaluation held_out: Top-1 in set 0.750 (best baseline 0.500)",
        "report: out/report.html",
        "checkpoint: out/final",
        "(a dict with output_dir, stages, evaluation, finished)",
    ]
    assert RunResult({"output_dir": "out", "stages": []}).summary() == "not finished: out"


def test_tables_are_text_in_a_notebook_too(monkeypatch):
    """There rich would show them in the cell, and run.log would have none."""
    monkeypatch.setattr("rich.console._is_jupyter", lambda: True)
    rows = [GroupRow(name, 1, 2, 2, 1.0, 1e-3, "float32", 2) for name in ("head", "total")]
    assert "head" in trainable_text(Stage(name="one", train=["head"], losses={"x": 1}), rows)

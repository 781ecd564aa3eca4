"""experiment_summary.json from a run's record."""

import json

from hfvla.training.run.summary import write_summary


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

"""How many samples runs need for a score: counted over stages, against the reference's best."""

import json

import pytest

from hfvla.evaluation.convergence import convergence, validation_curve


def test_samples_are_counted_over_the_stages(tmp_path):
    (tmp_path / "logs").mkdir()
    lines = [
        {"stage": "first", "step": 5, "eval_hit": 0.2},
        {"stage": "first", "step": 10, "loss": 1.0},
        {"stage": "second", "step": 2, "eval_hit": 0.5},
        {"stage": "second", "step": 4, "eval_hit": None},
    ]
    (tmp_path / "logs" / "log_history.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    recipe = {"args": {"per_device_train_batch_size": 4}, "stages": [{"name": "first", "args": {}},
              {"name": "second", "args": {"per_device_train_batch_size": 2}}]}  # fmt: skip
    stages = [{"name": "first", "steps": 10, "epochs": 2, "rows": {"train": 20}},
              {"name": "second", "steps": 4, "epochs": 1, "rows": {"train": 8}}]  # fmt: skip
    # first: 40 samples in 10 steps; at step 5, 20. second: 8 samples in 4 steps; at step 2, 40 + 4
    assert validation_curve({"recipe": recipe, "stages": stages}, tmp_path, "eval_hit") == [(20, 0.2), (44, 0.5)]
    assert validation_curve({"recipe": recipe, "stages": stages}, tmp_path / "nowhere", "eval_hit") == []


def test_who_is_sooner_at_the_references_best():
    curves = {"plain": [[(10, 0.5), (20, 0.8), (30, 0.79)]], "quick": [[(10, 0.77), (20, 0.9)]], "bad": [[(10, 0.1)]]}
    found = convergence(curves, "plain", is_error=False)
    assert found["target"] == pytest.approx(0.76)  # 95 % of 0.8
    assert found["samples"] == {"plain": 20, "quick": 10, "bad": None}
    assert found["speed_up"] == {"plain": 1.0, "quick": 2.0, "bad": None}


def test_less_is_better_for_an_error_and_seeds_are_averaged():
    curves = {"plain": [[(10, 2.0), (20, 1.0)], [(10, 1.0)]], "slow": [[(40, 1.04)], [(20, 1.06), (80, 0.9)]]}
    found = convergence(curves, "plain", is_error=True)
    assert found["target"] == pytest.approx(1 / 0.95)  # 1.0526: 1.04 is below, 1.06 is not
    assert found["samples"] == {"plain": 15, "slow": 60} and found["speed_up"]["slow"] == 0.25
    assert convergence({"plain": [[]], "slow": [[(1, 1.0)]]}, "plain", is_error=True) is None

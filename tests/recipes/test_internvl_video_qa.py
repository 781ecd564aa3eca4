"""The recipes load and can be planned at their real size; the smoke recipe runs from command line to report."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from hfvla.recipe import load_recipe
from hfvla.training.estimate import plan_recipe

ROOT = Path(__file__).parents[2]
REAL = ROOT / "recipes" / "internvl_video_qa" / "real.yaml"  # needs parts and clips: test_real_signs.py
RECIPES = sorted(set((ROOT / "recipes" / "internvl_video_qa").glob("*.yaml")) - {REAL})
BILLIONS = {"full_1b": 0.938, "full_2b": 2.089, "full_8b": 7.944, "qlora_8b": 7.944, "staged": 0.938}


@pytest.fixture(scope="module")
def challenge(tmp_path_factory):
    """A file of the challenge; a plan counts its records and opens no video."""
    folder = tmp_path_factory.mktemp("challenge")
    record = {"question": "Who?", "choices": ["A. x", "B. y"], "answer": "B. y", "video_path": "v.mp4"}
    records = [{"id": f"train_{number}", "support_frames": [1.0], **record} for number in range(1490)]
    (folder / "train.json").write_text(json.dumps({"__count__": 1490, "data": records}))
    return folder / "train.json"


@cache
def planned(path, challenge):
    """Return a recipe and its plan as it is written; all settings of a large one would take four times as long."""
    recipe = load_recipe(path, [f"data.train.road_videos.path={challenge}"] if path.stem in BILLIONS else [])
    return recipe, plan_recipe(recipe, brief=True)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_loads_and_plans(path, challenge):
    recipe, plan = planned(path, challenge)
    assert all(stage["steps"] > 0 and stage["trainable_parameters"] > 0 for stage in plan["stages"])
    assert sum(part["parameters"] for part in plan["parameters"]) == plan["total_parameters"]
    if path.stem in BILLIONS:
        assert plan["total_parameters"] / 1e9 == pytest.approx(BILLIONS[path.stem], abs=5e-4)
        batch = {**recipe.args, **recipe.stages[-1].args}
        assert batch["per_device_train_batch_size"] * batch["gradient_accumulation_steps"] == 16
        assert recipe.stages[-1].train == ["lora"] and recipe.stages[-1].keep_best == "eval_accuracy"


def test_lora_trains_the_attention_of_the_language_model(challenge):
    _, plan = planned(ROOT / "recipes/internvl_video_qa/full_8b.yaml", challenge)
    # 28 layers of r 32: q and o 3584 to 3584, k and v 3584 to 512.
    expected = 28 * 32 * (2 * (3584 + 3584) + 2 * (3584 + 512))
    assert plan["stages"][0]["trainable_parameters"] == expected


@pytest.mark.slow
def test_smoke_recipe_from_training_to_report(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "hfvla.cli", "train", "recipes/internvl_video_qa/smoke.yaml"]
    done = subprocess.run([*command, "--output", str(out), "--json"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [stage["name"] for stage in json.loads(done.stdout)["stages"]] == ["projector", "lora"]
    for name in ("final/model.safetensors", "metrics.json", "report.html", "run.json", "lora/adapter"):
        assert (out / name).stat().st_size > 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"n", "accuracy", "accuracy_with_support", "accuracy_without_support", "failures"} <= set(metrics)
    assert {"single_frame"} <= set(metrics["baselines"])


@pytest.mark.parametrize("losses", ["binding: 1", "spelt: 1", "letters: 1, spelt: 1, binding: 1"])
def test_stages_for_models_from_scratch_are_planned(losses, tmp_path):
    """Sequences without a clip and without tiles; with the visual tokens kept as well as without."""
    smoke = (ROOT / "recipes/internvl_video_qa/smoke.yaml").read_text()
    head, stages = smoke.split("stages:\n")
    for kept in ("", ", cache: true"):
        stage = f"stages:\n  - {{name: one, train: [language], losses: {{{losses}}}{kept}}}\n"
        (tmp_path / "recipe.yaml").write_text(head.replace("config:", "config:\n    support_dropout: 0.0", 1) + stage)
        found = plan_recipe(load_recipe(tmp_path / "recipe.yaml"), brief=True)["stages"]
        assert [each["name"] for each in found] == ["one"] and found[0]["trainable_parameters"] > 0

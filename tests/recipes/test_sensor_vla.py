"""The recipes load and can be planned at their real size; the smoke recipe runs from command line to report."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hfvla.models.sensor_vla import FAMILY
from hfvla.recipe import load_recipe, resolved_dict
from hfvla.training.estimate import plan_recipe
from hfvla.worlds.reaching import ReachingOptions, build_reaching

ROOT = Path(__file__).parents[2]
REAL = ROOT / "recipes" / "sensor_vla" / "real.yaml"  # needs parts and episodes: test_real_bridge.py
RECIPES = sorted(set((ROOT / "recipes" / "sensor_vla").glob("*.yaml")) - {REAL})
FULL = [path for path in RECIPES if path.stem.startswith("full")]
BACKBONE = 3_754_622_976  # Qwen2.5-VL-3B; its output layer is tied
EXPERT, DENOISER = (
    69_306_375,
    71_413_767,
)  # queries and output, or time and noise


@pytest.fixture(scope="module")
def episodes(tmp_path_factory):
    """A LeRobot data set; a plan counts its steps and reads no picture."""
    options = ReachingOptions(episodes=4, steps=8, folder=str(tmp_path_factory.mktemp("rig")))
    return build_reaching(options, seed=0).census["folder"]


def load(path, episodes):
    return load_recipe(path, [f"data.train.lerobot.path={episodes}"] if path in FULL else [])


def each(paths, slow):
    """Parameters of a test, those in `slow` marked so."""
    marks = [[pytest.mark.slow] if path.stem in slow else [] for path in paths]
    return [pytest.param(path, id=path.stem, marks=mark) for path, mark in zip(paths, marks, strict=True)]


@pytest.mark.parametrize("path", each(RECIPES, {"full", "full_diffusion", "full_flow"}))
def test_recipe_loads_and_plans(path, episodes):
    plan = plan_recipe(load(path, episodes), brief=True)
    assert all(stage["steps"] > 0 and stage["trainable_parameters"] > 0 for stage in plan["stages"])
    parts = {part["part"]: part["parameters"] for part in plan["parameters"]}
    assert sum(parts.values()) == plan["total_parameters"]
    if path in FULL:
        assert parts["backbone"] == BACKBONE
        # q and o: 2048 to 2048, k and v: 2048 to 256, of 36 layers; rank 16.
        lora = 36 * 16 * (2 * (2048 + 2048) + 2 * (2048 + 256))
        new = plan["total_parameters"] - BACKBONE
        assert [stage["trainable_parameters"] for stage in plan["stages"]] == [new, new + lora]


@pytest.mark.parametrize(("name", "expert"), [("full", EXPERT), ("full_diffusion", DENOISER), ("full_flow", DENOISER)])
def test_parameters_at_real_size(name, expert):
    recipe = load_recipe(ROOT / f"recipes/sensor_vla/{name}.yaml")
    with torch.device("meta"):
        model = FAMILY.load("model")(FAMILY.load("build_config")(recipe.model.model_dump()))
    found = {part: sum(p.numel() for p in child.parameters()) for part, child in model.named_children()}
    assert found["backbone"] == BACKBONE and found["expert"] == expert
    assert found["state_encoder"] == 12 * 2048 + 2048 + 2048 * 2048 + 2048


@pytest.mark.parametrize("path", FULL, ids=lambda path: path.stem)
def test_the_full_recipes_are_those_of_the_rig(path, episodes):
    recipe = load(path, episodes)
    config = recipe.model.config
    assert len(config["views"]) == 5 and config["sensor"]["channels"] == 1026
    expert, lora_stage = recipe.stages
    assert expert.cache is not None and lora_stage.cache is None
    assert lora_stage.lora.r == 16 and lora_stage.lora.alpha == 32 and lora_stage.lora.dropout == 0.05
    assert (expert.args["num_train_epochs"], lora_stage.args["num_train_epochs"]) == (20, 10)
    assert expert.learning_rates == {"sensor": 5e-4} and lora_stage.learning_rates == {"lora": 1e-5, "sensor": 5e-4}
    kind = path.stem.partition("_")[2] or "regression"
    assert config["expert"]["kind"] == kind


def test_there_is_a_recipe_for_each_expert():
    kinds = ["", "_diffusion", "_flow"]
    expected = {f"{name}{kind}" for name in ("full", "tiny") for kind in kinds}
    assert {path.stem for path in RECIPES} >= expected | {"smoke"}


@pytest.mark.parametrize("name", ["full", "tiny"])
def test_experts_differ_in_nothing_but_the_expert(name):
    """Same data, budget and evaluation, so that their scores can be compared."""

    def comparable(kind):
        tree = resolved_dict(load_recipe(ROOT / f"recipes/sensor_vla/{name}{kind}.yaml"))
        assert tree["model"]["config"].pop("expert")["kind"] == (kind[1:] or "regression")
        return {key: value for key, value in tree.items() if key not in {"output_dir", "name"}}

    assert comparable("") == comparable("_diffusion") == comparable("_flow")


@pytest.mark.slow
def test_smoke_recipe_from_training_to_report(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "hfvla.cli", "train", "recipes/sensor_vla/smoke.yaml"]
    done = subprocess.run([*command, "--output", str(out), "--json"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    assert [stage["name"] for stage in json.loads(done.stdout)["stages"]] == ["expert", "lora"]
    for name in ("final/model.safetensors", "metrics.json", "report.html", "run.json", "lora/adapter"):
        assert (out / name).stat().st_size > 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"n", "mse", "first_mse", "skill/hold_last", "skill/mean_action", "failures"} <= set(metrics)
    assert {"without_sensor", "shuffled_sensor"} <= set(metrics["ablations"])

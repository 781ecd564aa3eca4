"""The recipes load and can be planned at their real size without a hub."""

import json
from functools import cache
from pathlib import Path

import pytest

from hfvla.recipe import load_recipe
from hfvla.training.estimate import plan_recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes" / "chat_vlm").glob("*.yaml"))
BILLIONS = {"llava_two_stage": 0.4493, "three_stage_annealing": 3.755, "qlora_24gb": 8.292, "zero3_8b": 7.944}
TRAINED = {  # millions, by stage
    "llava_two_stage": [1.66, 122.19],
    "three_stage_annealing": [36.71, 3754.6, 3122.6],
    "qlora_24gb": [80.7],
    "zero3_8b": [27.5, 7640.4],
}


@pytest.fixture(scope="module")
def conversations(tmp_path_factory):
    """A file of conversations with one picture, in TRL's form."""
    from PIL import Image

    folder = tmp_path_factory.mktemp("set")
    Image.new("RGB", (32, 32)).save(folder / "a.png")
    said = [{"role": "user", "content": "<image>What is it?"}, {"role": "assistant", "content": "A square."}]
    rows = [{"messages": said, "images": ["a.png"]} for _ in range(24)]
    path = folder / "set.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@cache
def planned(path, conversations):
    """Return a recipe's plan; planning one of real size takes seconds."""
    overrides = []
    if path.stem in BILLIONS:
        written = load_recipe(path)
        overrides = [f"data.train.{entry.label}.path={conversations}" for entry in written.data.train]
        for stage in written.stages:
            entries = stage.data.train if stage.data is not None else []
            overrides += [f"stages.{stage.name}.data.train.{entry.label}.path={conversations}" for entry in entries]
    return plan_recipe(load_recipe(path, overrides), brief=True)


@pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.stem, marks=[pytest.mark.slow] if path.stem in BILLIONS else []) for path in RECIPES],
)
def test_recipe_loads_and_plans(path, conversations):
    plan = planned(path, conversations)
    assert all(stage["steps"] > 0 and stage["trainable_parameters"] > 0 for stage in plan["stages"])
    assert sum(part["parameters"] for part in plan["parameters"]) == plan["total_parameters"]
    assert all(stage["costs"] is not None for stage in plan["stages"]), [stage["notes"] for stage in plan["stages"]]
    if path.stem in BILLIONS:
        assert plan["total_parameters"] / 1e9 == pytest.approx(BILLIONS[path.stem], abs=5e-4)
        trained = [stage["trainable_parameters"] / 1e6 for stage in plan["stages"]]
        assert trained == pytest.approx(TRAINED[path.stem], rel=2e-3)

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
FOLDER = ROOT / "recipes" / "internvl_retrieval"
RECIPES = sorted(path for path in FOLDER.glob("*.yaml") if not path.stem.startswith("compare"))
REAL = ("full", "full_simultaneous", "lora")


@pytest.fixture(scope="module")
def geotext(tmp_path_factory):
    """A training file; a plan counts its records and opens no image."""
    folder = tmp_path_factory.mktemp("geotext")
    record = {"caption": "A red building.", "sentences": ["A pool.", None, None], "bboxes": [[0.5] * 4, None, None]}
    names = [f"{building:04d}/image-{view:02d}.jpeg" for building in range(150) for view in range(4)]
    records = [{"image_id": name, "image": f"train/{name}", **record} for name in names]
    (folder / "train.json").write_text(json.dumps(records))
    return folder / "train.json"


def load(path, geotext):
    source = {"real": "captions"}.get(path.stem, "geotext" if path.stem in REAL else None)
    return load_recipe(path, [f"data.train.{source}.path={geotext}"] if source else [])


@cache
def planned(path, geotext):
    """Return a recipe's plan as it is written; one of real size takes seconds, all settings four times these."""
    return plan_recipe(load(path, geotext), brief=True)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_loads_and_plans(path, geotext):
    plan = planned(path, geotext)
    assert all(stage["steps"] > 0 and stage["trainable_parameters"] > 0 for stage in plan["stages"])
    assert sum(part["parameters"] for part in plan["parameters"]) == plan["total_parameters"]
    assert not [note for stage in plan["stages"] for note in stage.get("notes", []) if "no memory" in note]


def test_full_is_the_published_schedule(geotext):
    recipe = load(FOLDER / "full.yaml", geotext)
    first, second = recipe.stages
    assert first.train == second.train == ["adapters", "itm_head", "temperature"]
    assert first.losses == {"itc": 1.0, "itm": 1.0}
    settings = [(s.args["num_train_epochs"], s.args["learning_rate"], s.args["per_device_train_batch_size"])
                for s in recipe.stages]  # fmt: skip
    assert settings == [(3, 5e-5, 6), (5, 1e-5, 4)]
    assert recipe.args["lr_scheduler_type"] == "cosine" and recipe.args["warmup_steps"] == 0.1
    # By epoch: the weight of boxes and relations, and what joins; the first epoch is number 1.
    boxes, joins = {1: second.losses["bbox"]}, {}
    for phase in second.phases:
        assert phase.losses.get("bbox") == phase.losses.get("spatial")
        boxes[phase.epoch + 1] = phase.losses.get("bbox", boxes[phase.epoch])
        joins[phase.epoch + 1] = phase.add
    assert boxes == {1: 0.05, 2: 0.075, 3: 0.1, 4: 0.1}
    assert joins == {2: ["heads"], 3: ["language.last(1)"], 4: ["language.last(2)"]}
    assert (first.keep_best, second.keep_best) == ("eval_retrieval_mean_recall", "eval_combined")


def test_full_is_the_real_size(geotext):
    plan = planned(FOLDER / "full.yaml", geotext)
    first, second = plan["stages"]
    temperature, added = 1, 1024 * 256 + 896 * 256 + 2 * (2 * 256 + 1)
    assert first["trainable_parameters"] == 328_192 + 295_424 + 131_842 + temperature
    heads, layers = 132_356 + 132_870, 2 * 14_912_384
    assert second["trainable_parameters"] == first["trainable_parameters"] + added + heads + layers


def test_lora_reads_images_with_the_language_model(geotext):
    recipe = load(FOLDER / "lora.yaml", geotext)
    stage = recipe.stages[0]
    assert recipe.model.config["image_from"] == "language" and recipe.model.config["text_pooling"] == "last"
    assert stage.grad_cache == 16 and stage.batches.rows_per_group == 1
    # 24 layers of r 16: q and o 896 to 896, k and v 896 to 128; adapters 896 to 256; temperature.
    lora = 24 * 16 * (2 * (896 + 896) + 2 * (896 + 128))
    assert planned(FOLDER / "lora.yaml", geotext)["stages"][0]["trainable_parameters"] == lora + 2 * 295_424 + 1


def test_tiny_and_simultaneous_have_the_same_budget():
    two, one = (load_recipe(FOLDER / f"{name}.yaml") for name in ("tiny", "tiny_simultaneous"))
    assert sum(stage.args["num_train_epochs"] for stage in two.stages) == one.stages[0].args["num_train_epochs"]
    assert two.stages[-1].losses == one.stages[0].losses and two.args == one.args and two.data == one.data
    upgraded = {**two.model.config, "adapter": {**two.model.config["adapter"], **two.stages[-1].model["adapter"]}}
    assert upgraded == one.model.config and two.model.options == one.model.options


@pytest.mark.slow
def test_smoke_recipe_from_training_to_report(tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "hfvla.cli", "train", "recipes/internvl_retrieval/smoke.yaml"]
    done = subprocess.run([*command, "--output", str(out), "--json"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    stages = json.loads(done.stdout)["stages"]
    assert [stage["name"] for stage in stages] == ["foundation", "multitask"]
    assert {"eval_retrieval_mean_recall", "eval_box_iou", "eval_combined"} <= set(stages[1]["scores"])
    for name in ("final/model.safetensors", "metrics.json", "report.html", "run.json"):
        assert (out / name).stat().st_size > 0
    metrics = json.loads((out / "metrics.json").read_text())
    assert {"n", "t2i_r1", "i2t_r10", "mean_recall"} <= set(metrics)

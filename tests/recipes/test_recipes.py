"""Every shipped recipe loads and can be planned; the smoke recipe runs from command line to prediction."""

import json
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest

from hfvla.data.samples.robots import ROBOTS
from hfvla.recipe import load_recipe
from hfvla.training.estimate import plan_recipe

ROOT = Path(__file__).parents[2]
REAL = {"real", "curriculum_real"}  # need parts: test_real.py, test_real_excerpts.py
RECIPES = [path for path in sorted((ROOT / "recipes" / "ember_vlm").glob("*.yaml")) if path.stem not in REAL]


@pytest.fixture
def records(tmp_path):
    rows = [{"input": f"Task: Inspect site {i}.", "output": ROBOTS[i % 5]} for i in range(40)]
    (tmp_path / "real.json").write_text(json.dumps(rows))
    return tmp_path / "real.json"


def hfvla(*words):
    done = subprocess.run(
        [sys.executable, "-m", "hfvla.cli", *words], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


@cache
def planned(path, *overrides):
    """Return a recipe's plan as it is written; one of real size takes seconds, all settings four times these."""
    return plan_recipe(load_recipe(path, overrides), brief=True)


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_recipe_loads_and_plans(path, records):
    plan = planned(path, *([f"data.train.robot_selection.path={records}"] if path.stem == "robot_selection" else []))
    assert all(stage["steps"] > 0 and stage["trainable_parameters"] > 0 for stage in plan["stages"])
    assert sum(part["parameters"] for part in plan["parameters"]) == plan["total_parameters"]


def test_full_recipe_is_the_real_size():
    parts = {part["part"]: part["parameters"] for part in planned(ROOT / "recipes/ember_vlm/full.yaml")["parameters"]}
    assert parts["vision tower"] == 4_717_792
    assert parts["language model"] == 30_341_760


@pytest.mark.slow
def test_smoke_recipe_from_training_to_prediction(tmp_path, records):
    out = tmp_path / "run"
    run = hfvla("train", "recipes/ember_vlm/smoke.yaml", "--output", str(out), "--json")
    assert [stage["name"] for stage in run["stages"]] == ["alignment", "instruct", "selection", "reasoning"]
    for name in ("final/model.safetensors", "metrics.json", "report.html", "run.json"):
        assert (out / name).stat().st_size > 0
    metrics = json.loads((out / "metrics.json").read_text())
    wanted = {"n", "top1_in_set", "exact_match", "jaccard", "macro_f1", "ece", "mce"}
    assert wanted <= set(metrics) and all(wanted - {"n"} <= set(row) for row in metrics["baselines"].values())
    assert {"majority", "tfidf_logreg"} <= set(metrics["baselines"])
    assert {"blank_image", "shuffled_image", "text_only", "image_only"} <= set(metrics["ablations"])

    checkpoint, data = str(out / "final"), f"robot_selection={records}"
    hfvla("eval", "--checkpoint", checkpoint, "--data", data, "--output", str(tmp_path / "eval"), "--json")
    scored = json.loads((tmp_path / "eval" / "metrics.json").read_text())
    assert scored["n"] == 40 and wanted <= set(scored)

    answer = hfvla("predict", "--checkpoint", checkpoint, "--task", "Inspect the reef.", "--top-k", "3", "--json")
    assert len(answer["choices"]) == 3 and set(answer["probabilities"]) == set(ROBOTS)
    assert answer["choices"][0]["confidence"] == max(answer["probabilities"].values())


@pytest.mark.slow
@pytest.mark.distributed
def test_smoke_recipe_on_two_processes(tmp_path):
    """The contrastive stage gathers over processes; the audit of its checkpoint, on one process, must not wait."""
    out = tmp_path / "run"
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [
        *launch,
        str(ROOT / "recipes/train.py"),
        str(ROOT / "recipes/ember_vlm/smoke.yaml"),
        "--output",
        str(out),
    ]
    done = subprocess.run(
        [*command, "--stop-after", "alignment"], capture_output=True, text=True, timeout=400, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert json.loads((out / "run.json").read_text())["processes"] == 2

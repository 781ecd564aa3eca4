"""What a run holds out of its training data is scored when it ends, and can be scored again later."""

import json

import pytest

from hfvla.errors import DataError
from hfvla.evaluation.run import evaluate_checkpoint
from hfvla.registry import get_family
from hfvla.training.run.run import run_recipe
from hfvla.training.stage.data import RecipeData

from ..recipes import build_recipe, selection_stage, tasks, write_tasks

SPEC = get_family("ember_vlm")


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    path = write_tasks(folder / "tasks.json", tasks(40))
    section = {"train": [{"source": "robot_selection", "path": path}], "validation": {"fraction": 0.2}}
    stage = selection_stage(keep_checkpoints="last", args={"num_train_epochs": 1})
    evaluation = {"bootstrap_samples": 0, "max_generate": 0, "ablations": False, "stages": ["test"]}
    data = {**section, "test": {"fraction": 0.1}}
    recipe = build_recipe(path, folder / "out", [stage], data=data, evaluation=evaluation)
    return recipe, run_recipe(recipe), folder


def test_the_run_scores_its_test_part(trained):
    recipe, record, folder = trained
    assert record["evaluation"]["test"]["metrics"]["n"] == 4 and record["metrics"]["n"] == 4
    assert list(record["stage_scores"]["test"]) == ["start", "selection"]
    rows = RecipeData(SPEC, recipe).test_rows()
    lines = [json.loads(line) for line in (folder / "out/predictions.jsonl").read_text().splitlines()]
    assert {line["id"] for line in lines} == set(rows["id"])
    assert run_recipe(recipe) == record  # a finished run is known as such


@pytest.mark.parametrize(
    "place", ["final", pytest.param("selection", marks=pytest.mark.slow), "selection/checkpoints/checkpoint-4"]
)
def test_a_checkpoint_is_scored_on_what_was_held_out(trained, tmp_path, place):
    recipe, record, folder = trained
    results = evaluate_checkpoint(
        folder / "out" / place,
        {"validation": {}, "test": {}},
        tmp_path / "scores",
        bootstrap_samples=0,
        max_generate=0,
    )
    assert {name: result.metrics["n"] for name, result in results.items()} == {"validation": 8, "test": 4}
    held = RecipeData(SPEC, recipe).stage_rows(recipe.stages[0]).validation
    assert [row["id"] for row in results["validation"].rows] == held["id"]
    if place == "final":
        assert results["test"].metrics["top1_in_set"] == record["metrics"]["top1_in_set"]


def test_without_a_recipe_nothing_was_held_out(trained, tmp_path):
    import shutil

    copied = shutil.copytree(trained[2] / "out/final", tmp_path / "alone")
    (copied / "recipe.json").unlink()
    (copied / "complete.json").unlink()
    with pytest.raises(DataError, match=r"no recipe.json, which says what was held out.*--data SOURCE=FILE"):
        evaluate_checkpoint(copied, {"validation": {}}, tmp_path / "scores")

"""The stages of a recipe that a run trains, and the checkpoint that stands for those before."""

import pytest

from hfvla.errors import CheckpointError, RecipeError
from hfvla.recipe import load_recipe
from hfvla.training.stage.plan import StagePlan

RECIPE = "recipes/ember_vlm/smoke.yaml"


def test_a_given_checkpoint_is_looked_at_before_anything_is_read(tmp_path):
    plan = StagePlan.from_recipe(load_recipe(RECIPE), "instruct", tmp_path / "nowhere", "selection")
    assert [stage.name for stage in plan.stages] == ["instruct", "selection"]
    with pytest.raises(CheckpointError, match="nowhere: not a checkpoint: no config.json"):
        plan.check_given(tmp_path / "run")
    (tmp_path / "run" / "instruct").mkdir(parents=True)
    (tmp_path / "run" / "instruct" / "config.json").write_text("{}")
    plan.check_given(tmp_path / "run")  # the stage that starts from it is finished


def test_stages_by_name(tmp_path):
    recipe = load_recipe(RECIPE)
    with pytest.raises(RecipeError, match="stop_after: no stage 'instrct'. Did you mean 'instruct'"):
        StagePlan.from_recipe(recipe, stop_after="instrct")
    with pytest.raises(RecipeError, match="Give both start_at and from"):
        StagePlan.from_recipe(recipe, start_at="instruct")
    StagePlan.from_recipe(recipe).check_given(tmp_path)  # nothing is given

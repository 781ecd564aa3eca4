"""`evaluation.options` of a recipe: only what the family's evaluation knows, and it gets there."""

import dataclasses
from types import SimpleNamespace

import pytest

from hfvla.data.processes import Processes
from hfvla.errors import RecipeError
from hfvla.recipe import load_recipe
from hfvla.training.run.run import RecipeRun


@pytest.fixture
def told(family):
    options = {"closed_loop": "episodes to run", "action_steps": "actions of each chunk"}
    return {"toy": dataclasses.replace(family, evaluation_options=options)}


def test_an_unknown_option_is_one_problem(write, good, told):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(good), ["evaluation.options={closed_lop: 5, action_steps: 2}"], told)
    assert len(caught.value.problems) == 1
    problem = caught.value.problems[0]
    assert "evaluation.options.closed_lop" in problem and "Did you mean 'closed_loop'?" in problem
    assert "the evaluation of 'toy' has no option 'closed_lop'" in problem


def test_a_family_without_options_takes_none(write, good, families):
    with pytest.raises(RecipeError, match="the evaluation of 'toy' has no option 'closed_loop'"):
        load_recipe(write(good), ["evaluation.options.closed_loop=5"], families)
    assert load_recipe(write(good), [], families).evaluation.options == {}


def test_a_problem_is_named_by_its_line(write, good, told):
    path = write(good + "evaluation:\n  options:\n    closed_lop: 5\n")
    with pytest.raises(RecipeError, match=rf"{path.name}:{good.count(chr(10)) + 3}"):
        load_recipe(path, [], told)


def test_options_reach_the_evaluation(write, good, told):
    recipe = load_recipe(write(good), ["evaluation.options.closed_loop=5"], told)
    state = SimpleNamespace(device="cpu", is_main_process=True)
    run = SimpleNamespace(
        recipe=recipe,
        state=state,
        meeting=SimpleNamespace(processes=Processes()),
        screen=SimpleNamespace(batches=None),
    )
    rows = SimpleNamespace(all_training_rows=lambda: None)
    assert RecipeRun._context(run, rows).options == {"closed_loop": 5}


@pytest.mark.parametrize(
    ("recipe", "option", "message"),
    [
        ("sensor_vla", "closed_loop=many", "expected a whole number; got 'many'"),
        ("sensor_vla", "closed_loop=true", "expected a whole number; got true"),
        ("sensor_vla", "closed_loop=-1", "expected a whole number >= 0"),
        ("sensor_vla", "action_steps=0", "expected a whole number >= 1"),
        ("sensor_vla", "videos=1e20", "expected a whole number; got 1e+20"),
        ("internvl_retrieval", "k_test=2.5", "expected a whole number; got 2.5"),
        ("internvl_retrieval", "legacy_building_ids=1", "expected true or false; got 1"),
    ],
)
def test_values_are_checked(recipe, option, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(f"recipes/{recipe}/tiny.yaml", [f"evaluation.options.{option}"])
    assert len(caught.value.problems) == 1 and message in caught.value.problems[0]

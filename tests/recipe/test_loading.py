import json

import pytest

from hfvla.errors import RecipeError
from hfvla.recipe import (
    Recipe,
    check_recipe,
    diff_recipes,
    load_recipe,
    load_resolved,
    resolved_dict,
    save_resolved,
)


def test_a_good_recipe_is_typed(write, good, families):
    recipe = load_recipe(write(good, "night_run.yaml"), families=families)
    assert (recipe.family, recipe.name, recipe.seed, recipe.output_dir) == ("toy", "night_run", 3, "outputs/night_run")
    made, real = recipe.data.train
    assert (made.source, made.weight, made.label, made.options) == ("made", 2.0, "made", {"size": 20})
    assert (real.label, real.weight, real.options) == ("real", 1.0, {"path": "tasks.json"})
    assert recipe.data.eval["held_out"].options == {"path": "test.json"}
    assert recipe.args == {"learning_rate": 1e-4, "num_train_epochs": 2}
    align, select = recipe.stages
    assert align.learning_rates == {"language.last(2)": 5e-5} and align.keep_best is None
    assert select.handover.from_ == "align" and select.handover.new == ["head.*"]
    assert recipe.stage_args(select)["learning_rate"] == 5e-5
    assert recipe.stage_args(align)["learning_rate"] == 1e-4
    assert recipe.evaluation.bootstrap_samples == 1000 and recipe.data.validation.fraction == 0.1
    assert recipe.stage("select") is select
    with pytest.raises(KeyError, match="nothing"):
        recipe.stage("nothing")


def test_a_stage_may_bring_its_data(write, good, families):
    path = write(good)
    override = "stages.align.data.train=[{source: made, size: 2}]"
    recipe = load_recipe(path, [override], families)
    assert [source.options for source in recipe.stage_sources(recipe.stages[0])] == [{"size": 2}]
    assert [source.label for source in recipe.stage_sources(recipe.stages[1])] == ["made", "real"]


def test_name_and_output_dir_can_be_given(write, good, families):
    recipe = load_recipe(write(good), ["name=second", "args.learning_rate=3e-4"], families)
    assert recipe.output_dir == "outputs/second"
    assert load_recipe(write(good), ["output_dir=there"], families).output_dir == "there"


def test_a_file_name_becomes_a_run_name(write, good, families):
    assert load_recipe(write(good, "_my recipe (2).yaml"), families=families).name == "my_recipe_2_"


def test_a_recipe_cannot_be_changed(write, good, families):
    recipe = load_recipe(write(good), families=families)
    with pytest.raises(RecipeError, match="a Recipe does not change once it is checked"):
        recipe.seed = 9


def test_five_mistakes_are_five_problems(write, good, families):
    text = good.replace("seed: 3", "sed: 3").replace("size: 20", "size: many").replace("itc: 0.5", "itcc: 0.5")
    text = text.replace("[projector,", "[projektor,").replace("eval_macro_f1", "eval_macro_f2")
    path = write(text)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, families=families)
    assert caught.value.problems == [
        f"{path}:2: sed: unknown key 'sed'. Did you mean 'seed'?",
        f"{path}:5: data.train[0].size: expected a whole number; got 'many'",
        f"{path}:14: stages[0].train[0]: no parameter group 'projektor' in family 'toy'. Did you mean 'projector'?",
        f"{path}:19: stages[1].losses.itcc: no loss term 'itcc' in family 'toy'. Did you mean 'itc'?",
        f"{path}:21: stages[1].keep_best: no metric 'eval_macro_f2' in family 'toy'. Did you mean 'eval_macro_f1'?",
    ]
    assert "5 problems in the recipe" in str(caught.value)


def test_a_single_mistake_is_one_line(write, good, families):
    path = write(good.replace("family: toy", "family: toi"))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, families=families)
    assert str(caught.value) == f"{path}:1: family: no model family 'toi'. Did you mean 'toy'?"


def test_a_key_given_twice_stops_the_recipe(write, good, families):
    with pytest.raises(RecipeError, match=r"recipe.yaml:2: seed: given twice \(lines 2 and 3\)"):
        load_recipe(write(good.replace("seed: 3", "seed: 3\nseed: 4")), families=families)


def test_known_families_come_from_the_registry(write, good, monkeypatch, families):
    monkeypatch.setattr("hfvla.registry.available_families", lambda: families)
    assert load_recipe(write(good)).family == "toy"


def test_paths_are_found_here_first_and_then_beside_the_recipe(tmp_path, monkeypatch, good, families):
    here, beside = tmp_path / "here", tmp_path / "recipes"
    here.mkdir()
    beside.mkdir()
    monkeypatch.chdir(here)
    recipe_file = beside / "r.yaml"
    recipe_file.write_text(good.replace("size: 20", "size: 20, pictures: pics"))
    (beside / "tasks.json").write_text("[]")
    (beside / "pics").mkdir()
    recipe = load_recipe(recipe_file, families=families)
    assert recipe.data.train[1].options["path"] == str(beside / "tasks.json")
    assert recipe.data.train[0].options["pictures"] == str(beside / "pics")
    assert recipe.data.eval["held_out"].options["path"] == "test.json"  # nowhere: the reader says so

    (here / "tasks.json").write_text("[]")
    recipe = load_recipe(recipe_file, families=families)
    assert recipe.data.train[1].options["path"] == "tasks.json"


def test_a_resolved_recipe_comes_back_equal(write, good, families, tmp_path):
    recipe = load_recipe(write(good), families=families)
    path = save_resolved(recipe, tmp_path / "deep" / "recipe.json")
    assert load_resolved(path) == recipe
    data = json.loads(path.read_text())
    assert data["evaluation"]["max_generate"] == 64 and data["stages"][1]["handover"]["from"] == "align"
    assert data["data"]["train"][0] == {"source": "made", "name": None, "weight": 2.0, "losses": None, "size": 20}
    assert data == resolved_dict(recipe)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as a resolved recipe"),
        ('{"family": "toy", "stages": []}', r"r.json: stages: expected at least one item"),
        ('{"family": "toy", "stages": [], "sed": 1}', "unknown key 'sed'"),
        ("[]", "r.json: expected a mapping"),
    ],
)
def test_a_bad_resolved_recipe_is_refused(tmp_path, text, message):
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_resolved(tmp_path / "r.json")


def test_a_missing_resolved_recipe_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="nowhere.json: no such resolved recipe"):
        load_resolved(tmp_path / "nowhere.json")


def test_differences_are_named_by_stage_and_source(write, good, families):
    path = write(good)
    first = load_recipe(path, families=families)
    assert diff_recipes(first, first) == []
    changes = ["stages.select.args.learning_rate=1e-5", "data.train.real.path=b.json", "stages.align.args.max_steps=3"]
    assert diff_recipes(first, load_recipe(path, changes, families)) == [
        "data.train.real.path: tasks.json -> b.json",
        "stages.align.args: {} -> (not set)",
        "stages.select.args.learning_rate: 5e-05 -> 1e-05",
        "stages.align.args.max_steps: (not set) -> 3",
    ]


def test_a_recipe_built_in_python_is_checked_too(write, good, families):
    recipe = load_recipe(write(good), families=families)
    check_recipe(recipe, families)
    data = resolved_dict(recipe)
    data["stages"][0]["train"] = ["visoin"]
    data["stages"][0]["learning_rates"] = {}
    with pytest.raises(RecipeError, match=r"stages\[0\].train\[0\]: no parameter group 'visoin'"):
        check_recipe(Recipe.model_validate(data), families)

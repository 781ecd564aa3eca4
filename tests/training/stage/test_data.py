"""Rows of a recipe: built once, split by task, mixed for each stage."""

import pytest

from hfvla.data.inspection.checks import check_sets
from hfvla.data.inspection.splitting import checked_sets
from hfvla.data.rows.learned_terms import LEARNED_TERMS
from hfvla.errors import DataError, RecipeError
from hfvla.registry import get_family
from hfvla.training.run.arguments import stage_arguments
from hfvla.training.stage.data import RecipeData, recipe_sets

from ..recipes import build_recipe, selection_stage, tasks, write_tasks

SPEC = get_family("ember_vlm")


def source(path, **options):
    return {"source": "robot_selection", "path": path, **options}


@pytest.fixture
def files(tmp_path):
    """Two files that share their middle sixteen tasks."""
    chosen = tasks()
    return write_tasks(tmp_path / "a.json", chosen[:32]), write_tasks(tmp_path / "b.json", chosen[16:])


def load(tmp_path, train, validation=None, stages=None, **data):
    section = {"train": train, "validation": {"fraction": 0.25, **(validation or {})}, **data}
    recipe = build_recipe("", tmp_path / "run", stages or [selection_stage()], data=section)
    return RecipeData(SPEC, recipe), recipe


def groups(rows) -> set[str]:
    return set(rows["group"])


def test_no_task_crosses_the_split(tmp_path, files):
    data, recipe = load(tmp_path, [source(files[0], name="a"), source(files[1], name="b")])
    rows = data.stage_rows(recipe.stages[0])
    assert not groups(rows.train) & groups(rows.validation)
    assert len(groups(rows.train) | groups(rows.validation)) == 48
    assert len(rows.train) + len(rows.validation) == 64  # shared tasks are there twice, each time on the same side
    assert 8 <= len(groups(rows.validation)) < 24


def test_a_task_held_out_in_one_source_is_held_out_of_all(tmp_path, files):
    train = [source(files[0], name="a"), source(files[1], name="b")]
    data, recipe = load(tmp_path, train, {"sources": ["a"]})
    rows = data.stage_rows(recipe.stages[0])
    only_a, whole_a = load(tmp_path, train[:1])
    held = groups(only_a.stage_rows(whole_a.stages[0]).validation)
    shared = {f"{action}the{place}" for action, place in (t[0].lower().split(" the ") for t in tasks()[16:32])}
    assert groups(rows.validation) == held and held & shared  # rows of "a" alone, some of them in "b" too
    assert not held & groups(rows.train)
    assert len(rows.validation) == len(held) == 8
    assert len(rows.train) == 64 - 8 - len(held & shared)


def test_a_test_part_is_apart_from_both_others(tmp_path, files):
    train = [source(files[0], name="a"), source(files[1], name="b")]
    data, recipe = load(tmp_path, train, {"fraction": 0.1}, test={"fraction": 0.2})
    rows = data.stage_rows(recipe.stages[0])
    tested = data.test_rows()
    assert not groups(tested) & (groups(rows.train) | groups(rows.validation))
    assert not groups(rows.train) & groups(rows.validation)
    assert len(tested) + len(rows.train) + len(rows.validation) == 64
    assert 10 <= len(tested) <= 15 and groups(data.all_training_rows()) == groups(rows.train)
    again, _ = load(tmp_path, train, {"fraction": 0.1}, test={"fraction": 0.2})
    assert again.test_rows()["id"] == tested["id"]
    assert [name for name in data.fingerprints() if "test" in name]
    alone, _ = load(tmp_path, train, {"fraction": 0.1})
    assert alone.test_rows() is None and not [name for name in alone.fingerprints() if "test" in name]


def test_seventy_twenty_ten(tmp_path):
    path = write_tasks(tmp_path / "all.json", tasks(40))
    data, recipe = load(tmp_path, [source(path)], {"fraction": 0.2}, test={"fraction": 0.1})
    rows = data.stage_rows(recipe.stages[0])
    assert (len(rows.train), len(rows.validation), len(data.test_rows())) == (28, 8, 4)


def test_a_test_part_of_some_sources(tmp_path, files):
    train = [source(files[0], name="a"), source(files[1], name="b")]
    data, _ = load(tmp_path, train, test={"fraction": 0.25, "sources": ["b"]})
    b_alone, _ = load(tmp_path, train[1:], test={"fraction": 0.25})
    assert data.test_rows()["id"] == b_alone.test_rows()["id"]
    with pytest.raises(RecipeError, match=r"data.test.sources: no training source 'c'"):
        load(tmp_path, train, test={"fraction": 0.25, "sources": ["c"]})


def test_parts_that_cannot_be(tmp_path, files):
    with pytest.raises(ValueError, match="leave nothing to train on"):
        load(tmp_path, [source(files[0])], {"fraction": 0.5}, test={"fraction": 0.5})
    with pytest.raises(ValueError, match="would both be the set `test`"):
        load(tmp_path, [source(files[0])], test={"fraction": 0.2}, eval={"test": source(files[1])})


def test_validation_sources_must_exist(tmp_path, files):
    with pytest.raises(RecipeError, match="data.validation.sources: no training source 'aa'. Did you mean 'a'"):
        load(tmp_path, [source(files[0], name="a")], {"sources": ["aa"]})


def test_sources_of_weight_zero_are_not_even_read(tmp_path, files):
    train = [source(files[0], name="a"), source(str(tmp_path / "absent.json"), name="off", weight=0.0)]
    data, recipe = load(tmp_path, train, {"sources": ["a", "off"]})
    rows = data.stage_rows(recipe.stages[0])
    assert len(rows.train) + len(rows.validation) == 32 and set(data.census) == {"a"}


def test_weights_repeat_training_rows_but_not_validation(tmp_path, files):
    data, recipe = load(tmp_path, [source(files[0], weight=2.0)])
    rows = data.stage_rows(recipe.stages[0])
    assert len(rows.train) == 2 * 24 and len(groups(rows.train)) == 24 and len(rows.validation) == 8
    assert len(data.all_training_rows()) == 24


def test_no_fraction_holds_nothing_out(tmp_path, files):
    data, recipe = load(tmp_path, [source(files[0])], {"fraction": 0.0})
    rows = data.stage_rows(recipe.stages[0])
    assert rows.validation is None and len(rows.train) == 32


def test_stages_with_sources_of_their_own(tmp_path, files):
    """Both sources go by the same label; each holds rows out, and neither's held-out tasks are trained anywhere."""
    stages = [
        selection_stage(),
        selection_stage(name="second", data={"train": [source(files[1])]}),
    ]
    data, recipe = load(tmp_path, [source(files[0])], stages=stages)
    first, second = (data.stage_rows(stage) for stage in recipe.stages)
    held = groups(first.validation) | groups(second.validation)
    assert len(groups(first.validation)) >= 8 and len(groups(second.validation)) >= 8
    assert not held & groups(first.train) and not held & groups(second.train)
    assert set(data.census) == {"robot_selection", "robot_selection_2"}
    assert data.census["robot_selection_2"]["found"] == 32


def test_only_the_stages_that_run_are_built(tmp_path, files):
    stages = [selection_stage(), selection_stage(name="second", data={"train": [source("absent.json")]})]
    recipe = build_recipe(files[0], tmp_path / "run", stages)
    assert len(RecipeData(SPEC, recipe, recipe.stages[:1]).stage_rows(recipe.stages[0]).train) == 24
    with pytest.raises(DataError, match=r"absent.json"):
        RecipeData(SPEC, recipe)


def test_the_recipes_limit_on_bad_records_holds(tmp_path, files):
    path = write_tasks(tmp_path / "bad.json", [*tasks(9), ("Dig", "Submarine")])
    with pytest.raises(DataError, match="1 of 10 records are unusable.*'Submarine'"):
        load(tmp_path, [source(path)])
    data, _ = load(tmp_path, [source(path)], max_bad_fraction=0.2)
    assert data.census["robot_selection"]["rejected"]["unknown robot name"]["count"] == 1
    with pytest.raises(DataError, match="at most 5.0%"):  # the source's own word goes first
        load(tmp_path, [source(path, max_bad_fraction=0.05)], max_bad_fraction=0.2)


def test_keep_best_needs_rows_to_choose_by(tmp_path, files):
    stage = selection_stage(keep_best="eval_jaccard", data={"train": [source(files[1], name="b")]})
    data, recipe = load(tmp_path, [source(files[0], name="a")], {"sources": ["b"]}, [stage])
    assert data.stage_rows(recipe.stages[0]).validation is not None
    stage = selection_stage(keep_best="eval_jaccard", data={"train": [source(files[1], name="b")]})
    stages = [selection_stage(name="zero"), stage]
    data, recipe = load(tmp_path, [source(files[0], name="a")], {"sources": ["a"]}, stages)
    assert data.stage_rows(recipe.stages[1]).validation is None
    with pytest.raises(RecipeError, match="stage 'selection': keep_best needs validation rows.*'eval_jaccard'"):
        stage_arguments(recipe, recipe.stages[1], SPEC, tmp_path, has_validation=False)


def test_arguments_of_a_stage(tmp_path, files):
    stage = selection_stage(keep_best="eval_loss", args={"learning_rate": 1e-4, "save_total_limit": 5})
    recipe = build_recipe(files[0], tmp_path / "run", [stage])
    found = stage_arguments(recipe, recipe.stages[0], SPEC, tmp_path / "selection", has_validation=True)
    assert found.learning_rate == 1e-4 and found.num_train_epochs == 2 and found.save_total_limit == 5
    assert (found.seed, found.data_seed) == (3, 3) and found.output_dir == str(tmp_path / "selection/checkpoints")
    assert found.load_best_model_at_end and not found.greater_is_better and found.eval_strategy.value == "epoch"
    assert found.label_names == ["robot_labels", "robot_mask"] and not found.remove_unused_columns
    plain = build_recipe(files[0], tmp_path / "run", [selection_stage(keep_best="eval_macro_f1")])
    assert stage_arguments(plain, plain.stages[0], SPEC, tmp_path, has_validation=True).greater_is_better


def test_the_sets_of_a_recipe_are_checked_against_each_other(tmp_path, files):
    train, leaky = [source(files[0], name="a")], {"held": source(files[1])}
    _, recipe = load(tmp_path, train, eval=leaky)
    trained, scored = recipe_sets(recipe)
    assert [one.path for one in (*trained, *scored)] == ["tiny: a", "tiny: eval held"]
    sets = [checked_sets(one, 1000, whole=True)[0] for one in (*trained, *scored)]
    found = {one.check: one for one in check_sets(sets[:1], sets[1:])}
    # sixteen tasks are in both files
    assert (found["groups"].status, found["groups"].count) == ("fail", 16)
    assert found["equal questions about the same"].status == "fail"


def test_rows_of_an_earlier_stage_come_again_by_their_share_and_for_their_terms(tmp_path, files):
    """One table for both stages; what is held out stays held out."""
    again = source(files[0], name="again", weight=1.0, losses=["caption", "itc"])
    mixture = {"kind": "fixed", "rows": 40}
    later = {**selection_stage(), "losses": {"selection": 1.0, "caption": 0.3, "itc": 0.1}, "name": "later"}
    later["data"] = {"train": [source(files[1], name="b", weight=3.0), again], "mixture": mixture}
    data, recipe = load(tmp_path, [source(files[0], name="a")], stages=[selection_stage(), later])
    first, second = (data.stage_rows(stage) for stage in recipe.stages)
    assert LEARNED_TERMS not in first.train.column_names
    assert second.train[LEARNED_TERMS][:] == [None] * 30 + ["caption itc"] * 10
    assert groups(second.train.select(range(30, 40))) <= groups(first.train)
    assert not groups(second.train) & groups(second.validation)
    assert set(second.validation[LEARNED_TERMS]) == {None, "caption itc"}

"""Sets scored before the first stage and after each one."""

import json
import shutil

import pytest

from hfvla.errors import RecipeError
from hfvla.evaluation.run_record import read_run
from hfvla.recipe import load_recipe
from hfvla.training.checkpoint.handover import load_state
from hfvla.training.run.run import run_recipe

from ..recipes import build_recipe, selection_stage, tasks, write_tasks


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Return a function that runs two short stages with or without scores of stages: folder, recipe and record."""
    folder = tmp_path_factory.mktemp("stage_scores")
    file = write_tasks(folder / "tasks.json", tasks())
    sets = {name: {"source": "robot_selection", "path": file} for name in ("seen", "other")}
    args = {"num_train_epochs": 1}
    stages = [selection_stage(args=args), selection_stage(name="again", args=args, train=["selection_head"])]

    def build(name, scored):
        evaluation = {"bootstrap_samples": 0, "max_generate": 0, "ablations": False, "stages": scored}
        recipe = build_recipe(
            file,
            folder / name,
            stages,
            data={"train": [sets["seen"]], "validation": {"fraction": 0}, "eval": sets},
            evaluation=evaluation,
        )
        return folder / name, recipe, run_recipe(recipe)

    return build


@pytest.fixture(scope="module")
def scored(run):
    return run("scored", ["seen"])


def test_each_stage_has_its_scores(scored):
    folder, _, record = scored
    found = record["stage_scores"]
    assert list(found) == ["seen"] and list(found["seen"]) == ["start", "selection", "again"]
    assert found["seen"]["again"]["jaccard"] == pytest.approx(record["evaluation"]["seen"]["metrics"]["jaccard"])
    assert found["seen"]["start"] != found["seen"]["selection"]
    table = next(f for f in read_run(folder).figures if f.name == "stage_scores_seen")
    assert table.data["columns"] == ["score", "start", "selection", "again"]
    assert "jaccard" in [row[0] for row in table.data["rows"]]


def test_scoring_changes_nothing_that_is_trained(scored, run):
    plain, _, record = run("plain", [])
    assert "stage_scores" not in record and not (plain / "stage_scores").exists()
    one, other = load_state(scored[0] / "final"), load_state(plain / "final")
    assert one.keys() == other.keys() and all(one[name].equal(other[name]) for name in one)


def test_what_is_scored_is_not_scored_again(scored):
    folder, recipe, _ = scored
    kept = folder / "stage_scores" / "selection.json"
    told = json.loads(kept.read_text())
    told["seen"]["metrics"]["jaccard"] = -1.0
    kept.write_text(json.dumps(told))
    lost = folder / "stage_scores" / "again.json"
    before = json.loads(lost.read_text())
    lost.unlink()
    shutil.rmtree(folder / "final")  # a finished run tells its result again, and scores nothing
    found = run_recipe(recipe)["stage_scores"]["seen"]
    assert found["selection"]["jaccard"] == -1.0
    assert found["again"] == before["seen"]["metrics"]


def test_an_unknown_set_is_refused(tmp_path):
    file = tmp_path / "recipe.yaml"
    file.write_text(
        "family: ember_vlm\n"
        "data: {train: [{source: fleet, size: 8}], eval: {held_out: {source: fleet, size: 8}}}\n"
        "evaluation: {stages: [held_oot]}\n"
        "stages: [{name: one, train: [selection_head], losses: {selection: 1.0}, args: {max_steps: 1}}]\n"
    )
    with pytest.raises(RecipeError, match=r"evaluation.stages.0.*no set 'held_oot' in data.eval.*'held_out'"):
        load_recipe(file)

"""`train --overwrite` deletes what a run wrote, and nothing else; a run folder is known by its mark."""

import json
import logging

import pytest

from hfvla.errors import RecipeError
from hfvla.outputs import MARK, claim_folder, purpose_of
from hfvla.recipe import Recipe, save_resolved
from hfvla.training.run.run_folder import lock_run_folder, open_run_folder

RECORD = {"recipe": {}, "stages": [], "seed": 0}


@pytest.fixture
def recipe():
    stage = {"name": "only", "train": ["selection_head"], "losses": {"selection": 1.0}}
    data = {"train": [{"source": "fleet", "size": 8}]}
    return Recipe.model_validate({"family": "ember_vlm", "name": "demo", "seed": 1, "output_dir": "out", "data": data,
                                  "stages": [stage]})  # fmt: skip


def start(folder, recipe, overwrite=True):
    lock = lock_run_folder(folder)
    try:
        open_run_folder(folder, recipe, overwrite=overwrite)
    finally:
        lock.release()


def names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture
def run(tmp_path, recipe):
    """A run as it ends, with files of the user's beside it."""
    folder = tmp_path / "run"
    start(folder, recipe)
    for name in ("run.json", "metrics.json", "report.html", "predictions_a.jsonl", "plots/x.png", "logs/only/log",
                 "cache/1/meta.json", "final/recipe.json", "only/stage.json", "only/mine.txt", "film.mp4",
                 ".tmp-final/x", "left_out/stage.json"):  # fmt: skip
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("{}")
    (folder / MARK).write_text(json.dumps({"made_by": "hfvla", "purpose": "run", "files": ["film.mp4"]}))
    for name in ("notes.txt", "thesis/chapter.tex", "scores/metrics.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("mine")
    return folder


def test_overwrite_deletes_the_run_and_names_it_first(run, recipe, caplog):
    with caplog.at_level(logging.WARNING, "hfvla"):
        start(run, recipe)
    assert names(run) == {MARK, "recipe.json", "notes.txt", "thesis/chapter.tex", "scores/metrics.json"}
    deleted, kept = (message for message in caplog.messages if "run" in message)
    assert "film.mp4" in deleted and "notes.txt" not in deleted
    assert "notes.txt" in kept and "thesis" in kept


def test_without_overwrite_nothing_is_deleted(run, recipe):
    before = names(run)
    start(run, recipe, overwrite=False)
    assert names(run) == before - {".tmp-final/x"}


def test_a_strange_folder_with_the_name_of_a_stage_is_not_deleted(tmp_path, recipe):
    start(tmp_path, recipe)
    (tmp_path / "recipe.json").unlink()
    (tmp_path / "only").mkdir()
    (tmp_path / "only" / "chapter.tex").write_text("mine")
    with pytest.raises(RecipeError, match="something else with the name of a stage; got 'only'"):
        start(tmp_path, recipe)
    assert (tmp_path / "only" / "chapter.tex").read_text() == "mine"


@pytest.mark.parametrize("content", ['{"title": "bread", "steps": ["knead"]}', "[]", "{", "null"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_called_recipe_json_makes_no_run(tmp_path, recipe, content, overwrite):
    (tmp_path / "recipe.json").write_text(content)
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(RecipeError, match=r"not a run of hfvla; got 'recipe.json, thesis.tex'"):
        start(tmp_path, recipe, overwrite)
    assert names(tmp_path) == {"recipe.json", "thesis.tex"}


@pytest.mark.parametrize("beside", ["thesis.tex", "plots/mine.png", "stage.json", "model.safetensors"])
def test_a_copied_recipe_of_ours_makes_no_run(tmp_path, recipe, beside):
    """Stage folders and final/ hold a recipe.json too."""
    save_resolved(recipe, tmp_path / "recipe.json")
    (tmp_path / beside).parent.mkdir(exist_ok=True)
    (tmp_path / beside).write_text("mine")
    (tmp_path / "x").touch()
    with pytest.raises(RecipeError, match="not a run of hfvla"):
        start(tmp_path, recipe)
    assert (tmp_path / beside).read_text() == "mine"


@pytest.mark.parametrize(
    "files", [(), ("run.json", "thesis.tex"), ("only/stage.json", "thesis.tex"), ("metrics.json", "only/x")]
)
def test_runs_from_before_the_mark_are_known(tmp_path, recipe, files):
    save_resolved(recipe, tmp_path / "recipe.json")
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(RECORD))
    start(tmp_path, recipe)
    assert purpose_of(tmp_path) == "run"
    assert names(tmp_path) == {MARK, "recipe.json", *(name for name in files if name == "thesis.tex")}


@pytest.mark.parametrize("overwrite", [False, True])
def test_a_cache_that_was_built_ahead_stays(tmp_path, recipe, overwrite):
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / "features").write_text("hours")
    start(tmp_path, recipe, overwrite)
    assert (tmp_path / "cache" / "features").exists()


def test_a_folder_of_another_purpose_is_no_run(tmp_path, recipe):
    claim_folder(tmp_path, "index")
    with pytest.raises(RecipeError, match="holds an index of pictures, and a run needs a folder of its own"):
        start(tmp_path, recipe)


def test_a_run_ends_well_without_its_report(tmp_path, recipe, monkeypatch):
    from types import SimpleNamespace

    from hfvla.evaluation import output
    from hfvla.family import EvaluationResult
    from hfvla.training.run.run import RecipeRun

    def fail(*_, **__):
        raise ValueError("a plot")

    run = RecipeRun.__new__(RecipeRun)
    run.recipe, run.output_dir, run.spec = recipe, tmp_path, SimpleNamespace(name="made", summary="up")
    run.plan = SimpleNamespace(stages=recipe.stages)
    run.record, run.state = {"stages": []}, SimpleNamespace(is_main_process=True)
    run._began = run._seconds_before = 0.0
    with monkeypatch.context() as patch:
        patch.setattr(output, "write_report", fail)
        run._write_results({"held_out": EvaluationResult({"n": 1, "accuracy": 0.5})})
    assert run.record["no_report"] == "ValueError: a plot" and run.record["metrics"]["accuracy"] == 0.5
    assert json.loads((tmp_path / "metrics.json").read_text())["accuracy"] == 0.5
    run._write_results({"held_out": EvaluationResult({"n": 1, "accuracy": 0.5})})
    assert "no_report" not in run.record and (tmp_path / "report.html").is_file()

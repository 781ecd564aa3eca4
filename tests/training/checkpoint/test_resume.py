"""Whole runs that are stopped and started again: boundaries, scores, changed recipes, full disks, two processes."""

import errno
import json
import os
import shutil
import subprocess
import sys

import pytest
import torch

from hfvla.errors import CheckpointError, RecipeError
from hfvla.recipe import Recipe, load_resolved
from hfvla.training.checkpoint.handover import load_state
from hfvla.training.run import run as run_module
from hfvla.training.run import stage_run as stage_module
from hfvla.training.run.run import run_recipe
from hfvla.training.trainer.trainer import StagedTrainer

from ..recipes import build_recipe, reasoning_stage, selection_stage, tasks, write_tasks
from ..resuming import PowerCut

DROPOUT = {"word_dropout": 0.3, "selection_dropout": 0.3}  # the second shows a random state that was not brought back
SHORT = {"num_train_epochs": 2, "per_device_train_batch_size": 16}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    unseen = [(task.replace("Film", "Guard"), robot) for task, robot in tasks()[36:]]
    return write_tasks(folder / "tasks.json", tasks()), write_tasks(folder / "unseen.json", unseen)


def make(files, output, **changes) -> Recipe:
    """Two stages of a few steps with validation, a best checkpoint and an evaluation set."""
    train, unseen = files
    section = {
        "train": [{"source": "robot_selection", "path": train}],
        "validation": {"fraction": 0.25},
        "eval": {"unseen": {"source": "robot_selection", "path": unseen}},
    }
    stages = [selection_stage(keep_best="eval_loss", args=SHORT), reasoning_stage(args=SHORT)]
    evaluation = {"bootstrap_samples": 10, "max_generate": 0, "ablations": False}
    recipe = build_recipe(train, output, stages, data=section, evaluation=evaluation)
    model = {**recipe.model.model_dump(), "config": {**recipe.model.config, **DROPOUT}}
    tree = json.loads(recipe.model_dump_json(by_alias=True))
    return Recipe.model_validate({**tree, "model": model, **changes})


@pytest.fixture(scope="module")
def whole(files, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    run_recipe(make(files, folder))
    return folder


def read(path):
    return json.loads(path.read_text())


def timeless(value):
    if isinstance(value, dict):
        skipped = (
            "runtime",
            "per_second",
            "data_s",
            "data_share",
            "seconds",
            "energy",
            "memory_gb",
            "energy_kwh",
            "co2_kg",
            "seal",
        )  # a seal is of files that hold times
        return {key: timeless(part) for key, part in value.items() if not key.endswith(skipped)}
    return [timeless(part) for part in value] if isinstance(value, list) else value


def assert_same_runs(first, second):
    for stage in ("selection", "reasoning", "final"):
        one, two = load_state(first / stage), load_state(second / stage)
        assert set(one) == set(two)
        assert [name for name in one if not torch.equal(one[name], two[name])] == [], stage
    for name in ("metrics.json", "selection/log_history.json", "reasoning/log_history.json", "selection/stage.json"):
        assert timeless(read(first / name)) == timeless(read(second / name)), name
    assert (first / "predictions.jsonl").read_text() == (second / "predictions.jsonl").read_text()
    left = [path for path in second.rglob("*") if ".tmp" in path.name or path.name == "checkpoints"]
    assert left == []


# ---- stopped at a boundary ---------------------------------------------------------------------------------------

PLACES = {
    "taking over": (stage_module.StageRun, "_take_over"),
    "the stage's weights": (stage_module, "save_and_audit"),
    "the stage's mark": (stage_module, "sync_folder"),
    "the final checkpoint": (run_module, "audit_reload"),
    "the final name": (run_module, "replace_folder"),
    "the scores": (run_module, "evaluate_together"),
    "the report": (run_module, "write_evaluation"),
    "validation": (StagedTrainer, "evaluate"),
}


def places(*fast: str, of=PLACES) -> list:
    """Return every place as a parameter; those not named are for the slow suite."""
    return [place if place in fast else pytest.param(place, marks=pytest.mark.slow) for place in of]


@pytest.mark.parametrize("place", places("the stage's weights", "the scores"))
def test_stopped_at_a_boundary(files, whole, tmp_path, place):
    """Stopped right after it, the last time it happens; what was left there is gone on with or done again."""
    owner, name = PLACES[place]
    original, calls = getattr(owner, name), []
    last = {"taking over": 2, "the stage's weights": 2, "the stage's mark": 2, "validation": 4}.get(place, 1)

    def part(*args, **kwargs):
        result = original(*args, **kwargs)
        calls.append(name)
        if len(calls) == last:
            raise PowerCut
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, part)
        with pytest.raises(PowerCut):
            run_recipe(make(files, tmp_path / "run"))
    torch.rand(7)  # a new process is in another random state than one that has trained until here
    run_recipe(make(files, tmp_path / "run"))
    assert_same_runs(whole, tmp_path / "run")


def test_leftovers_of_an_interrupted_start(files, whole, tmp_path):
    """The very first file was being written; later, a record and the final checkpoint."""
    run = tmp_path / "run"
    run.mkdir()
    (run / ".recipe.json.77.tmp").write_text('{"fam')
    run_recipe(make(files, run), stop_after="selection")
    (run / ".run.json.78.tmp").write_text("{")
    (run / "selection/.stage.json.78.tmp").write_text("{")
    (run / ".tmp-final").mkdir()
    (run / "selection/checkpoints/checkpoint-3").mkdir(parents=True)
    run_recipe(make(files, run))
    assert_same_runs(whole, run)


def test_an_overwrite_that_was_cut_short_can_be_gone_on_with(files, tmp_path, monkeypatch):
    run = tmp_path / "run"
    (run / "selection").mkdir(parents=True)
    shutil.copytree(run / "selection", run / "zz")
    recipe = make(files, run)
    (run / "recipe.json").write_text(recipe.model_dump_json(by_alias=True))
    original = shutil.rmtree

    def cut(path, *args, **kwargs):
        original(path, *args, **kwargs)
        raise PowerCut

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", cut)
        with pytest.raises(PowerCut):
            run_recipe(recipe, overwrite=True)
    assert (run / "recipe.json").is_file()
    run_recipe(make(files, run), overwrite=True, stop_after="selection")


# ---- a changed recipe --------------------------------------------------------------------------------------------


@pytest.fixture
def stopped(files, tmp_path, monkeypatch):
    """A run whose first stage is finished, and whose second stopped after its first checkpoint."""
    original = StagedTrainer.training_step

    def training_step(trainer, *args, **kwargs):
        if trainer.stage.name == "reasoning" and trainer.state.global_step == 4:
            raise PowerCut
        return original(trainer, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(StagedTrainer, "training_step", training_step)
        with pytest.raises(PowerCut):
            run_recipe(make(files, tmp_path / "run"))
    return tmp_path / "run"


def changed(files, folder, stage, **args):
    recipe = make(files, folder)
    tree = json.loads(recipe.model_dump_json(by_alias=True))
    next(part for part in tree["stages"] if part["name"] == stage)["args"].update(args)
    return Recipe.model_validate(tree)


def test_a_changed_recipe_is_refused_and_can_be_allowed(files, stopped):
    recipe = changed(files, stopped, "reasoning", learning_rate=2e-4, num_train_epochs=3)
    match = r"learning_rate: \(not set\) -> 0.0002.*--allow-recipe-change"
    with pytest.raises(RecipeError, match=match):
        run_recipe(recipe)
    before = (stopped / "selection/model.safetensors").read_bytes()
    record = run_recipe(recipe, allow_recipe_change=True)
    assert (stopped / "selection/model.safetensors").read_bytes() == before
    lines = [line for line in read(stopped / "reasoning/log_history.json") if "learning_rate" in line]
    rates = {line["step"]: line["learning_rate"] for line in lines}
    assert record["stages"][1]["steps"] == 9  # three epochs of three steps
    assert rates[3] == pytest.approx(5e-3 * (6 - 2) / 6) and rates[4] == pytest.approx(2e-4 * (9 - 3) / 9)
    (change,) = read(stopped / "recipe_changes.json")
    assert any("learning_rate" in line for line in change["changes"])
    assert record["recipe_changes"] == [change] and load_resolved(stopped / "recipe.json") == recipe


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (lambda tree: tree.update(seed=4), r"family, seed and model.*got 'seed: 3 -> 4'"),
        (lambda tree: tree["stages"].reverse(), "cannot be renamed, reordered or left out; got 'stages reasoning'"),
        (lambda tree: tree["model"]["options"].update(tokenizer_vocab_size=500), "model.options.tokenizer_vocab_size"),
    ],
)
def test_changes_that_are_never_allowed(files, stopped, edit, match):
    tree = json.loads(make(files, stopped).model_dump_json(by_alias=True))
    edit(tree)
    with pytest.raises(RecipeError, match=match):
        run_recipe(Recipe.model_validate(tree), allow_recipe_change=True)


def test_another_batch_in_the_middle_of_a_stage_is_refused(files, stopped):
    recipe = changed(files, stopped, "reasoning", per_device_train_batch_size=8)
    with pytest.raises(CheckpointError, match=r"expected per_device_train_batch_size 16.*begin this stage anew"):
        run_recipe(recipe, allow_recipe_change=True)


# ---- a full disk -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place", places("the final checkpoint", of=["the stage's weights", "the final checkpoint", "the report"])
)
def test_a_full_disk_is_one_clear_error(files, whole, tmp_path, place):
    owner, name = PLACES[place]

    def full(*args, **kwargs):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, full)
        with pytest.raises(CheckpointError, match=r"cannot be saved: No space left on device .*Make room"):
            run_recipe(make(files, tmp_path / "run"))
    run_recipe(make(files, tmp_path / "run"))
    assert_same_runs(whole, tmp_path / "run")


# ---- processes ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.distributed
@pytest.mark.parametrize("workers", [0, 2])
def test_two_processes_end_bit_equal(tmp_path, repository, workers):
    """Stopped in the middle of the third epoch, and before the first save; every rank has the same weights and log."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, str(repository / "tests/training/resuming.py"), str(tmp_path), "2", str(workers)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=tmp_path)
    assert done.returncode == 0, done.stderr[-4000:]
    results = [read(tmp_path / f"results-{rank}.json") for rank in range(2)]
    equal = {"weights": True, "history": True}
    expected = {
        "world": 2,
        "third epoch": {"from": "checkpoint-12", **equal},
        "before a save": {"from": None, **equal},
    }
    assert results == [expected, expected]


@pytest.mark.slow
def test_sigkill_at_random_moments(tmp_path, repository):
    """The benchmark, with two kills."""
    command = [sys.executable, str(repository / "benchmarks/kill_resume.py"), "--runs", "2"]
    command += ["--output", str(tmp_path / "result.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=400)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-3000:]
    (result,) = read(tmp_path / "result.json").values()
    assert result["equal"] == result["runs"] == 2 and "2 equal of 2" in done.stdout

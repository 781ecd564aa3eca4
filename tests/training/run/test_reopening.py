"""Checkpoints that stay, a finished stage that trains on, and going on from an earlier checkpoint."""

import json
import shutil

import pytest
import torch
from typer.testing import CliRunner

from hfvla.cli import app
from hfvla.errors import CheckpointError, RecipeError
from hfvla.evaluation.run import evaluate_checkpoint
from hfvla.recipe import Recipe
from hfvla.training.checkpoint.handover import load_state
from hfvla.training.run.run import run_recipe
from hfvla.training.trainer.trainer import StagedTrainer

from ..recipes import build_recipe, reasoning_stage, selection_stage, tasks, write_tasks
from ..resuming import PowerCut

ARGS = {"num_train_epochs": 2, "per_device_train_batch_size": 16, "lr_scheduler_type": "constant"}


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    return write_tasks(tmp_path_factory.mktemp("data") / "tasks.json", tasks())


def make(file, output, epochs=2, second=1, keep="all", **first) -> Recipe:
    args = {**ARGS, "num_train_epochs": epochs, **first.pop("args", {})}
    stages = [
        selection_stage(args=args, keep_checkpoints=keep, **first),
        reasoning_stage(args={**ARGS, "num_train_epochs": second}),
    ]
    evaluation = {"bootstrap_samples": 0, "max_generate": 0, "ablations": False}
    return build_recipe(file, output, stages, evaluation=evaluation)


@pytest.fixture(scope="module")
def four(file, tmp_path_factory):
    """Four epochs of the first stage, one of the second."""
    folder = tmp_path_factory.mktemp("runs") / "four"
    run_recipe(make(file, folder, epochs=4))
    return folder


@pytest.fixture(scope="module")
def two(file, tmp_path_factory):
    """Two epochs of the first stage, one of the second, all checkpoints kept."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    run_recipe(make(file, folder))
    return folder


@pytest.fixture
def copied(two, tmp_path):
    return shutil.copytree(two, tmp_path / "run")


def names(folder):
    return sorted(path.name for path in (folder / "selection/checkpoints").iterdir())


def assert_equal(first, second, *stages):
    for stage in stages or ("selection", "reasoning", "final"):
        one, two = load_state(first / stage), load_state(second / stage)
        assert set(one) == set(two)
        assert [name for name in one if not torch.equal(one[name], two[name])] == [], stage


@pytest.mark.slow
def test_checkpoints_stay_and_can_be_scored(file, two, tmp_path):
    assert names(two) == ["checkpoint-3", "checkpoint-6"]
    assert not (two / "reasoning/checkpoints").exists()
    run_recipe(make(file, two))  # a finished run leaves them
    assert names(two) == ["checkpoint-3", "checkpoint-6"]
    sets = {"robot_selection": {"path": file}}
    scores = {}
    for name in ("checkpoints/checkpoint-6", "."):
        output = tmp_path / name.replace("/", "-").replace(".", "end")
        (result,) = evaluate_checkpoint(two / "selection" / name, sets, output, bootstrap_samples=0).values()
        scores[name] = result.metrics
    assert scores["checkpoints/checkpoint-6"] == scores["."]
    early, late = (load_state(two / f"selection/checkpoints/checkpoint-{step}") for step in (3, 6))
    assert not all(torch.equal(early[name], late[name]) for name in late)


@pytest.mark.slow
def test_the_last_and_the_best_stay(file, tmp_path, monkeypatch):
    losses = iter([1.0, 3.0, 2.0])
    original = StagedTrainer.evaluate

    def evaluate(trainer, *args, **kwargs):
        found = original(trainer, *args, **kwargs)
        return {**found, "eval_loss": next(losses)}

    monkeypatch.setattr(StagedTrainer, "evaluate", evaluate)
    recipe = make(file, tmp_path / "run", epochs=3, keep="last", keep_best="eval_loss")
    run_recipe(recipe, stop_after="selection")
    assert names(tmp_path / "run") == ["checkpoint-3", "checkpoint-9"]


def test_an_extended_stage_is_the_longer_one(file, four, copied):
    old = (copied / "reasoning/stage.json").read_text()
    record = run_recipe(make(file, copied, epochs=4), extend="selection")
    assert record["stages"][0]["steps"] == 12 and record["stages"][0]["epochs"] == 4
    assert_equal(four, copied)
    assert (copied / "reasoning/stage.json").read_text() != old
    assert names(copied) == [f"checkpoint-{step}" for step in (12, 3, 6, 9)]
    assert any("num_train_epochs: 2 -> 4" in line for line in record["recipe_changes"][0]["changes"])
    before = (copied / "final/model.safetensors").stat().st_mtime_ns
    run_recipe(make(file, copied, epochs=4), extend="selection")  # the same command again: done already
    assert (copied / "final/model.safetensors").stat().st_mtime_ns == before


@pytest.mark.slow
@pytest.mark.parametrize("step", [7, 10])
def test_extending_can_be_cut_short(file, four, copied, monkeypatch, step):
    """Before its first checkpoint, and after it: the same command again goes on."""
    original = StagedTrainer.training_step

    def training_step(trainer, *args, **kwargs):
        if trainer.state.global_step == step:
            raise PowerCut
        return original(trainer, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(StagedTrainer, "training_step", training_step)
        with pytest.raises(PowerCut):
            run_recipe(make(file, copied, epochs=4), extend="selection")
    run_recipe(make(file, copied, epochs=4), extend="selection", stop_after="selection")
    assert_equal(four, copied, "selection")


@pytest.mark.slow
def test_a_stage_that_ended_early_goes_on(file, tmp_path, monkeypatch):
    monkeypatch.setattr(StagedTrainer, "_determine_best_metric", lambda trainer, *args, **kwargs: False)
    folder, early = (
        tmp_path / "run",
        {"keep_best": "eval_loss", "patience": 1, "args": {"load_best_model_at_end": False}},
    )
    original = StagedTrainer.evaluate
    worse = iter(range(1, 100))
    monkeypatch.setattr(
        StagedTrainer, "evaluate",
        lambda trainer, *a, **k: _counted(trainer, original(trainer, *a, **k), next(worse)),
    )  # fmt: skip
    first = run_recipe(make(file, folder, epochs=5, **early), stop_after="selection")["stages"][0]
    again = run_recipe(make(file, folder, epochs=6, **early), extend="selection", stop_after="selection")["stages"][0]
    assert (first["epochs"], again["epochs"]) == (1, 2)


def _counted(trainer, found, value):
    """Let the callbacks see a loss that only grows."""
    metrics = {**found, "eval_loss": float(value)}
    trainer.state.best_metric = 0.0
    trainer.callback_handler.on_evaluate(trainer.args, trainer.state, trainer.control, metrics)
    return metrics


def test_going_on_from_an_earlier_checkpoint(file, two, copied, caplog):
    run_recipe(make(file, copied), resume_from="selection/checkpoint-3")
    assert "trained anew: checkpoint-6" in caplog.text and "stages reasoning" in caplog.text
    assert_equal(two, copied)
    assert names(copied) == ["checkpoint-3", "checkpoint-6"]


@pytest.mark.slow
def test_an_unfinished_stage_goes_on_from_an_earlier_checkpoint(file, two, tmp_path, monkeypatch):
    original, taken = StagedTrainer.training_step, []

    def training_step(trainer, *args, **kwargs):
        if trainer.state.global_step == 4 and "stop" not in taken:
            taken.append("stop")
            raise PowerCut
        taken.append(trainer.state.global_step)
        return original(trainer, *args, **kwargs)

    monkeypatch.setattr(StagedTrainer, "training_step", training_step)
    steps = {"args": {"save_strategy": "steps", "save_steps": 2}}
    with pytest.raises(PowerCut):
        run_recipe(make(file, tmp_path / "run", **steps))
    assert names(tmp_path / "run") == ["checkpoint-2", "checkpoint-4"]
    run_recipe(make(file, tmp_path / "run", **steps), resume_from="checkpoint-2", stop_after="selection")
    assert taken == [0, 1, 2, 3, "stop", 2, 3, 4, 5]
    assert_equal(two, tmp_path / "run", "selection")


@pytest.mark.parametrize(
    ("options", "epochs", "match"),
    [
        ({"extend": "selektion"}, 4, "no stage 'selektion'. Did you mean 'selection'"),
        ({"extend": "selection"}, 2, r"no longer than before.*stages.selection.args.num_train_epochs=10"),
        ({"extend": "selection", "resume_from": "checkpoint-3"}, 4, "two ways back"),
        ({"extend": "selection", "overwrite": True}, 4, "--overwrite deletes the run"),
        ({"resume_from": "latest"}, 2, r"not a checkpoint's name; got 'latest'"),
        ({"resume_from": "selection/checkpoint-4"}, 2, r"expected one of checkpoint-3, checkpoint-6"),
        ({"resume_from": "checkpoint-3"}, 2, "reasoning/checkpoints.*keep_checkpoints: last"),
    ],
)
def test_ways_back_that_are_refused_touch_nothing(file, two, options, epochs, match):
    before = _times(two)
    with pytest.raises((CheckpointError, RecipeError), match=match):
        run_recipe(make(file, two, epochs=epochs), **options)
    assert _times(two) == before


def _times(folder):
    files = [path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", ".hfvla.json")]
    return sorted((path, path.stat().st_mtime_ns) for path in files)


def test_without_kept_checkpoints_nothing_is_extended(file, copied):
    shutil.rmtree(copied / "selection/checkpoints")
    with pytest.raises(CheckpointError, match="optimizer state is gone.*keep_checkpoints: last.*model.pretrained"):
        run_recipe(make(file, copied, epochs=4), extend="selection")
    assert (copied / "selection/stage.json").is_file() and (copied / "reasoning/stage.json").is_file()


def test_other_changes_still_need_a_word(file, copied):
    with pytest.raises(RecipeError, match=r"learning_rate: \(not set\) -> 0.1"):
        run_recipe(make(file, copied, epochs=4, args={"learning_rate": 0.1}), extend="selection")


def test_there_must_be_a_run(file, tmp_path):
    with pytest.raises(CheckpointError, match="no run to go back in"):
        run_recipe(make(file, tmp_path / "run"), extend="selection")


@pytest.mark.slow
def test_the_command(file, copied, tmp_path):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(json.dumps(json.loads(make(file, copied).model_dump_json(by_alias=True))))
    longer = ["stages.selection.args.num_train_epochs=3", "--extend", "selection", "--stop-after", "selection"]
    done = CliRunner().invoke(app, ["train", str(recipe), *longer])
    assert done.exit_code == 0, done.output
    assert json.loads((copied / "selection/stage.json").read_text())["epochs"] == 3
    refused = CliRunner().invoke(app, ["train", str(recipe), "--dry-run", "--extend", "selection"])
    assert refused.exit_code == 2 and "leaves nothing on disk; got '--extend'" in refused.output

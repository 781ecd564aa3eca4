"""Checkpoints: whole or not at all, never a torn one, and a resumed toy stage ends bit-equal."""

import errno
import json
import os
import resource
import shutil

import pytest
import torch
from transformers import EarlyStoppingCallback, Trainer

from hfvla.data.rows.epoch import EpochRows
from hfvla.errors import CheckpointError, RecipeError
from hfvla.sealing import sealed
from hfvla.training.checkpoint import checkpoints
from hfvla.training.checkpoint.files import MANIFEST, clean_checkpoints, last_checkpoint, read_manifest, rotate
from hfvla.training.trainer.trainer import StagedTrainer

from .. import toy
from ..resuming import PowerCut, build, history, same, stop_at, weights

LAST = {"load_best_model_at_end": False}  # the weights of the last step are compared, not those of the best


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of three epochs that was never stopped."""
    trainer = build(tmp_path_factory.mktemp("whole"), args=LAST)
    trainer.train()
    return trainer


def go_on(folder, **options):
    """Do what a second start does: clean, find the newest checkpoint, train to the end."""
    trainer = build(folder, **{"args": LAST, **options})
    trainer.train(resume_from_checkpoint=trainer.find_checkpoint(clean=True))
    return trainer


def assert_equal(first, second):
    assert same(weights(first), weights(second))
    assert history(first) == history(second)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- going on ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("step", "newest"), [(2, None), (7, "checkpoint-5"), (13, "checkpoint-10")])
def test_stopped_at_a_step(whole, tmp_path, monkeypatch, step, newest):
    stop_at(monkeypatch, step)
    with pytest.raises(PowerCut):
        build(tmp_path, args=LAST).train()
    assert (last_checkpoint(tmp_path).name if newest else last_checkpoint(tmp_path)) == newest
    assert_equal(go_on(tmp_path), whole)


@pytest.mark.parametrize("workers", [0, 2])
def test_stopped_in_the_middle_of_an_epoch_and_of_a_log_line(tmp_path, monkeypatch, workers):
    """Checkpoints at steps 4, 8 and 12, log lines at 5, 10 and 15; it goes on in the third epoch."""
    args = {**LAST, "save_strategy": "steps", "save_steps": 4, "logging_steps": 5, "dataloader_num_workers": workers}
    whole = build(tmp_path / "whole", args=args)
    whole.train()
    stop_at(monkeypatch, 13)
    with pytest.raises(PowerCut):
        build(tmp_path / "again", args=args).train()
    again = go_on(tmp_path / "again", args=args)
    assert_equal(again, whole)
    assert history(again)[-1]["train_loss"] == history(whole)[-1]["train_loss"]


@pytest.mark.parametrize("saved", [5, 15])
def test_an_epoch_that_was_saved_before_its_end_is_ended_first(tmp_path, monkeypatch, saved):
    """Saved with the epoch's last step, killed in the evaluation that follows: it is made up for."""
    args = {**LAST, "save_strategy": "steps", "save_steps": 5, "logging_strategy": "epoch"}
    stage = {"train": ["head"], "phases": [{"epoch": 1, "add": ["body"]}]}  # begins with the sixth step
    whole = build(tmp_path / "whole", args=args, stage=stage)
    whole.train()
    original = StagedTrainer.evaluate

    def evaluate(trainer, *args, **kwargs):
        if trainer.state.global_step == saved:
            raise PowerCut
        return original(trainer, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(StagedTrainer, "evaluate", evaluate)
        with pytest.raises(PowerCut):
            build(tmp_path / "again", args=args, stage=stage).train()
    assert last_checkpoint(tmp_path / "again").name == f"checkpoint-{saved}"
    assert_equal(go_on(tmp_path / "again", args=args, stage=stage), whole)


@pytest.mark.parametrize("step", [7, 8, 9, 14])
def test_stopped_around_phases(tmp_path, monkeypatch, step):
    """Phases begin after step 4 (of a ramped loss too) and step 8; checkpoints at every fourth step."""
    stage = {
        "train": ["head"],
        "losses": {"fit": 1.0, "level": {"start": 0.0, "end": 0.5, "epochs": [0, 2]}},
        "phases": [{"step": 4, "add": ["blocks.last(1)"]}, {"step": 8, "add": ["backbone"], "losses": {"fit": 2.0}}],
    }
    args = {**LAST, "save_strategy": "steps", "save_steps": 4, "logging_steps": 1}
    whole = build(tmp_path / "whole", args=args, stage=stage)
    whole.train()
    stop_at(monkeypatch, step)
    with pytest.raises(PowerCut):
        build(tmp_path / "again", args=args, stage=stage).train()
    assert_equal(go_on(tmp_path / "again", args=args, stage=stage), whole)


def test_rows_are_augmented_by_seed_epoch_and_position(whole):
    rows = EpochRows(toy.build_rows(4), seed=5)
    seeds = []
    for epoch in range(3):
        rows.set_epoch(epoch)
        seeds.append([row["augmentation_seed"] for row in rows.__getitems__([0, 1, 2, 3])])
        assert [rows[index]["augmentation_seed"] for index in range(4)] == seeds[-1]
    assert len({seed for epoch in seeds for seed in epoch}) == 12
    assert EpochRows(toy.build_rows(4), seed=6)[0]["augmentation_seed"] != seeds[0][0]
    assert whole.train_dataset.epoch == 2  # the trainer counted along


def test_the_data_is_in_the_epoch_it_was_stopped_in(tmp_path, monkeypatch):
    stop_at(monkeypatch, 12)
    with pytest.raises(PowerCut):
        build(tmp_path, args=LAST).train()
    again = build(tmp_path, args={**LAST, "max_steps": 15})
    stop_at(monkeypatch, 11)
    with pytest.raises(PowerCut):
        again.train(resume_from_checkpoint=True)
    assert again.train_dataset.epoch == 2


# ---- stopped while saving ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "place",
    [
        (Trainer, "save_model"),
        (Trainer, "_save_optimizer_and_scheduler"),
        (Trainer, "_save_rng_state"),
        (checkpoints, "write_manifest"),
        (checkpoints, "publish"),
    ],
    ids=lambda place: place[1],
)
@pytest.mark.parametrize("moment", ["before", "after"])
def test_stopped_inside_a_save(whole, tmp_path, place, moment):
    """At the second checkpoint, before or after one of its parts is written; nothing is tidied up."""
    owner, name = place
    original, calls = getattr(owner, name), []

    def part(*args, **kwargs):
        calls.append(name)
        if len(calls) == 2 and moment == "before":
            raise PowerCut
        result = original(*args, **kwargs)
        if len(calls) == 2:
            raise PowerCut
        return result

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(owner, name, part)
        patch.setattr(checkpoints.shutil, "rmtree", lambda *args, **kwargs: None)
        with pytest.raises(PowerCut):
            build(tmp_path, args=LAST).train()
    published = name == "publish" and moment == "after"
    left = [] if (name, moment) == ("save_model", "before") else [".tmp-checkpoint-10"]
    assert names(tmp_path) == [*left, *(["checkpoint-10"] if published else []), "checkpoint-5"]
    assert last_checkpoint(tmp_path).name == ("checkpoint-10" if published else "checkpoint-5")
    again = go_on(tmp_path)
    assert ".tmp-checkpoint-10" not in names(tmp_path)
    assert_equal(again, whole)


def test_a_checkpoint_has_no_name_until_it_is_whole(tmp_path, monkeypatch):
    seen, original = [], Trainer._save_rng_state

    def save(trainer, folder):
        seen.append(names(tmp_path))
        original(trainer, folder)

    monkeypatch.setattr(Trainer, "_save_rng_state", save)
    build(tmp_path, args=LAST).train()
    assert seen[1] == [".tmp-checkpoint-10", "checkpoint-5"]
    assert names(tmp_path) == ["checkpoint-10", "checkpoint-15"]


@pytest.mark.parametrize("harm", ["cut short", "missing", "no manifest", "torn manifest"])
def test_a_torn_checkpoint_is_never_picked_up(whole, tmp_path, monkeypatch, harm):
    stop_at(monkeypatch, 12)
    with pytest.raises(PowerCut):
        build(tmp_path, args=LAST).train()
    newest = tmp_path / "checkpoint-10"
    if harm == "cut short":
        os.truncate(newest / "optimizer.pt", 100)
    elif harm == "missing":
        (newest / "model.safetensors").unlink()
    elif harm == "no manifest":
        (newest / MANIFEST).unlink()
    else:
        os.truncate(newest / MANIFEST, 40)
    assert read_manifest(newest) is None and last_checkpoint(tmp_path).name == "checkpoint-5"
    with pytest.raises(CheckpointError, match=r"checkpoint-10: not a complete checkpoint.*complete.json"):
        build(tmp_path, args=LAST).train(resume_from_checkpoint=str(newest))
    assert_equal(go_on(tmp_path), whole)


def test_nothing_to_go_on_from_leaves_nothing_behind(tmp_path):
    (tmp_path / "checkpoint-3").mkdir()
    (tmp_path / ".tmp-checkpoint-6/checkpoint-6").mkdir(parents=True)
    (tmp_path / "notes").mkdir()
    assert clean_checkpoints(tmp_path) is None
    assert names(tmp_path) == ["notes"]
    assert clean_checkpoints(tmp_path / "absent") is None


def test_a_checkpoint_without_an_optimizer_is_not_gone_on_from(whole, tmp_path, monkeypatch):
    stop_at(monkeypatch, 7)
    with pytest.raises(PowerCut):
        build(tmp_path, args={**LAST, "save_only_model": True}).train()
    assert read_manifest(tmp_path / "checkpoint-5") is not None and last_checkpoint(tmp_path) is None
    assert same(weights(go_on(tmp_path)), weights(whole))


# ---- a full disk -------------------------------------------------------------------------------------------------


def no_space(*args, **kwargs):
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def limit_file_size(trainer, *args, **kwargs):
    """Let the system refuse files of more than 500 bytes, as a quota does."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        return original_save_model(trainer, *args, **kwargs)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def limit_optimizer_size(trainer, *args, **kwargs):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, before[1]))
    try:
        return original_save_optimizer(trainer, *args, **kwargs)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


original_save_model, original_save_optimizer = Trainer.save_model, Trainer._save_optimizer_and_scheduler


@pytest.mark.parametrize(
    ("name", "fault", "reason"),
    [
        ("_save_scaler", no_space, "No space left on device"),
        ("save_model", limit_file_size, "File too large"),
        ("_save_optimizer_and_scheduler", limit_optimizer_size, "the system refused the file"),
    ],
)
def test_a_full_disk_is_one_clear_error_and_loses_nothing(whole, tmp_path, name, fault, reason):
    original, calls = getattr(Trainer, name), []

    def part(*args, **kwargs):
        calls.append(name)
        return (fault if len(calls) == 2 else original)(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, name, part)
        with pytest.raises(CheckpointError, match=reason) as caught:
            build(tmp_path, args=LAST).train()
    for clause in ("stage 'first': checkpoint of step 10", "MiB free", "Make room", "goes on from checkpoint-5"):
        assert clause in str(caught.value)
    assert names(tmp_path) == ["checkpoint-5"] and read_manifest(tmp_path / "checkpoint-5")
    assert_equal(go_on(tmp_path), whole)


def test_other_errors_in_a_save_stay_what_they_are(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")

    monkeypatch.setattr(Trainer, "_save_scaler", broken)
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        build(tmp_path, args=LAST).train()


# ---- a stage that had ended --------------------------------------------------------------------------------------


def patient(folder, patience=2, **args):
    """Build a stage whose metric only gets worse: it ends `patience` evaluations after the first."""
    settings = {"metric_for_best_model": "eval_loss_level", "greater_is_better": True, "num_train_epochs": 6, **args}
    return build(folder, args=settings, callbacks=[EarlyStoppingCallback(patience)])


def test_patience_survives_a_stop(tmp_path, monkeypatch):
    whole = patient(tmp_path / "whole")
    whole.train()
    assert whole.state.global_step == 15 and whole.state.best_global_step == 5
    stop_at(monkeypatch, 11)
    with pytest.raises(PowerCut):
        patient(tmp_path / "again").train()
    again = patient(tmp_path / "again")
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 15
    assert_equal(again, whole)


def test_a_stage_that_ended_early_stays_ended(tmp_path, monkeypatch):
    whole = patient(tmp_path)
    whole.train()
    steps = []
    monkeypatch.setattr(StagedTrainer, "training_step", lambda *args: steps.append(args))
    again = patient(tmp_path)
    again.train(resume_from_checkpoint=True)
    assert steps == [] and again.state.global_step == 15
    assert_equal(again, whole)


def test_no_step_beyond_the_last(tmp_path):
    """The seventh step is in the middle of an epoch; the Trainer alone would take an eighth."""
    args = {**LAST, "max_steps": 7, "save_strategy": "steps", "save_steps": 7}
    whole = build(tmp_path, args=args)
    whole.train()
    again = go_on(tmp_path, args=args)
    assert again.state.global_step == 7
    assert_equal(again, whole)


# ---- the best checkpoint -----------------------------------------------------------------------------------------


def test_the_best_weights_are_kept_over_a_stop_and_a_move(tmp_path, monkeypatch):
    whole = patient(tmp_path / "whole", patience=9, num_train_epochs=3)
    whole.train()
    stop_at(monkeypatch, 12)
    with pytest.raises(PowerCut):
        patient(tmp_path / "again", patience=9, num_train_epochs=3).train()
    shutil.move(tmp_path / "again", tmp_path / "moved")
    again = patient(tmp_path / "moved", patience=9, num_train_epochs=3)
    again.train(resume_from_checkpoint=True)
    assert again.state.best_model_checkpoint == str(tmp_path / "moved/checkpoint-5")
    state = json.loads((tmp_path / "moved/checkpoint-15/trainer_state.json").read_text())
    assert state["best_model_checkpoint"] == str(tmp_path / "moved/checkpoint-5")
    assert_equal(again, whole)


def test_a_lost_best_checkpoint_is_named(tmp_path, monkeypatch):
    stop_at(monkeypatch, 12)
    with pytest.raises(PowerCut):
        patient(tmp_path, num_train_epochs=3).train()
    shutil.rmtree(tmp_path / "checkpoint-5")
    with pytest.raises(CheckpointError, match="checkpoint-5: the best checkpoint so far is missing"):
        patient(tmp_path, num_train_epochs=3).train(resume_from_checkpoint=True)


def test_rotation_keeps_the_newest_and_the_best(tmp_path):
    for step in (5, 10, 15, 100):
        (tmp_path / f"checkpoint-{step}").mkdir()
    rotate(tmp_path, 0, [])
    assert len(names(tmp_path)) == 4
    rotate(tmp_path, 2, [tmp_path / "checkpoint-100", tmp_path / "checkpoint-5"])
    assert names(tmp_path) == ["checkpoint-100", "checkpoint-5"]
    rotate(tmp_path, 1, [tmp_path / "checkpoint-100", tmp_path / "checkpoint-5"])
    assert names(tmp_path) == ["checkpoint-100", "checkpoint-5"]


# ---- other settings ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stopped")
    with pytest.MonkeyPatch.context() as patch:
        stop_at(patch, 7)
        with pytest.raises(PowerCut):
            build(folder, args=LAST).train()
    return folder


@pytest.mark.parametrize(
    ("options", "match"),
    [
        (
            {"args": {"per_device_train_batch_size": 2}},
            r"got 'per_device_train_batch_size 2'; expected per_device_train_batch_size 4",
        ),
        ({"args": {"gradient_accumulation_steps": 2}}, "accumulation steps; got 'gradient_accumulation_steps 2'"),
        ({"args": {"seed": 6}}, r"seed; got 'seed 6'; expected seed 5"),
        ({"args": {"optim": "sgd"}}, r"got 'optim sgd'"),
        ({"stage": {"train": ["head"]}}, r"groups of `train`.*\['body', 'head'\], as when it was saved"),
    ],
)
def test_other_settings_are_refused(stopped, options, match):
    args = {**LAST, **options.pop("args", {})}
    with pytest.raises(CheckpointError, match=match):
        build(stopped, **{"args": args, **options}).train(resume_from_checkpoint=True)


def test_another_number_of_processes_is_refused(stopped, tmp_path):
    shutil.copytree(stopped, tmp_path / "copy")
    path = tmp_path / "copy/checkpoint-5" / MANIFEST
    manifest = json.loads(path.read_text())
    manifest["settings"]["fixed"]["processes"] = 2
    path.write_text(json.dumps(sealed(manifest)))
    with pytest.raises(CheckpointError, match=r"processes; got 'processes 1'; expected processes 2.*begin this stage"):
        build(tmp_path / "copy", args=LAST).train(resume_from_checkpoint=True)


def test_changed_rates_hold_from_the_checkpoint_on(stopped, tmp_path):
    """The Trainer alone would bring back the old rate and decay with the optimizer's state."""
    shutil.copytree(stopped, tmp_path / "copy")
    args = {**LAST, "learning_rate": 1e-3, "weight_decay": 0.3, "logging_steps": 1}
    again = build(tmp_path / "copy", args=args)
    again.train(resume_from_checkpoint=True)
    rates = {line["step"]: line["learning_rate"] for line in again.state.log_history if "learning_rate" in line}
    assert rates[6] == pytest.approx(1e-3 * (15 - 5) / 15) and rates[15] == pytest.approx(1e-3 * 1 / 15)
    assert {group["weight_decay"] for group in again.optimizer.param_groups} == {0.3, 0.0}


@pytest.mark.parametrize(
    "args",
    [
        {"dataloader_persistent_workers": True, "dataloader_num_workers": 1},
        {"ignore_data_skip": True},
        {"accelerator_config": {"use_seedable_sampler": False}},
    ],
    ids=lambda args: next(iter(args)),
)
def test_arguments_that_make_resuming_inexact_are_refused(tmp_path, args):
    with pytest.raises(RecipeError, match=next(iter(args))):
        build(tmp_path, args=args)


def test_rows_grouped_by_length_come_in_the_epochs_order(tmp_path):
    trainer = build(tmp_path, args={"train_sampling_strategy": "group_by_length"})
    trainer.train_dataset.rows = trainer.train_dataset.rows.add_column("input_ids", [[0] * n for n in range(20)])
    sampler, orders = trainer._get_train_sampler(), []
    for epoch in (0, 1, 0):
        torch.rand(3)  # draws elsewhere do not count
        trainer.set_data_epoch(epoch)
        orders.append(list(sampler))
    assert orders[0] == orders[2] != orders[1] and sorted(orders[0]) == list(range(20))

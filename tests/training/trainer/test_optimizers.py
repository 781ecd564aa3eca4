"""Optimizers of transformers on a stage's groups, and steps that fp16 skips."""

import pytest
import torch
from accelerate import Accelerator
from transformers import Trainer

from hfvla.errors import RecipeError

from ..toy import GROUPS, build_trainer


@pytest.mark.parametrize("optim", ["adamw_torch", "adafactor", "sgd", "rmsprop", "adagrad"])
def test_optimizers_take_the_groups_of_the_stage(tmp_path, optim):
    args = {"optim": optim, "weight_decay": 0.1, "learning_rate": 1e-3}
    trainer = build_trainer(tmp_path, train=["head", "blocks"], learning_rates={"head": 1e-2}, args=args)
    trainer.create_optimizer()
    found = {(group["name"], group["lr"], group["weight_decay"]) for group in trainer.optimizer.param_groups}
    # blocks: weights decay and biases do not; head: its weight; its bias and scale
    assert found == {("head", 1e-2, 0.1), ("head", 1e-2, 0.0), ("blocks", 1e-3, 0.1), ("blocks", 1e-3, 0.0)}
    assert trainer.optimizer_cls_and_kwargs is None


def test_a_class_that_is_given_is_used(tmp_path):
    extra = {"optimizer_cls_and_kwargs": (torch.optim.SGD, {"lr": 0.5, "momentum": 0.25})}
    trainer = build_trainer(tmp_path, extra=extra)
    trainer.create_optimizer()
    assert type(trainer.optimizer) is torch.optim.SGD and trainer.optimizer.param_groups[0]["momentum"] == 0.25


@pytest.mark.parametrize("settings", [{"params": []}, {"model": None}, {"optimizer_dict": {}}])
def test_optimizers_that_choose_their_parameters_are_refused(tmp_path, monkeypatch, settings):
    """What transformers returns for GaLore and APOLLO, LOMO, and their layer-wise kinds."""
    found = staticmethod(lambda args, model=None: (torch.optim.SGD, {"lr": 0.1, **settings}))
    monkeypatch.setattr(Trainer, "get_optimizer_cls_and_kwargs", found)
    trainer = build_trainer(tmp_path, args={"optim": "galore_adamw", "optim_target_modules": ["blocks"]})
    with pytest.raises(RecipeError, match="stage 'first': this optimizer chooses its parameters.*'galore_adamw'"):
        trainer.create_optimizer()


def test_target_modules_are_refused_where_no_optimizer_reads_them(tmp_path):
    trainer = build_trainer(tmp_path, args={"optim_target_modules": ["blocks"]})
    with pytest.raises(RecipeError, match="optim_target_modules"):
        trainer.create_optimizer()


@pytest.mark.parametrize("skipped", [0, 2])
def test_phases_begin_at_their_step_also_where_fp16_skipped_some(tmp_path, monkeypatch, skipped):
    """A scaler that looks for its scale skips steps; transformers' schedule does not count them, phases do."""
    holder = {}
    was_skipped = property(lambda accelerator: holder["trainer"].state.global_step < skipped)
    monkeypatch.setattr(Accelerator, "optimizer_step_was_skipped", was_skipped)
    phases = [{"step": 3, "add": ["blocks"]}]
    args = {"max_steps": 6, "lr_scheduler_type": "linear", "learning_rate": 0.5, "optim": "sgd"}
    trainer = holder["trainer"] = build_trainer(tmp_path, phases=phases, args=args)
    rates = []

    def look(*_):
        group = {group["name"]: group for group in trainer.optimizer.param_groups}
        rates.append((group["head"]["lr"], group["blocks"]["lr"]))

    trainer.optimizer = None
    trainer.create_optimizer()
    trainer.optimizer.register_step_pre_hook(look)
    trainer.train()
    # The schedule falls from 0.5 by 1/6 a step that it counts; blocks follow it from the fourth step on.
    counted = [max(step - skipped, 0) for step in range(6)]
    expected = [0.5 * (1 - step / 6) for step in counted]
    assert [head for head, _ in rates] == pytest.approx(expected)
    assert [blocks for _, blocks in rates] == pytest.approx([0.0, 0.0, 0.0, *expected[3:]])
    assert set(GROUPS) >= {"head", "blocks"}

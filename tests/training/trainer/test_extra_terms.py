"""Loss terms of plug-ins train, are logged and weighed as a model's own."""

import pytest
import torch

from hfvla.errors import RecipeError

from ..toy import build_trainer


def bias(model, batch, outputs):
    """Pulls one bias; as a plug-in would, from model, batch and output."""
    assert set(batch) >= {"features", "target"} and outputs.logits.ndim == 1
    return (model.head.bias - 3.0).square().mean()


def test_a_term_of_a_plug_in_trains_and_is_logged(tmp_path):
    extra = {"loss_functions": {"bias": bias}}
    trainer = build_trainer(tmp_path, args={"max_steps": 4}, losses={"bias": 1.0}, extra=extra)
    before = trainer.model.head.bias.detach().clone()
    trainer.train()
    logged = [line["first/loss_bias"] for line in trainer.state.log_history if "first/loss_bias" in line]
    assert len(logged) == 4 and logged[-1] < logged[0]
    assert (trainer.model.head.bias - 3.0).abs().mean() < (before - 3.0).abs().mean()


def test_a_term_that_the_stage_does_not_weigh_is_not_computed(tmp_path):
    def fails(model, batch, outputs):
        raise AssertionError("computed")

    trainer = build_trainer(tmp_path, args={"max_steps": 1}, extra={"loss_functions": {"other": fails}})
    trainer.train()
    assert trainer.state.global_step == 1 and "first/loss_fit" in trainer.state.log_history[0]
    assert not any("other" in name for line in trainer.state.log_history for name in line)


def test_a_term_that_is_no_scalar_is_refused(tmp_path):
    extra = {"loss_functions": {"rows": lambda model, batch, outputs: torch.ones(2)}}
    trainer = build_trainer(tmp_path, losses={"rows": 1.0}, extra=extra)
    with pytest.raises(RecipeError, match=r"'rows' is no scalar; got \(2,\)"):
        trainer.train()

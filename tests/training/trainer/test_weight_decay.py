"""What weight decay acts on: matrices only, and none that a model says must be left alone."""

import pytest
import torch
from torch import nn
from transformers import Trainer

from hfvla.family import ParameterGroup
from hfvla.recipe import Lora
from hfvla.registry import available_families
from hfvla.training.lora.injection import inject_lora
from hfvla.training.run.tables import trainable_text
from hfvla.training.trainer.weight_decay import decayed_parameters, undecayed_parameters

from ..toy import build_trainer


class Scaled(nn.Module):
    """Norms, scales and tokens under names that say nothing of what they are."""

    def __init__(self):
        super().__init__()
        self.mix = nn.Linear(2, 2)
        self.ln_q = nn.RMSNorm(2)
        self.lambda_1 = nn.Parameter(torch.ones(2))
        self.temperature = nn.Parameter(torch.zeros(()))
        self.token = nn.Parameter(torch.zeros(1, 1, 2))

    def no_weight_decay(self):
        return {"token"}


def test_matrices_decay_and_nothing_else():
    model = nn.ModuleDict({"body": Scaled(), "head": nn.Linear(2, 1)})
    names = [name for name, _ in model.named_parameters()]
    assert decayed_parameters(model, names) == ["body.mix.weight", "head.weight"]


def test_a_model_may_state_one_pattern():
    model = Scaled()
    model.no_weight_decay = lambda: "mix.*"
    assert {"mix.weight", "mix.bias"} <= undecayed_parameters(model)
    assert "token" not in undecayed_parameters(model)


def test_adapters_decay_but_not_the_magnitudes_of_dora():
    model = nn.ModuleDict({"conv": nn.Conv2d(2, 2, 1), "head": nn.Linear(2, 1)})  # a convolution's magnitude is 4-d
    model["conv"].no_weight_decay = lambda: {"*"}  # of its own weights
    inject_lora(model, {"conv": ParameterGroup("conv.*")}, Lora(target="conv", r=1, alpha=1, dora=True))
    decayed = decayed_parameters(model, [name for name, _ in model.named_parameters()])
    assert decayed == ["conv.lora_A.default.weight", "conv.lora_B.default.weight", "head.weight"]


@pytest.mark.parametrize("family", sorted(available_families()))
def test_no_vector_token_or_position_of_a_family_decays(family):
    spec = available_families()[family]
    with torch.device("meta"):
        model = spec.new_model(spec.tiny_config())
    decayed = decayed_parameters(model, Trainer.get_decay_parameter_names(None, model))
    assert len(decayed) > 5
    for name in decayed:
        assert model.get_parameter(name).ndim > 1, name
        # All other matrices of these models are called weight.
        assert name.endswith(".weight") and not any(word in name for word in ("wpe", "pos_embed.w", "position")), name


def test_the_optimizer_decays_what_the_table_says(tmp_path):
    args = {"weight_decay": 0.1, "max_steps": 1}
    trainer = build_trainer(tmp_path, train=["body", "head"], losses={"fit": 1.0, "level": 1.0}, args=args)
    trainer.create_optimizer()
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    decayed = {
        names[id(parameter)]
        for group in trainer.optimizer.param_groups
        for parameter in group["params"]
        if group["weight_decay"]
    }
    # not the norm backbone.1 nor head.scale, a scalar
    assert decayed == {"backbone.0.weight", *(f"blocks.{index}.weight" for index in range(3)), "head.weight"}
    # backbone 3*4; blocks 3 * 4*4; head 4
    rows = {row.group: row.decayed for row in trainer.trainable_table()}
    assert rows == {"backbone": 12, "blocks": 48, "head": 4, "total": 64}
    assert "decayed" in trainable_text(trainer.stage, trainer.trainable_table())


def test_without_weight_decay_nothing_is_shown_as_decayed(tmp_path):
    assert {row.decayed for row in build_trainer(tmp_path).trainable_table()} == {0}

"""Gradient checkpointing of frozen layers: those that gradients pass through, without dropout, and no others."""

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers.modeling_layers import GradientCheckpointingLayer

from hfvla.training.stage.groups import freeze, fully_frozen_modules
from hfvla.training.trainer.checkpointing import checkpoint_frozen_layers, evaluate_frozen

from ..toy import ToyConfig, ToyModel, build_trainer

LAYERS = 3


class Layer(GradientCheckpointingLayer):
    """Dropout as a module and as a function of the layer's own mode, and a norm with running statistics."""

    def __init__(self, calls):
        super().__init__()
        self.linear, self.norm, self.dropout = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout(0.5)
        self.calls = calls

    def forward(self, hidden, scale=None):
        self.calls.append(self)
        hidden = nn.functional.dropout(self.dropout(self.norm(self.linear(hidden))), 0.5, self.training)
        return hidden if scale is None else hidden * scale


class Deep(ToyModel):
    """The toy with layers that checkpoint in the place of its plain blocks: a tower before and a decoder after."""

    supports_gradient_checkpointing = True

    def __init__(self, config):
        super().__init__(config)
        self.calls = []
        self.backbone[2].p = 0.0  # it trains, and what is looked at is frozen
        self.blocks = nn.ModuleList([Layer(self.calls) for _ in range(LAYERS)])
        self.tower = nn.ModuleList([Layer(self.calls)])

    def forward(self, features, **given):
        return super().forward(features + self.tower[0](torch.ones(len(features), 4))[:, :3], **given)


def build():
    torch.manual_seed(0)
    return Deep(ToyConfig())


def prepared(model, trained):
    model.train()
    model.gradient_checkpointing_enable({"use_reentrant": False})
    checkpoint_frozen_layers(model)
    checkpoint_frozen_layers(model)  # once is enough
    freeze(model, dict.fromkeys(name for name, _ in model.named_parameters() if name.startswith(trained)))
    evaluate_frozen(fully_frozen_modules(model))
    return model


def runs(model):
    """Return how often each layer computed in a forward and a backward pass: tower, then blocks."""
    model.calls.clear()
    given = {"target": torch.zeros(8), "value": torch.ones(8)}
    model(torch.randn(8, 3, generator=torch.Generator().manual_seed(0)), **given).loss.backward()
    return [model.calls.count(layer) for layer in (*model.tower, *model.blocks)]


@pytest.mark.parametrize(
    ("trained", "expected"),
    [
        ("backbone", [1, 2, 2, 2]),  # before the frozen blocks: gradients pass through all of them
        ("head", [1, 1, 1, 1]),  # after them: none does
        ("blocks.1", [1, 1, 2, 2]),
        ("tower", [2, 2, 2, 2]),
    ],
)
def test_layers_are_recomputed_where_gradients_pass(trained, expected):
    assert runs(prepared(build(), trained)) == expected


def test_frozen_layers_evaluate_while_they_compute():
    model = prepared(build(), "backbone.0")
    before = [norm.running_mean.clone() for norm in model.modules() if isinstance(norm, nn.BatchNorm1d)]
    gradients = []
    for _ in range(2):  # without dropout both are equal
        model.zero_grad()
        runs(model)
        gradients.append(model.backbone[0].weight.grad.clone())
    assert torch.equal(*gradients) and gradients[0].any()
    assert all(not layer.norm.training and not layer.dropout.training for layer in model.blocks)
    after = [norm.running_mean for norm in model.modules() if isinstance(norm, nn.BatchNorm1d)]
    assert all(torch.equal(*pair) for pair in zip(before, after, strict=True))
    plain = prepared(build(), "backbone.0")
    plain.gradient_checkpointing_disable()
    evaluate_frozen(fully_frozen_modules(plain))
    assert runs(plain) == [1, 1, 1, 1] and torch.equal(plain.backbone[0].weight.grad, gradients[0])


def test_an_evaluation_is_one():
    model = prepared(build(), "backbone").eval()
    assert runs(model) == [1, 1, 1, 1]


def test_inputs_by_name_count_too():
    layer = Layer([])
    layer.gradient_checkpointing, layer._gradient_checkpointing_func = True, checkpoint
    checkpoint_frozen_layers(layer)
    layer.requires_grad_(False)
    evaluate_frozen([layer])
    layer._gradient_checkpointing_func.checkpoint = lambda function, *given: checkpoint(
        function, *given, use_reentrant=False
    )
    layer(torch.ones(2, 4), scale=torch.ones((), requires_grad=True)).sum().backward()
    assert len(layer.calls) == 2


def test_a_stage_checkpoints_the_frozen_part_behind_what_trains(tmp_path):
    model = build()
    settings = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    trainer = build_trainer(tmp_path, model, train=["backbone"], args={**settings, "max_steps": 1})
    trainer.train()
    assert [model.calls.count(layer) for layer in (*model.tower, *model.blocks)] == [1, 2, 2, 2]

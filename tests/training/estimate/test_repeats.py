"""Layers that no gradient passes are followed once each, and counted as if all were."""

from contextlib import contextmanager
from dataclasses import asdict

import pytest
import torch
from torch import nn

from hfvla.training.estimate import profile, profile_step

from ..tiny_vlm import build_batch, build_model, names


@contextmanager
def each_layer(model, tracker):
    yield


class Block(nn.Module):
    """One of a list, with a setting of its own."""

    def __init__(self, number, window=0, keeps=None):
        super().__init__()
        self.layer_idx, self.window, self.keeps = number, window, keeps
        self.inner, self.calls = nn.Linear(8, 8), 0

    def forward(self, hidden, lengths=None, **options):
        self.calls += 1
        parts = hidden.split(lengths.tolist()) if lengths is not None and self.window else [hidden]
        out = torch.cat([self.inner(part).relu() for part in parts])
        if self.keeps is not None:
            self.keeps.append(out * 2)
        return out


class Tower(nn.Module):
    def __init__(self, *blocks):
        super().__init__()
        self.blocks, self.head = nn.ModuleList(blocks), nn.Linear(8, 2)

    def forward(self, hidden, lengths=None, other=None):
        for number, block in enumerate(self.blocks):
            hidden = block(hidden, lengths if other is None or number % 2 else other)
        return {"loss": self.head(hidden).square().mean()}


def follow(blocks, monkeypatch, trained=("head.weight", "head.bias"), **given):
    """Return how often each block ran, and whether both ways count the same."""
    found = []
    for once in (True, False):
        with torch.device("meta"):
            model = Tower(*blocks())
        batch = {"hidden": torch.empty(16, 8, device="meta"), **given}
        with monkeypatch.context() as patched:
            if not once:
                patched.setattr(profile, "followed_once", each_layer)
            counted = profile_step(model, batch, trainable=trained)
        found.append(([block.calls for block in model.blocks], asdict(counted)))
        assert "forward" not in vars(model.blocks[0])
    assert found[0][1] == found[1][1]
    assert found[1][0] == [1] * len(found[1][0])
    return found[0][0]


def test_equal_layers_are_followed_once(monkeypatch):
    assert follow(lambda: [Block(n) for n in range(5)], monkeypatch) == [1, 0, 0, 0, 0]


def test_what_a_layer_depends_on_tells_it_from_others(monkeypatch):
    lengths, other = torch.tensor([8, 8]), torch.tensor([4, 12])
    blocks = lambda: [Block(n, window=n % 2) for n in range(6)]  # noqa: E731
    assert follow(blocks, monkeypatch, lengths=lengths) == [1, 1, 0, 0, 0, 0]
    same = lambda: [Block(n, window=1) for n in range(4)]  # noqa: E731
    assert follow(same, monkeypatch, lengths=lengths, other=other) == [1, 1, 0, 0]  # other numbers, other windows


def test_layers_that_gradients_pass_are_all_followed(monkeypatch):
    blocks = lambda: [Block(n) for n in range(3)]  # noqa: E731
    trained = ("blocks.0.inner.weight", "head.weight")
    assert follow(blocks, monkeypatch, trained=trained) == [1, 1, 1]


def test_a_layer_that_leaves_something_behind_is_followed_each_time(monkeypatch):
    kept = []
    assert follow(lambda: [Block(n, keeps=kept) for n in range(3)], monkeypatch) == [1, 1, 1]


@pytest.mark.parametrize("checkpointing", [False, True])
def test_a_frozen_tower_of_transformers(monkeypatch, checkpointing):
    model, batch = build_model(), build_batch()
    trained = names(model, "vision_tower")
    counted = profile_step(model, batch, trainable=trained, checkpointing=checkpointing)
    monkeypatch.setattr(profile, "followed_once", each_layer)
    assert asdict(counted) == asdict(profile_step(model, batch, trainable=trained, checkpointing=checkpointing))

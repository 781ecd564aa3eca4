"""Processes draw other numbers than each other while they train, and the same before and after."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
from transformers import TrainerCallback, set_seed

from hfvla.training.checkpoint import streams
from hfvla.training.checkpoint.streams import join_streams, part_streams

from .. import toy


def drawn():
    return torch.rand(3).tolist(), np.random.random(), torch.get_rng_state().sum().item()


def of_process(rank, world=4, seed=11):
    return SimpleNamespace(process_index=rank, world_size=world, seed=seed)


def test_each_process_has_a_stream_and_the_first_keeps_its_own():
    found = []
    for rank in range(4):
        set_seed(11)
        part_streams(of_process(rank))
        found.append(drawn())
    set_seed(11)
    assert found[0] == drawn()
    assert len({str(one) for one in found}) == 4 and len({one[1] for one in found}) == 4
    part_streams(of_process(2))
    assert drawn() == found[2]
    part_streams(of_process(2, seed=12))
    assert drawn() != found[2]
    joined = []
    for rank in range(2):
        part_streams(of_process(rank))
        join_streams(of_process(rank))
        joined.append(drawn())
    assert joined[0] == joined[1]


@pytest.mark.parametrize("rank", [0, 1])
def test_they_part_when_training_begins_and_not_before(tmp_path, monkeypatch, rank):
    told = []
    monkeypatch.setattr(streams, "_seed", lambda seed: told.append(seed))

    class Steps(TrainerCallback):
        def on_step_begin(self, *_, **__):
            told.append("step")

    trainer = toy.build_trainer(tmp_path, extra={"callbacks": [Steps()]}, args={"max_steps": 1})
    monkeypatch.setattr(type(trainer.args), "process_index", rank)
    monkeypatch.setattr(type(trainer.args), "world_size", 2)
    monkeypatch.setattr(trainer, "find_checkpoint", lambda: None)
    assert not told
    trainer.train()
    parted = ["step"] if rank == 0 else [told[0], "step"]
    assert told == [*parted, trainer.args.seed]
    assert told[0] != trainer.args.seed

"""A stage with phases on two processes (DDP): each part joins on both, and the result is that of one process."""

import json

import pytest
import torch
from safetensors.torch import load_file

from .. import phases_worker as tower

pytestmark = [pytest.mark.distributed, pytest.mark.slow]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, repository):
    """The weights of a run on one process, those before it, and the folder of the same run on two."""
    folder = tmp_path_factory.mktemp("ddp")
    trainer = tower.build_trainer(folder / "one", save_strategy="no")
    before = tower.weights(trainer)
    trainer.train()
    return trainer, before, tower.launch(folder / "two", repository)


def read(folder, run, rank=0):
    return load_file(folder / f"{run}_{rank}.safetensors")


def test_two_processes_really_ran(runs):
    records = [json.loads((runs[2] / f"record_{rank}.json").read_text()) for rank in (0, 1)]
    assert [record["world"] for record in records] == [2, 2] and records[0]["type"] == "DistributedType.MULTI_CPU"


@pytest.mark.parametrize("run", ["whole", "before", "at", "past"])
def test_ranks_are_bit_equal(runs, run):
    first, second = (read(runs[2], run, rank) for rank in (0, 1))
    assert [name for name in first if not torch.equal(first[name], second[name])] == []


def test_it_equals_one_process(runs):
    trainer, before, folder = runs
    one, two = tower.weights(trainer), read(folder, "whole")
    for name, value in one.items():
        torch.testing.assert_close(two[name], value, atol=1e-5, rtol=0, msg=lambda text, name=name: f"{name}: {text}")
        joined = name.rsplit(".", 1)[0] in tower.JOINS
        assert (two[name] - before[name]).abs().max() > 1e-3 if joined else torch.equal(two[name], before[name]), name


def test_the_log_is_the_same(runs):
    one = [line for line in runs[0].state.log_history if "loss" in line]
    two = json.loads((runs[2] / "record_0.json").read_text())["steps"]
    assert [set(line) for line in one] == [set(line) for line in two] and len(two) == tower.STEPS
    for first, second in zip(one, two, strict=True):
        compared = {key for key in first if key.rpartition("/")[2] not in tower.MEASURED}
        assert {key: second[key] for key in compared} == pytest.approx({key: first[key] for key in compared}, abs=1e-4)


@pytest.mark.parametrize("run", ["before", "at", "past"])
def test_resuming_around_a_boundary_is_bit_equal(runs, run):
    whole, resumed = read(runs[2], "whole"), read(runs[2], run)
    assert [name for name in whole if not torch.equal(whole[name], resumed[name])] == []

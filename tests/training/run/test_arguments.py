"""What a run's processes and stages are started with."""

from types import SimpleNamespace

import accelerate
import pytest
import torch

from hfvla.errors import RecipeError
from hfvla.recipe import Stage
from hfvla.registry import get_family
from hfvla.training.run.arguments import may_leave_unused, start_processes

LORA = {"target": "language", "r": 2}

MACHINE = {"data": SimpleNamespace(video_backend="auto"), "model": SimpleNamespace(attention=None)}


@pytest.mark.parametrize(
    ("whole", "stages", "expected"),
    [({}, [{}], 1800), ({"ddp_timeout": 60}, [{}], 60), ({}, [{"ddp_timeout": 7200}, {}], 7200)],
)
def test_the_longest_timeout_of_a_recipe_is_the_process_groups(monkeypatch, whole, stages, expected):
    started = {}
    monkeypatch.setattr("accelerate.PartialState", lambda **kwargs: started.update(kwargs))
    recipe = SimpleNamespace(
        args={"use_cpu": True, **whole}, stages=stages, stage_args=lambda stage: {**whole, **stage}, **MACHINE
    )
    start_processes(recipe)
    assert started["cpu"] is True and started["timeout"].total_seconds() == expected


def test_one_process_needs_no_group():
    recipe = SimpleNamespace(args={"use_cpu": True}, stages=[], stage_args=None, **MACHINE)
    assert start_processes(recipe).num_processes == 1


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, False),
        ({"train": ["selection_head", "language.last(1)"]}, False),
        ({"train": ["lora"], "lora": LORA}, False),
        ({"losses": {"selection": 1.0, "itc": 0.5}}, False),
        ({"train": ["selection_head", "vision"]}, True),  # a batch may be without pictures
        ({"train": ["lora"], "lora": {"target": ["language", "vision"]}}, True),
        ({"train": ["lora"], "lora": {"target": "re:.*attn.*"}}, True),
        ({"losses": {"reasoning": 1.0}}, True),  # does not reach the head
        ({"losses": {"selection": 0.0, "reasoning": 1.0}}, True),
        ({"losses": {"selection": {"start": 0.0, "end": 1.0}}}, True),  # no gradient at first
        ({"phases": [{"step": 2, "losses": {"selection": 0.0}}]}, True),
        ({"phases": [{"step": 2, "add": ["language"]}]}, True),
        ({"loss_weighting": "pcgrad", "losses": {"selection": 1.0, "reasoning": 1.0}}, True),
        ({"grad_cache": 2}, True),
    ],
)
def test_ddp_looks_for_unused_parameters_where_there_may_be_some(changes, expected):
    stage = Stage(**{"name": "one", "train": ["selection_head"], "losses": {"selection": 1.0}, **changes})
    assert may_leave_unused(stage, get_family("ember_vlm")) is expected


def test_a_family_that_says_nothing_is_looked_at():
    stage = Stage(name="one", train=["vision"], losses={"itm": 1.0})
    assert may_leave_unused(stage, get_family("internvl_retrieval"))


def test_a_run_on_several_gpus_without_a_launcher_is_refused_at_once(monkeypatch):
    state = SimpleNamespace(num_processes=1, device=torch.device("cuda"))
    monkeypatch.setattr(accelerate, "PartialState", lambda **_: state)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    recipe = SimpleNamespace(name="mine", args={"use_cpu": False}, stages=[], **MACHINE)
    with pytest.raises(RecipeError, match="run 'mine': one process trains on one GPU; got '2 GPUs"):
        start_processes(recipe)
    state.num_processes = 2
    assert start_processes(recipe) is state

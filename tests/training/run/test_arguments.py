"""What a run's processes are started with."""

from types import SimpleNamespace

import pytest

from hfvla.training.run.arguments import start_processes


@pytest.mark.parametrize(
    ("whole", "stages", "expected"),
    [({}, [{}], 1800), ({"ddp_timeout": 60}, [{}], 60), ({}, [{"ddp_timeout": 7200}, {}], 7200)],
)
def test_the_longest_timeout_of_a_recipe_is_the_process_groups(monkeypatch, whole, stages, expected):
    started = {}
    monkeypatch.setattr("accelerate.PartialState", lambda **kwargs: started.update(kwargs))
    recipe = SimpleNamespace(
        args={"use_cpu": True, **whole}, stages=stages, stage_args=lambda stage: {**whole, **stage}
    )
    start_processes(recipe)
    assert started["cpu"] is True and started["timeout"].total_seconds() == expected


def test_one_process_needs_no_group():
    assert start_processes(SimpleNamespace(args={"use_cpu": True}, stages=[], stage_args=None)).num_processes == 1

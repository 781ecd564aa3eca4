"""How long steps wait for data."""

import time

import pytest
from transformers import TrainerControl, TrainerState, TrainingArguments

from hfvla.training.trainer.pace import Pace


@pytest.fixture
def clock(monkeypatch):
    """A clock that goes on when it is told to."""
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return lambda seconds: now.__setitem__(0, now[0] + seconds)


@pytest.fixture
def arguments(tmp_path):
    return TrainingArguments(str(tmp_path), per_device_train_batch_size=4, use_cpu=True)


def step(pace, arguments, clock, waits, works):
    with pace.waiting():
        clock(waits)
    clock(works)
    pace.on_step_end(arguments, TrainerState(), TrainerControl())


def test_waiting_is_told_by_step_and_in_all_without_the_first_batch(arguments, clock):
    pace = Pace()
    pace.on_train_begin(arguments, TrainerState(), TrainerControl())
    assert pace.data_share is None
    step(pace, arguments, clock, 30.0, 1.0)  # workers start
    step(pace, arguments, clock, 0.5, 1.5)
    first = pace.scalars()
    assert first["data_s"] == 0.25 and first["samples_per_second"] == pytest.approx(8 / 33)
    step(pace, arguments, clock, 0.0, 1.0)
    assert pace.scalars()["data_s"] == 0.0
    # 0.5 s of 1 + 2 + 1: the first batch's 30 s are in neither
    assert pace.data_share == 0.125
    pace.on_train_begin(arguments, TrainerState(), TrainerControl())
    assert pace.data_share is None


def test_a_line_without_a_step_has_no_pace(arguments, clock):
    pace = Pace()
    pace.on_train_begin(arguments, TrainerState(), TrainerControl())
    assert set(pace.scalars()) == {"peak_memory_gb"}


def test_micro_batches_that_end_early_are_counted_too(clock):
    pace = Pace()
    with pytest.raises(StopIteration), pace.waiting():
        clock(1.0)
        raise StopIteration
    with pace.waiting():
        clock(2.0)
    assert pace._whole_waited == 2.0

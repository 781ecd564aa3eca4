"""Two processes write half of the answers each and find what one finds alone."""

import json
from pathlib import Path

import pytest

from ...training.launching import launch


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_find_what_one_finds():
    worker = Path(__file__).with_name("worker.py")
    (alone,) = launch(1, worker)
    together, other = launch(2, worker)
    assert json.loads(together.splitlines()[-1]) == json.loads(alone.splitlines()[-1])
    assert json.loads(other.splitlines()[-1])["asked"] == 2 * 12  # half of 24 answers, and as many without the picture

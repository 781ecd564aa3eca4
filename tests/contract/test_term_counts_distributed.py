"""Every family and every term, also those that compare rows: two processes with half a batch equal one with it all."""

import json
import subprocess
import sys

import pytest
import torch
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from .counts_worker import backward, load
from .test_term_counts import thinned

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def pair(built, tmp_path_factory):
    """What two processes found, and the same step in one."""
    folder, family = tmp_path_factory.mktemp(built.spec.name), built.spec.name
    names, rows = list(built.spec.losses), thinned(built.spec.name, built.rows)
    built.model.save_pretrained(folder / family)
    built.processor.save_pretrained(folder / family)
    (folder / f"{family}-terms.json").write_text(json.dumps(names))
    collator = built.collator(*names)
    for rank in range(2):
        batch = collator(rows[4 * rank : 4 * rank + 4])
        save_file({name: value.contiguous() for name, value in batch.items()}, folder / f"{family}-{rank}.safetensors")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command = [*launch, "-m", "tests.contract.counts_worker", str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-4000:]
    model = load(folder, family)
    sums = backward(model, [collator(rows)], names, Accelerator(cpu=True))
    return load_file(folder / f"{family}.found"), sums, model


def test_two_processes_equal_one(pair):
    found, sums, model = pair
    assert all(value != 0 for value in sums.values())
    for name, value in sums.items():
        assert found[f"term {name}"].item() == pytest.approx(value, rel=1e-5), name
    for name, parameter in model.named_parameters():
        expected = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        scale = float(expected.abs().max().clamp_min(1e-3))
        assert (found[name] - expected).abs().max() <= 1e-4 * scale, name

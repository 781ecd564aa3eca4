"""InfoNCE by hand, and over two processes."""

import math
import subprocess
import sys

import pytest
import torch

from hfvla.losses.contrastive import FeatureQueue, bounded_temperature, group_infonce, symmetric_infonce
from hfvla.losses.gathering import gather_with_gradient

PROCESS = """
import sys
import torch
import torch.distributed as dist
from hfvla.losses.contrastive import symmetric_infonce
from hfvla.losses.gathering import gather_with_gradient, gathered_rows, one_process

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
given = torch.load(f"{folder}/given.pt")
found = {}
for count in (4, 7, 8):  # rows of the first process
    weights = {
        name: given[name].clone().requires_grad_() for name in ("first_weight", "second_weight", "temperature")
    }
    mine = slice(count) if rank == 0 else slice(count, 8)
    first, second = given["first"][mine] @ weights["first_weight"], given["second"][mine] @ weights["second_weight"]
    if len(first) == 0:  # a batch without a pair has no graph
        first, second = first.detach(), second.detach()
    with one_process():  # no call that the other process would have to make too
        assert rank or len(gather_with_gradient(first)) == count
    assert gathered_rows(first) == (count, 8 - count)
    gathered = gather_with_gradient(first)
    loss = symmetric_infonce(first, second, weights["temperature"])
    loss.backward()
    total = loss.detach().clone()
    reached = {name: weight.grad for name, weight in weights.items()}
    grads = {name: torch.zeros_like(weights[name]) if grad is None else grad for name, grad in reached.items()}
    for tensor in (total, *grads.values()):
        dist.all_reduce(tensor)
        tensor /= 2
    found[count] = {"loss": total, "gathered": gathered.detach(), **grads}
if rank == 0:
    torch.save(found, f"{folder}/found.pt")
dist.destroy_process_group()
"""


def test_orthogonal_pairs_by_hand():
    # cosines are the identity, temperature 0.5: logits 2 on the diagonal, 0 beside it
    # each row and each column: ln(1 + e^-2) = 0.126928
    first, second = torch.tensor([[2.0, 0.0], [0.0, 3.0]]), torch.tensor([[1.0, 0.0], [0.0, 5.0]])
    assert symmetric_infonce(first, second, 0.5).item() == pytest.approx(0.126928, abs=1e-6)


def test_both_directions_count():
    # logits [[1, 0], [1, 0]]. Rows: ln(1 + e^-1) = 0.313262 and ln(1 + e) = 1.313262, mean 0.813262.
    # Columns: [1, 1] and [0, 0], each ln 2 = 0.693147. Half the sum: 0.753204
    first, second = torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    assert symmetric_infonce(first, second, 1.0).item() == pytest.approx(0.753204, abs=1e-6)
    assert symmetric_infonce(second, first, 1.0).item() == pytest.approx(0.753204, abs=1e-6)


def test_a_single_pair_has_nothing_to_tell_apart():
    assert symmetric_infonce(torch.tensor([[1.0, 2.0]]), torch.tensor([[-3.0, 1.0]]), 0.07).item() == 0.0


def test_the_order_of_pairs_does_not_matter():
    generator = torch.Generator().manual_seed(1)
    first, second = torch.randn(2, 6, 3, generator=generator)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    expected = symmetric_infonce(first, second, 0.2)
    torch.testing.assert_close(symmetric_infonce(first[order], second[order], 0.2), expected)
    assert not torch.isclose(symmetric_infonce(first, second[order], 0.2), expected)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(3, 3\)"):
        symmetric_infonce(torch.zeros(2, 3), torch.zeros(3, 3), 1.0)


def test_gathering_in_one_process_is_the_tensor_itself():
    tensor = torch.zeros(2, 3, requires_grad=True)
    assert gather_with_gradient(tensor) is tensor


# ---- precision and temperature ------------------------------------------------------------------------------------


@pytest.fixture
def alike():
    """Pairs that differ little, as captions of one city do: their logits at 0.01 are far from those of bfloat16."""
    generator = torch.Generator().manual_seed(0)
    first = torch.randn(1, 64, generator=generator) + 0.25 * torch.randn(16, 64, generator=generator)
    return first, first + 0.02 * torch.randn(16, 64, generator=generator)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("loss", [symmetric_infonce, group_infonce])
def test_autocast_changes_nothing(alike, loss, dtype):
    queue = FeatureQueue(8, 64)
    queue.push(alike[0][:8], alike[1][:8], torch.arange(8))
    options = {"groups": torch.arange(16) // 2, "queue": queue} if loss is group_infonce else {}
    expected = loss(*alike, 0.01, **options)
    with torch.autocast("cpu", dtype=dtype):
        found = loss(*alike, 0.01, **options)
    assert found.dtype == torch.float32 and torch.equal(found, expected)


@pytest.mark.parametrize("start", [math.log(0.005), math.log(3.0)])
def test_a_temperature_beyond_its_bounds_comes_back(start):
    log_temperature = torch.nn.Parameter(torch.tensor(start))
    temperature = bounded_temperature(log_temperature, 0.01, 1.0)
    assert temperature.item() == pytest.approx(0.01 if start < 0 else 1.0)
    generator = torch.Generator().manual_seed(0)
    symmetric_infonce(*torch.randn(2, 8, 4, generator=generator), temperature).backward()
    assert log_temperature.grad.abs() > 1e-3
    assert math.log(0.01) - 1e-6 <= log_temperature.item() <= 1e-6


def test_a_temperature_that_does_not_train_is_left_alone():
    log_temperature = torch.tensor(5.0)
    assert bounded_temperature(log_temperature, 0.01, 1.0).item() == 1.0 and log_temperature.item() == 5.0


@pytest.mark.distributed
def test_two_processes_equal_one_with_the_whole_batch(tmp_path):
    generator = torch.Generator().manual_seed(2)
    given = {
        "first": torch.randn(8, 5, generator=generator),
        "second": torch.randn(8, 4, generator=generator),
        "first_weight": torch.randn(5, 3, generator=generator),
        "second_weight": torch.randn(4, 3, generator=generator),
        "temperature": torch.tensor(0.3),
    }
    torch.save(given, tmp_path / "given.pt")
    (tmp_path / "process.py").write_text(PROCESS)
    command = [sys.executable, str(tmp_path / "process.py")]
    processes = [subprocess.Popen([*command, str(rank), str(tmp_path)]) for rank in range(2)]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    found = torch.load(tmp_path / "found.pt")

    weights = {name: given[name].requires_grad_() for name in ("first_weight", "second_weight", "temperature")}
    first, second = given["first"] @ weights["first_weight"], given["second"] @ weights["second_weight"]
    loss = symmetric_infonce(first, second, weights["temperature"])
    loss.backward()
    assert set(found) == {4, 7, 8}
    for split in found.values():
        torch.testing.assert_close(split["gathered"], first.detach())
        torch.testing.assert_close(split["loss"], loss.detach())
        for name, weight in weights.items():
            torch.testing.assert_close(split[name], weight.grad, atol=1e-6, rtol=1e-5)

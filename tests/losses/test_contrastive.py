"""InfoNCE by hand, and over two processes."""

import subprocess
import sys

import pytest
import torch

from hfvla.losses.contrastive import gather_with_gradient, symmetric_infonce

PROCESS = """
import sys
import torch
import torch.distributed as dist
from hfvla.losses.contrastive import gather_with_gradient, one_process, symmetric_infonce

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
given = torch.load(f"{folder}/given.pt")
weights = {name: given[name].requires_grad_() for name in ("first_weight", "second_weight", "temperature")}
mine = slice(4 * rank, 4 * rank + 4)
first, second = given["first"][mine] @ weights["first_weight"], given["second"][mine] @ weights["second_weight"]
with one_process():  # no call that the other process would have to make too
    assert rank or len(gather_with_gradient(first)) == 4
gathered = gather_with_gradient(first)
loss = symmetric_infonce(first, second, weights["temperature"])
loss.backward()
total = loss.detach().clone()
for tensor in (total, *(weight.grad for weight in weights.values())):
    dist.all_reduce(tensor)
    tensor /= 2
if rank == 0:
    grads = {name: weight.grad for name, weight in weights.items()}
    torch.save({"loss": total, "gathered": gathered.detach(), **grads}, f"{folder}/found.pt")
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
    torch.testing.assert_close(found["gathered"], first.detach())
    torch.testing.assert_close(found["loss"], loss.detach())
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight.grad, atol=1e-6, rtol=1e-5)

"""InfoNCE with groups by hand, against a naive loop, with a queue, and over two processes."""

import subprocess
import sys

import pytest
import torch

from hfvla.losses.contrastive import FeatureQueue, group_infonce, symmetric_infonce

PROCESS = """
import sys
import torch
import torch.distributed as dist
from hfvla.losses.contrastive import FeatureQueue, group_infonce
from hfvla.losses.gathering import gathered_offset, gathered_rows

rank, folder = int(sys.argv[1]), sys.argv[2]
dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
given = torch.load(f"{folder}/given.pt")
weights = {name: given[name].requires_grad_() for name in ("first_weight", "second_weight", "temperature")}
mine = slice(4 * rank, 4 * rank + 4)
assert gathered_offset(gathered_rows(given["groups"][mine])) == 4 * rank
first, second = given["first"][mine] @ weights["first_weight"], given["second"][mine] @ weights["second_weight"]
loss = group_infonce(first, second, weights["temperature"], given["groups"][mine])
loss.backward()
queue = FeatureQueue(6, 3)
queue.push(first, second, given["groups"][mine])
total = loss.detach().clone()
for tensor in (total, *(weight.grad for weight in weights.values())):
    dist.all_reduce(tensor)
    tensor /= 2
if rank == 0:
    grads = {name: weight.grad for name, weight in weights.items()}
    torch.save({"loss": total, "queue": queue.state_dict(), **grads}, f"{folder}/found.pt")
dist.destroy_process_group()
"""


@pytest.fixture
def features():
    return torch.randn(2, 8, 5, generator=torch.Generator().manual_seed(3))


def naive(first, second, temperature, groups):
    """One exponential at a time, in float64."""
    first = torch.nn.functional.normalize(first.double(), dim=-1)
    second = torch.nn.functional.normalize(second.double(), dim=-1)
    total = 0.0
    for left, right in ((first, second), (second, first)):
        for i in range(len(groups)):
            weights = [torch.exp(left[i] @ right[j] / temperature) for j in range(len(groups))]
            negatives = sum(weights[j] for j in range(len(groups)) if groups[j] != groups[i])
            positives = [j for j in range(len(groups)) if groups[j] == groups[i]]
            row = [-torch.log(weights[p] / (weights[p] + negatives)) for p in positives]
            total = total + sum(row) / len(row)
    return total / (2 * len(groups))


def test_two_of_a_group_by_hand():
    # Temperature 1, images (1,0), (0,1), (0,1), texts the same, groups a, a, b. Cosines: [1,0,0], [0,1,1], [0,1,1].
    # Row 0: positives 1 and 0, negative 0: ln(1 + e^-1) = 0.313262, ln(1 + e^0) = 0.693147, mean 0.503204
    # Row 1: positives 0 and 1, negative 1: ln(1 + e^1) = 1.313262, ln(1 + e^0) = 0.693147, mean 1.003204
    # Row 2: positive 1, negatives 0 and 1: ln(1 + (1 + e) / e) = ln(2.367879) = 0.861995
    # The matrix is symmetric: both directions give (0.503204 + 1.003204 + 0.861995) / 3 = 0.789468
    sides = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = group_infonce(sides, sides, 1.0, torch.tensor([7, 7, 9]))
    assert found.item() == pytest.approx(0.789468, abs=1e-6)


def test_equals_the_loop(features):
    groups = torch.tensor([0, 1, 1, 2, 0, 0, 3, 2])
    found = group_infonce(*features, 0.2, groups)
    torch.testing.assert_close(found.double(), naive(*features, 0.2, groups), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("groups", [None, torch.arange(8), torch.full((8,), -1)])
def test_different_groups_are_the_plain_loss(features, groups):
    torch.testing.assert_close(group_infonce(*features, 0.07, groups), symmetric_infonce(*features, 0.07))


def test_a_positive_of_the_group_is_pulled_and_never_pushed():
    # Text 1 belongs to image 0's group; moving image 0 a little towards text 1 must lower what image 0 costs.
    # Against the identity as texts the cosines of an image are its own components, so the gradient is read off them.
    images = torch.full((4, 4), 0.5, requires_grad=True)
    rows = {}
    for name, groups in (("together", [0, 0, 1, 2]), ("apart", [0, 3, 1, 2])):
        group_infonce(images, torch.eye(4), 0.3, torch.tensor(groups)).backward()
        rows[name], images.grad = images.grad[0].clone(), None
    assert rows["together"][1] < 0 < rows["apart"][1]


def test_one_group_alone_costs_nothing_and_has_no_nan(features):
    first = features[0].clone().requires_grad_()
    loss = group_infonce(first, features[1], 0.07, torch.zeros(8, dtype=torch.long))
    loss.backward()
    assert loss.item() == 0.0 and first.grad.abs().max() == 0.0


def test_a_queue_adds_negatives_of_other_groups(features):
    first, second = features
    groups = torch.tensor([0, 1, 2, 3])
    queue = FeatureQueue(4, 5)
    plain = group_infonce(first[:4], second[:4], 0.2, groups, queue)
    torch.testing.assert_close(plain, symmetric_infonce(first[:4], second[:4], 0.2))  # an empty queue changes nothing
    queue.push(first[4:], second[4:], groups)
    found = group_infonce(first[:4], second[:4], 0.2, groups, queue)
    # Entry i of the queue is in group i: for row i the negatives are the other three rows and the other three entries.
    left, right = (torch.nn.functional.normalize(side, dim=-1) for side in features)
    expected = 0.0
    for a, b in ((left, right), (right, left)):
        for i in range(4):
            scores = torch.exp(a[i] @ b.T / 0.2)
            others = sum(scores[j] + scores[4 + j] for j in range(4) if j != i)
            expected += -torch.log(scores[i] / (scores[i] + others)) / 8
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-5)


def test_a_queue_forgets_the_oldest_and_is_saved(features):
    queue = FeatureQueue(5, 5)
    queue.push(features[0][:3], features[1][:3], torch.tensor([1, 2, 3]))
    queue.push(features[0][3:6], features[1][3:6], torch.tensor([4, 5, 6]))
    assert len(queue) == 5 and queue.groups.tolist() == [4, 5, 6, 1, 2]
    loaded = FeatureQueue(5, 5)
    loaded.load_state_dict(queue.state_dict())
    assert len(loaded) == 5
    torch.testing.assert_close(loaded.features("second")[0], queue.features("second")[0])


def test_a_queue_does_not_stand_in_the_way_of_going_backward(features):
    """Each step reads the queue, pushes into it, and goes backward only then; also over two micro-batches."""
    queue, weight = FeatureQueue(12, features[0].shape[1]), torch.nn.Parameter(torch.eye(features[0].shape[1]))
    for _ in range(3):
        total = torch.zeros(())
        for part in (slice(0, 4), slice(4, 8)):
            first, second, groups = features[0][part] @ weight, features[1][part], torch.arange(8)[part]
            total = total + group_infonce(first, second, 0.1, groups, queue)
            queue.push(first, second, groups)
        total.backward()
    assert len(queue) == 12 and weight.grad.isfinite().all() and weight.grad.abs().max() > 0


def test_a_queue_keeps_no_feature_that_is_no_number(features):
    queue, first = FeatureQueue(4, features[0].shape[1]), features[0][:4].clone()
    first[2, 0] = float("nan")
    queue.push(first, features[1][:4], torch.arange(4))
    assert not queue.first[2].any() and queue.first[1].norm() == pytest.approx(1.0)


def test_groups_must_fit(features):
    with pytest.raises(ValueError, match=r"groups \(3,\)"):
        group_infonce(*features, 1.0, torch.zeros(3, dtype=torch.long))


@pytest.mark.distributed
def test_two_processes_equal_one_with_the_whole_batch(tmp_path):
    generator = torch.Generator().manual_seed(2)
    given = {
        "first": torch.randn(8, 5, generator=generator),
        "second": torch.randn(8, 4, generator=generator),
        "groups": torch.tensor([0, 1, 2, 1, 0, 3, 2, 2]),  # every group but the last on both processes
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
    loss = group_infonce(first, second, weights["temperature"], given["groups"])
    loss.backward()
    queue = FeatureQueue(6, 3)
    queue.push(first, second, given["groups"])
    torch.testing.assert_close(found["loss"], loss.detach())
    for name, weight in weights.items():
        torch.testing.assert_close(found[name], weight.grad, atol=1e-6, rtol=1e-5)
    for name, value in queue.state_dict().items():
        torch.testing.assert_close(found["queue"][name], value)

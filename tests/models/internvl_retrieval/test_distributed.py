"""Two processes with half a batch each equal one process with the whole batch."""

import copy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

pytestmark = pytest.mark.distributed


@pytest.fixture(scope="module")
def found(shared_model, built, rows, tmp_path_factory):
    """Terms and gradients of both ranks, and the whole batch."""
    from hfvla.models.internvl_retrieval import FAMILY

    folder = tmp_path_factory.mktemp("two")
    shared_model.save_pretrained(folder)
    collator = FAMILY.load("collator")(built[1], shared_model.config, losses=tuple(FAMILY.losses))
    batch = collator([dict(rows[index]) for index in (0, 2, 4, 6, 1, 3, 5, 7)])  # buildings are in both halves
    save_file(batch, folder / "batch.safetensors")
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    worker = Path(__file__).with_name("two_processes.py")
    done = subprocess.run([*launch, str(worker), str(folder)], capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr[-4000:]
    return [load_file(folder / f"rank_{rank}.safetensors") for rank in (0, 1)], batch


def test_contrastive_loss_over_the_gathered_batch_equals_one_process(found, shared_model):
    (first, second), batch = found
    model = copy.deepcopy(shared_model).train()
    term = model(**{name: value for name, value in batch.items() if name != "negative_seeds"}).loss_terms["itc"]
    term.backward()
    torch.testing.assert_close(
        (first["itc term itc"] + second["itc term itc"]) / 2, term.detach(), atol=1e-6, rtol=1e-6
    )
    alone = model(**{name: value[:4] for name, value in batch.items()}).loss_terms["itc"]
    assert (alone - term).abs() > 1e-2  # half the batch is another loss: the halves were really gathered
    grads = [name for name in first if name.startswith("itc grad ")]
    assert len(grads) > 60
    own = dict(model.named_parameters())
    for name in grads:
        expected = own[name.removeprefix("itc grad module.")].grad
        torch.testing.assert_close(
            first[name], expected, atol=1e-5, rtol=1e-4, msg=lambda text, n=name: f"{n}: {text}"
        )
        assert torch.equal(first[name], second[name]), name


def test_all_terms_go_through_where_only_one_process_has_boxes(found):
    (first, second), _ = found
    assert first["all term bbox"] > 0 and second["all term bbox"] == 0 == second["all term spatial"]
    grads = [name for name in first if name.startswith("all grad ")]
    assert any("bbox_head" in name for name in grads)
    assert [name for name in grads if not torch.equal(first[name], second[name])] == []

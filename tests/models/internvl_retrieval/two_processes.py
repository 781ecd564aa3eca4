"""Runs a saved model on half a batch a process, under DDP, and saves what it finds.

`python -m torch.distributed.run --nproc_per_node 2 two_processes.py FOLDER`, with checkpoint and batch in FOLDER.
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from safetensors.torch import load_file, save_file
from torch.nn.parallel import DistributedDataParallel

from hfvla.models.internvl_retrieval.modeling_internvl_retrieval import InternVLForRetrieval


def step(model, batch, names):
    """Return the named terms and the gradients of their sum."""
    model.zero_grad()
    terms = model(**batch).loss_terms
    torch.stack([terms[name] for name in names]).sum().backward()
    grads = {f"grad {name}": value.grad.clone() for name, value in model.named_parameters() if value.grad is not None}
    return {**{f"term {name}": terms[name].detach() for name in names}, **grads}


def main(folder: Path) -> None:
    dist.init_process_group("gloo")
    rank, world = dist.get_rank(), dist.get_world_size()
    batch = {name: value.chunk(world)[rank] for name, value in load_file(folder / "batch.safetensors").items()}
    pairs = {name: value for name, value in batch.items() if not name.startswith("sentence_")}
    del pairs["negative_seeds"]

    model = InternVLForRetrieval.from_pretrained(folder).train()
    for name, value in model.named_parameters():
        contrastive = ("backbone.vision", "backbone.language", "image_adapter", "text_adapter", "log_temperature")
        value.requires_grad = name.startswith(contrastive)
    for (
        name,
        value,
    ) in model.named_parameters():  # the projector feeds the grid, which the contrastive loss does not see
        value.requires_grad &= "multi_modal_projector" not in name
    found = {f"itc {key}": value for key, value in step(DistributedDataParallel(model), pairs, ["itc"]).items()}

    # All terms, and only the first process has boxes: everything must still go through the same parameters.
    model = InternVLForRetrieval.from_pretrained(folder).train()
    model.config.negatives["gather"] = True
    if rank:
        batch["box_mask"] = torch.zeros_like(batch["box_mask"])
    terms = ["itc", "itm", "bbox", "spatial"]
    found |= {f"all {key}": value for key, value in step(DistributedDataParallel(model), batch, terms).items()}
    save_file(found, folder / f"rank_{rank}.safetensors")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

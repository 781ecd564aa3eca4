"""Goes backward through half of a family's batch on each of two processes, as an optimizer step would.

`python -m torch.distributed.run --nproc_per_node 2 -m tests.contract.counts_worker FOLDER`, with `<family>/` (a
checkpoint), `<family>-terms.json` and `<family>-<rank>.safetensors` (batches) in the folder.
"""

import json
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import Accelerator
from safetensors.torch import load_file, save_file

from hfvla.registry import load_checkpoint
from hfvla.training.trainer.term_counts import TermShares, term_counts


def backward(model, batches, names, accelerator):
    """Go backward through the loss of one step of this process, and return its terms, each times its share."""
    shares = TermShares(names, accelerator)
    shares.begin(model, batches)
    sums = dict.fromkeys(names, 0.0)
    for batch in batches:
        terms, share = model(**batch).loss_terms or {}, shares.of(term_counts(model, names, batch))
        parts = {name: share[name] * terms[name] for name in names if name in terms}
        if parts and any(part.requires_grad for part in parts.values()):
            torch.stack(list(parts.values())).sum().backward()
        for name, part in parts.items():
            sums[name] += float(part.detach())
    return sums


def moved(spec, model):
    """Take a model a step away from its objective's reference; a term that compares the two is zero before that."""
    if spec.plain:
        with torch.no_grad():
            for parameter in model.parameters():
                parameter *= 1.1
    return model


def load(folder: Path, family: str):
    """Return the model, ready to be asked for gradients without dropout; hard negatives are those of all processes."""
    spec, model, _ = load_checkpoint(folder / family)
    moved(spec, spec.give_objective(model.eval()))
    if hasattr(model.config, "negatives"):
        model.config.negatives["gather"] = True
    return model


def main(folder: Path) -> None:
    accelerator = Accelerator(cpu=True)
    world, rank = dist.get_world_size(), dist.get_rank()
    for path in sorted(folder.glob("*-terms.json")):
        family, names = path.name.removesuffix("-terms.json"), json.loads(path.read_text())
        model = load(folder, family)
        sums = backward(model, [load_file(folder / f"{family}-{rank}.safetensors")], names, accelerator)
        found = {f"term {name}": torch.tensor(value) for name, value in sums.items()}
        for name, parameter in model.named_parameters():
            found[name] = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
        for value in found.values():
            dist.all_reduce(value)
            value /= world
        if rank == 0:
            save_file({name: value.contiguous() for name, value in found.items()}, folder / f"{family}.found")
    accelerator.end_training()


if __name__ == "__main__":
    main(Path(sys.argv[1]))

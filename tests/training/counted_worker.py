"""Stages whose terms only some rows have, for one process or many.

As a script it trains and evaluates on the processes of the launch and saves what each rank ends with:
`python -m torch.distributed.run --nproc_per_node N counted_worker.py FOLDER`.
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from hfvla.errors import TrainingError

from .toy import CountedToy, build_model, build_trainer
from .toy import build_rows as toy_rows
from .two_terms import Pull, PullConfig, build_puller, build_rows

ODD = (0, 1, 2, 9, 20, 21, 22, 23, 30)
"""Rows of 32 that have "odd": 3 and 1 in the first two batches of 8, none in the first half of the third, ..."""

KINDS = ("fixed", "uncertainty", "gradnorm", "pcgrad")


class CountedPull(Pull):
    """Says over how many rows "odd" is a mean."""

    def term_counts(self, batch):
        return {"odd": batch["odd"].sum()}


def build_counted() -> CountedPull:
    torch.manual_seed(0)
    return CountedPull(PullConfig(dropout=0.0))


def train_counted(folder: Path, kind: str, batch: int, accumulation: int, losses=None, **args):
    args |= {"per_device_train_batch_size": batch, "gradient_accumulation_steps": accumulation, "max_steps": 4}
    args |= {"train_sampling_strategy": "sequential", "optim": "adamw_torch", "max_grad_norm": 0.0}
    trainer = build_puller(
        folder / kind,
        model=build_counted(),
        rows=build_rows(32, ODD),
        args=args,
        losses=losses or {"up": 1.0, "down": 0.5, "odd": 2.0},
        loss_weighting=kind,
        gradient_report={"every": 1, "groups": ["shared"]},
    )
    trainer.train()
    return trainer


def evaluate_toy(folder: Path, count: int) -> dict:
    """Evaluate `count` rows, two to a batch and process; `score` is the mean target that the metrics see."""
    trainer = build_trainer(
        folder,
        build_model(kind=CountedToy),
        losses={"fit": 1.0, "level": 1.0, "rare": 1.0},
        args={"per_device_eval_batch_size": 2},
        extra={
            "eval_dataset": toy_rows(count, rare=(0, count - 1)),
            "compute_metrics": lambda found: {"score": float(found.label_ids.mean()), "rows": len(found.label_ids)},
        },
    )
    found = trainer.evaluate()
    return {key: value for key, value in found.items() if not key.endswith(("runtime", "second", "time", "memory_gb"))}


def broken_rows(count: int, broken: tuple[int, ...]):
    rows = toy_rows(count).to_list()
    return [{**row, "value": float("nan")} if index in broken else row for index, row in enumerate(rows)]


def train_broken(folder: Path, batch: int, skip: int):
    """Train on 16 rows, of which row 5 has no value: 8 rows a step, so that the first step of two is broken."""
    args = {"per_device_train_batch_size": batch, "train_sampling_strategy": "sequential", "max_steps": 2}
    trainer = build_trainer(
        folder,
        rows=broken_rows(16, (5,)),
        losses={"fit": 1.0, "level": 1.0},
        args={**args, "ddp_find_unused_parameters": True, "optim": "adamw_torch"},
        skip_nonfinite=skip,
    )
    try:
        trainer.train()
    except TrainingError as error:
        return trainer, str(error)
    return trainer, ""


def main(folder: Path) -> None:
    facts, tensors = {}, {}
    for count in (7, 5, 1):
        found = evaluate_toy(folder / "evaluate", count)
        facts[f"evaluate {count}"] = found
    world = int(facts and torch.distributed.get_world_size())
    if world == 2:
        runs = {kind: train_counted(folder, kind, batch=4, accumulation=1) for kind in KINDS}
        # In the third step only the second process has an odd row, and nobody has anything else to train.
        runs["alone"] = train_counted(folder / "alone", "fixed", batch=4, accumulation=1, losses={"odd": 1.0})
        for name, trainer in runs.items():
            facts[name] = trainer.state.log_history
            tensors |= {f"{name} {key}": value.detach().clone() for key, value in trainer.model.named_parameters()}
        stopped, facts["stopped"] = train_broken(folder / "stopped", batch=4, skip=0)
        facts["stopped at"] = stopped.state.global_step
        skipped, _ = train_broken(folder / "skipped", batch=4, skip=1)
        tensors |= {f"skipped {key}": value.detach().clone() for key, value in skipped.model.named_parameters()}
    rank = torch.distributed.get_rank()
    (folder / f"facts-{rank}.json").write_text(json.dumps(facts))
    save_file({"none": torch.zeros(1), **tensors}, folder / f"weights-{rank}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Toy stages with random augmentation, dropout and batch statistics, and ways to stop them."""

import contextlib
import json
import sys
from pathlib import Path

import numpy as np
import torch

from hfvla.data.rows.epoch import EpochRows

try:
    from . import toy
except ImportError:  # started as a script, by a launcher
    sys.path.insert(0, str(Path(__file__).parent))
    import toy

STEPS_PER_EPOCH, EPOCHS = 5, 3
MEASURED = (
    "runtime",
    "per_second",
    "data_s",
    "memory_gb",
    "energy_kwh",
    "co2_kg",
)  # time and the like, which no two runs share


class PowerCut(BaseException):
    """Ends a process at once, as far as one process can do that to itself."""


def augmenting_collate(rows):
    """Stack rows; a training row gets noise of its own, and half of them are mirrored."""
    batch = toy.collate([{key: value for key, value in row.items() if key != "augmentation_seed"} for row in rows])
    for index, row in enumerate(rows):
        if "augmentation_seed" in row:
            generator = np.random.default_rng(row["augmentation_seed"])
            noise = torch.tensor(generator.normal(size=3), dtype=torch.float32)
            batch["features"][index] = batch["features"][index] * generator.choice([-1.0, 1.0]) + noise
    return batch


def build(folder, *, processes: int = 1, trainer=toy.StagedTrainer, args=None, stage=None, callbacks=None):
    """Build a trainer of three epochs of five steps on twenty augmented rows, evaluated on four."""
    settings = {"num_train_epochs": EPOCHS, "max_steps": -1, "per_device_train_batch_size": 4 // processes}
    settings |= {"eval_strategy": "epoch", "save_strategy": "epoch", "save_total_limit": 2, "learning_rate": 1e-2}
    settings |= {"logging_steps": 3, "seed": 5, "data_seed": 5, "metric_for_best_model": "eval_loss_fit"}
    settings |= {"load_best_model_at_end": True, "greater_is_better": False, "ddp_find_unused_parameters": True}
    settings |= {"per_device_eval_batch_size": 2, **(args or {})}
    return toy.build_trainer(
        folder,
        rows=EpochRows(toy.build_rows(20), seed=5),
        trainer=trainer,
        args=settings,
        extra={
            "data_collator": augmenting_collate,
            "eval_dataset": toy.build_rows(4),
            "callbacks": callbacks,
        },
        **{"train": ["body", "head"], "losses": {"fit": 1.0, "level": 0.1}, **(stage or {})},
    )


def weights(trainer) -> dict[str, torch.Tensor]:
    return {name: value.detach().clone() for name, value in trainer.model.state_dict().items()}


def same(first, second) -> bool:
    return set(first) == set(second) and all(torch.equal(first[name], second[name]) for name in first)


def history(trainer) -> list[dict]:
    """Return the log lines without the times in them."""
    return [{key: line[key] for key in line if not key.endswith(MEASURED)} for line in trainer.state.log_history]


def stop_at(monkeypatch, step: int, *, times: int = 1) -> None:
    """Let the process end at the beginning of optimizer step `step`, the first `times` times."""
    original, left = toy.StagedTrainer.training_step, [times]

    def training_step(trainer, *args, **kwargs):
        if trainer.state.global_step == step and left[0]:
            left[0] -= 1
            raise PowerCut
        return original(trainer, *args, **kwargs)

    monkeypatch.setattr(toy.StagedTrainer, "training_step", training_step)


def main(folder: str, processes: int, workers: int) -> None:
    """Train to the end, then stop a second run in the third epoch and a third at a save; write down how they end."""
    from _pytest.monkeypatch import MonkeyPatch

    args = {"dataloader_num_workers": workers, "save_strategy": "steps", "save_steps": 4, "eval_strategy": "steps"}
    args |= {"eval_steps": 4, "save_total_limit": 3, "logging_steps": 5, "load_best_model_at_end": False}
    whole = build(f"{folder}/whole", processes=processes, args=args)
    whole.train()
    assert whole.args.world_size == processes
    results = {}
    for name, step in {"third epoch": 13, "before a save": 3}.items():
        place = f"{folder}/{name.replace(' ', '-')}"
        with MonkeyPatch.context() as patch:
            stop_at(patch, step)
            with contextlib.suppress(PowerCut):
                build(place, processes=processes, args=args).train()
        again = build(place, processes=processes, args=args)
        found = again.find_checkpoint(clean=True)
        again.train(resume_from_checkpoint=found)
        results[name] = {
            "from": found and Path(found).name,
            "weights": same(weights(whole), weights(again)),
            "history": history(whole) == history(again),
        }
    rank = whole.args.process_index
    Path(folder, f"results-{rank}.json").write_text(json.dumps({"world": whole.args.world_size, **results}))


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))

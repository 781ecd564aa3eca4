"""What every way of balancing loss terms has: a place in the training step, log values, and a state in checkpoints."""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hfvla.errors import CheckpointError, DataError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import Trainer

__all__ = ["BALANCER_FILE", "Balancer"]

BALANCER_FILE = "balancer.safetensors"
"""The balancer's state in a Trainer checkpoint."""


class Balancer(ABC):
    """Decides what each loss term counts in a training step.

    Args:
        names: loss terms of the stage; the same on every process.
        accelerator: accelerate's `Accelerator`.
        seed: seed of the run.
    """

    kind: str
    needs_positive = True

    def __init__(self, names: Sequence[str], accelerator: Accelerator, seed: int = 0) -> None:
        self.names, self.accelerator, self.seed = tuple(names), accelerator, seed
        self._effective: dict[str, float] = {}

    @abstractmethod
    def combine(self, terms: Mapping[str, Tensor], weights: Mapping[str, float], shares: Mapping[str, Any]) -> Tensor:
        """Return the loss of a micro-batch; called for each one, also where it has no term.

        Args:
            terms: the terms that count, unweighted [] scalars by name; may be empty.
            weights: the recipe's weight by name.
            shares: by name, what the micro-batch counts in the mean over those of the optimizer step; see
                `TermShares`.
        """

    @abstractmethod
    def training_step(
        self, trainer: Trainer, model: nn.Module, inputs: dict[str, Any], plain: Callable[[], Tensor]
    ) -> Tensor:
        """Go forward and backward on a micro-batch; at the last one before the optimizer steps, finish the gradients.

        Args:
            trainer: the trainer.
            model: the wrapped model.
            inputs: the batch.
            plain: the Trainer's own training step.

        Returns:
            `Tensor`: [] loss over accumulation steps, detached.
        """

    def logs(self) -> dict[str, float]:
        """Return what each term counted in the last step, by term."""
        return dict(self._effective)

    def check(self, averages: Mapping[str, float]) -> None:
        """Refuse loss terms that this way of weighting cannot weigh.

        Args:
            averages: average by term since the last log line.

        Raises:
            DataError: a negative term, where weights are found from the size of the losses.
        """
        wrong = [name for name, value in averages.items() if value < 0]
        if self.needs_positive and wrong:
            raise DataError(
                f"loss_weighting: {self.kind} weighs losses by their size, and the term '{wrong[0]}' is negative",
                got=averages[wrong[0]],
                expected="terms that are 0 at best",
                fix="Use loss_weighting: pcgrad or fixed for these terms.",
            )

    def state(self) -> dict[str, Tensor]:
        """Return what a resumed run needs; empty where the step says all."""
        return {}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Go on from a state.

        Raises:
            ValueError: a state where there is none.
        """
        if state:
            raise ValueError(f"{self.kind} has no state; got {sorted(state)}")

    def save(self, folder: str | Path) -> None:
        """Write the state into a Trainer checkpoint; call it in one process."""
        from safetensors.torch import save_file

        if state := self.state():
            metadata = {"kind": self.kind, "terms": json.dumps(self.names)}
            contiguous = {name: value.detach().cpu().contiguous() for name, value in state.items()}
            save_file(contiguous, str(Path(folder) / BALANCER_FILE), metadata=metadata)

    def load(self, folder: str | Path) -> None:
        """Read the state from a Trainer checkpoint.

        Raises:
            CheckpointError: no state there, or one of another way of weighting or other terms.
        """
        from safetensors import safe_open

        path = Path(folder) / BALANCER_FILE
        if not self.state():
            return
        fix = "Undo the change of loss_weighting or losses, or begin the stage anew."
        if not path.is_file():
            raise CheckpointError(
                f"no state of loss_weighting: {self.kind} in this checkpoint", where=str(path), fix=fix
            )
        with safe_open(str(path), "pt") as file:
            metadata = file.metadata() or {}
            found = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a dict
        ours = (self.kind, list(self.names))
        theirs = (metadata.get("kind"), json.loads(metadata.get("terms", "[]")))
        if theirs != ours:
            raise CheckpointError(
                "state of another way of weighting losses", where=str(path), got=theirs, expected=ours, fix=fix
            )
        self.load_state(found)

    def _mean(self, values: Tensor) -> Tensor:
        """Average over processes; the same bits on all of them."""
        if self.accelerator.num_processes > 1:
            torch.distributed.all_reduce(values)
            values /= self.accelerator.num_processes
        return values

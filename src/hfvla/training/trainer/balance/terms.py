"""The gradient of each loss term by itself, kept over accumulation and processes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hfvla.errors import RecipeError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import Trainer

__all__ = ["TermGradients", "refuse_set_up"]


class TermGradients:
    """The gradient of each loss term by the same parameters, in float32, summed over micro-batches.

    Uses `torch.autograd.grad`: `parameter.grad` and the hooks of DDP and DeepSpeed see nothing of it.

    Shapes: T loss terms, N parameters, P scalars in them.

    Args:
        names: loss terms; the same on every process, even where a batch lacks some.
        parameters: leaves that require gradients; the same on every process.

    Attributes:
        rows (`Tensor`): [T, P].
        used (`Tensor`): [T, N] bool: the term reaches the parameter.
    """

    def __init__(self, names: Sequence[str], parameters: Iterable[nn.Parameter]) -> None:
        self.names, self.parameters = tuple(names), list(parameters)
        sizes = [parameter.numel() for parameter in self.parameters]
        self._ends = torch.tensor(sizes).cumsum(0).tolist()
        device = self.parameters[0].device
        self.rows = torch.zeros(len(self.names), sum(sizes), device=device)
        self.used = torch.zeros(len(self.names), len(sizes), dtype=torch.bool)

    def add(self, terms: Mapping[str, Tensor], *, scale: float = 1.0, scaler: Any = None, keep_graph: bool) -> None:
        """Add the gradients of one micro-batch.

        Args:
            terms: [] scalars by name; terms that are not followed are ignored.
            scale: factor of every gradient, e.g. 1 / accumulation steps.
            scaler: `GradScaler` of fp16 training; the rows are then scaled by it.
            keep_graph: True if something else goes backward through it afterwards.
        """
        present = [name for name in self.names if name in terms and terms[name].requires_grad]
        for number, name in enumerate(present):
            term = terms[name] if scaler is None else scaler.scale(terms[name])
            keep = keep_graph or number + 1 < len(present)
            found = torch.autograd.grad(term, self.parameters, retain_graph=keep, allow_unused=True)
            row = self.names.index(name)
            for index, gradient in enumerate(found):
                if gradient is not None:
                    self.used[row, index] = True
                    self.rows[row, self._columns(index)].add_(gradient.reshape(-1), alpha=scale)

    def average(self, accelerator: Accelerator) -> None:
        """Average over processes; every process must call it at the same time and then holds the same bits."""
        if accelerator.num_processes > 1:
            torch.distributed.all_reduce(self.rows)
            self.rows /= accelerator.num_processes
            used = self.used.to(self.rows.device, torch.int32)
            torch.distributed.all_reduce(used)
            self.used = (used > 0).cpu()

    def gram(self, only_shared: bool = False) -> Tensor:
        """Return the dot products of the gradients: [T, T] float64 on the CPU.

        Args:
            only_shared: leave out parameters that fewer than two terms reach.
        """
        count = len(self.names)
        products = torch.zeros(count, count, dtype=torch.float64, device=self.rows.device)
        for columns, shared in self._runs():
            if shared or not only_shared:
                for first in range(count):
                    for second in range(first, count):
                        product = torch.dot(self.rows[first, columns], self.rows[second, columns])
                        products[first, second] += product
                        if first != second:
                            products[second, first] += product
        return products.cpu()

    def shared(self) -> bool:
        """Tell whether any parameter is reached by two terms."""
        return bool((self.used.sum(0) > 1).any())

    def write(self, shared: Tensor, own: Tensor) -> None:
        """Set `parameter.grad` to a weighted sum of the rows; parameters that no term reaches keep None.

        Args:
            shared (`Tensor`): [T], factors at parameters that several terms reach.
            own (`Tensor`): [T], factors at parameters that one term reaches.
        """
        flat = torch.empty_like(self.rows[0])
        for columns, is_shared in self._runs():
            factors = (shared if is_shared else own).tolist()
            torch.mul(self.rows[0, columns], factors[0], out=flat[columns])
            for row, factor in zip(self.rows[1:, columns], factors[1:], strict=True):
                flat[columns].add_(row, alpha=factor)
        for index, parameter in enumerate(self.parameters):
            if bool(self.used[:, index].any()):
                parameter.grad = flat[self._columns(index)].view_as(parameter).to(parameter.dtype)

    def _columns(self, index: int) -> slice:
        return slice(self._ends[index - 1] if index else 0, self._ends[index])

    def _runs(self) -> list[tuple[slice, bool]]:
        """Columns of neighbouring parameters that are all shared or all not, and which of both."""
        runs: list[tuple[slice, bool]] = []
        for index, shared in enumerate((self.used.sum(0) > 1).tolist()):
            columns = self._columns(index)
            if runs and runs[-1][1] == shared:
                runs[-1] = (slice(runs[-1][0].start, columns.stop), shared)
            else:
                runs.append((columns, shared))
        return runs


def refuse_set_up(trainer: Trainer, what: str) -> None:
    """Refuse a set-up under which the gradient of one loss term cannot be had.

    Args:
        trainer: the trainer, with `args` and `accelerator`.
        what: what needs the gradients, first words of the error.

    Raises:
        RecipeError: such a set-up.
    """
    args, problem, fix = trainer.args, None, "Train it with DDP or on one device, or leave it out."
    if trainer.is_deepspeed_enabled:
        # Its engine takes every way backward through the model's outputs for the one that is to be averaged.
        problem = f"DeepSpeed ZeRO-{trainer.accelerator.state.deepspeed_plugin.zero_stage}"
    elif trainer.is_fsdp_enabled:
        problem = "FSDP"
    if args.n_gpu > 1:
        problem, fix = f"{args.n_gpu} GPUs in one process", "Start one process a GPU, with accelerate launch."
    elif args.torch_compile:
        problem, fix = "torch_compile", "Leave torch_compile out of this stage's args."
    elif args.gradient_checkpointing and (args.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
        problem, fix = "gradient checkpointing with use_reentrant: true", "Set use_reentrant to false."
    if problem:
        raise RecipeError(
            f"{what} needs the gradient of each loss term by itself, and this set-up has none",
            got=problem,
            fix=fix,
        )

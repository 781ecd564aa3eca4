"""A contrastive loss over a batch whose activations do not fit: encoded in chunks, twice, with the same gradients.

The first pass encodes the batch chunk by chunk without a graph and keeps the features. The loss on all of them gives
the gradient of each feature. The second pass encodes each chunk again, now with a graph, and carries those gradients
on to the weights. So memory holds the graph of one chunk; the price is one more forward pass.

Source: Gao et al. 2021, "Scaling Deep Contrastive Learning Batch Size under Memory Limited Setup", section 3.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hfvla.errors import DataError, RecipeError

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import Trainer

__all__ = ["GradCache", "average_gradients", "build_grad_cache"]

_BUCKET_ELEMENTS = 25_000_000


class GradCache:
    """Runs the forward and backward pass of a batch in chunks of rows.

    The model must take part: `model(**chunk, encode_only=True).features` is a dict of float tensors whose first
    dimension are rows, and `model(**batch, features=features)` computes its loss terms from them without encoding.
    What a row's features are must not depend on the other rows of its chunk.

    DDP's own averaging never runs, since it would run once a chunk: gradients are averaged here, once an optimizer
    step. Random draws of a chunk (torch's, on the CPU and the device) are the same in both passes.

    Args:
        rows (`int`): rows of a chunk.
        accelerator: of the trainer.
    """

    def __init__(self, rows: int, accelerator: Accelerator) -> None:
        self.rows, self.accelerator = rows, accelerator
        self._chunks: list[dict[str, Any]] = []
        self._random: list[tuple[Tensor, Tensor | None]] = []
        self._features: dict[str, Tensor] = {}

    def forward(self, model: nn.Module, inputs: Mapping[str, Any]) -> Any:
        """Return the model's output for the whole batch, computed from features that have no graph behind them.

        Args:
            model: wrapped or not.
            inputs: the batch; every tensor has its rows in the first dimension.

        Raises:
            DataError: a value that cannot be cut into rows.
        """
        module = self.accelerator.unwrap_model(model)
        self._chunks = _chunks(inputs, self.rows)
        self._random, parts = [], []
        with torch.no_grad():
            for chunk in self._chunks:
                self._random.append(self._random_state())
                parts.append(module(**chunk, encode_only=True).features)
        names = [name for name, value in parts[0].items() if value is not None]
        self._features = {name: torch.cat([part[name] for part in parts]).requires_grad_() for name in names}
        return module(**inputs, features=self._features)

    def training_step(self, trainer: Trainer, model: nn.Module, plain: Callable[[], Tensor]) -> Tensor:
        """Run a training step: `plain` goes backward to the features, and this the rest of the way.

        Args:
            trainer: its `compute_loss` calls `forward`.
            model: wrapped or not.
            plain: the Trainer's own step.
        """
        with self.accelerator.no_sync(model):
            loss = plain()
            module, now = self.accelerator.unwrap_model(model), self._random_state()
            gradients = {name: value.grad for name, value in self._features.items() if value.grad is not None}
            self._features = {}
            start = 0
            for chunk, state in zip(self._chunks, self._random, strict=True):
                self._set_random_state(state)
                with trainer.compute_loss_context_manager():
                    features = module(**chunk, encode_only=True).features
                reached = [name for name in gradients if features[name].requires_grad]
                stop = start + len(next(iter(features.values())))
                if reached:  # not where the batch had no loss term
                    torch.autograd.backward(
                        [features[name] for name in reached], [gradients[name][start:stop] for name in reached]
                    )
                start = stop
                del features
            self._set_random_state(now)
            self._chunks, self._random = [], []
        if self.accelerator.sync_gradients:
            average_gradients(self.accelerator.unwrap_model(model).parameters(), self.accelerator.num_processes)
        return loss

    def _random_state(self) -> tuple[Tensor, Tensor | None]:
        device = self.accelerator.device
        return torch.get_rng_state(), torch.cuda.get_rng_state(device) if device.type == "cuda" else None

    def _set_random_state(self, state: tuple[Tensor, Tensor | None]) -> None:
        torch.set_rng_state(state[0])
        if state[1] is not None:
            torch.cuda.set_rng_state(state[1], self.accelerator.device)


def _chunks(inputs: Mapping[str, Any], rows: int) -> list[dict[str, Any]]:
    """Cut a batch into chunks of rows.

    Raises:
        DataError: a value that is no tensor, or has another number of rows than the first.
    """
    total = next((len(value) for value in inputs.values() if isinstance(value, Tensor) and value.ndim), 0)
    for name, value in inputs.items():
        if value is not None and not (isinstance(value, Tensor) and value.ndim and len(value) == total):
            raise DataError(
                f"grad_cache cannot cut '{name}' of the batch into chunks",
                got=tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__,
                expected=f"a tensor whose first dimension are the {total} rows",
                fix="Let the collator give it a row for each sample, or leave grad_cache out.",
            )
    return [
        {name: value if value is None else value[start : start + rows] for name, value in inputs.items()}
        for start in range(0, total, rows)
    ]


def average_gradients(parameters: Iterable[nn.Parameter], processes: int) -> None:
    """Average gradients over processes; every process must call it at the same time.

    A parameter that has a gradient on some process has one on all afterwards; where it had none, that counts as 0.

    Args:
        parameters: the same on every process.
        processes: how many there are.
    """
    if processes == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        return
    present = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.int32)
    present = present.to(trained[0].device)
    torch.distributed.all_reduce(present, torch.distributed.ReduceOp.MAX)
    reached = [parameter for parameter, has in zip(trained, present.tolist(), strict=True) if has]
    for bucket in _buckets(reached):
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in bucket]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        torch.distributed.all_reduce(flat)
        flat /= processes
        for parameter, part in zip(bucket, flat.split([p.numel() for p in bucket]), strict=True):
            parameter.grad = part.view_as(parameter).clone()


def _buckets(parameters: Iterable[nn.Parameter]) -> Iterator[list[nn.Parameter]]:
    """Group neighbours of one dtype, 25 M elements or one parameter at a time."""
    bucket: list[nn.Parameter] = []
    for parameter in parameters:
        size = sum(p.numel() for p in bucket) + parameter.numel()
        if bucket and (bucket[0].dtype != parameter.dtype or size > _BUCKET_ELEMENTS):
            yield bucket
            bucket = []
        bucket.append(parameter)
    if bucket:
        yield bucket


def build_grad_cache(trainer: Trainer, stage: Any) -> GradCache | None:
    """Return what a stage's `grad_cache` asks for, or None.

    Args:
        trainer: its trainer, with `args`, `accelerator` and `model`.
        stage: the stage.

    Raises:
        RecipeError: a model that takes no part, or a set-up or another key of the stage under which it is not exact.
    """
    if stage.grad_cache is None:
        return None
    args, problem, fix = trainer.args, None, "Leave grad_cache out of this stage."
    taken = inspect.signature(type(trainer.accelerator.unwrap_model(trainer.model)).forward).parameters
    missing = [name for name in ("encode_only", "features") if name not in taken]
    if missing:
        problem = f"a model whose forward takes no {' and no '.join(missing)}"
    elif stage.loss_weighting in ("gradnorm", "pcgrad"):
        problem, fix = f"loss_weighting: {stage.loss_weighting}", "Use loss_weighting fixed or uncertainty."
    elif stage.gradient_report is not None:
        problem, fix = "gradient_report", "Leave one of both out."
    elif trainer.is_deepspeed_enabled or trainer.is_fsdp_enabled:
        problem = "DeepSpeed" if trainer.is_deepspeed_enabled else "FSDP"
        fix = "Train it with DDP or on one device."
    elif args.n_gpu > 1:
        problem, fix = f"{args.n_gpu} GPUs in one process", "Start one process a GPU, with accelerate launch."
    if problem:
        raise RecipeError(
            f"stage '{stage.name}': grad_cache cannot give the gradients of the whole batch here", got=problem, fix=fix
        )
    return GradCache(stage.grad_cache, trainer.accelerator)

"""What a GPU cannot do, told once and with what to change: several GPUs in one process, and too little memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from hfvla.errors import OutOfMemoryError, RecipeError

if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["one_gpu_a_process", "out_of_memory_told", "stage_out_of_memory_told"]

_GIB = 1 << 30


def one_gpu_a_process(gpus: int, where: str) -> None:
    """Refuse to train on several GPUs from one process.

    torch would copy the model to each GPU in every step (DataParallel), gather one loss a GPU and add them up: losses
    and their log would be wrong by the number of GPUs.

    Args:
        gpus: that this process would train on, `TrainingArguments.n_gpu`.
        where: named in the error, e.g. "stage 'align'".

    Raises:
        RecipeError: more than one.
    """
    if gpus > 1:
        raise RecipeError(
            "one process trains on one GPU",
            where=where,
            got=f"{gpus} GPUs and no launcher",
            fix=f"Start one process a GPU: accelerate launch --multi_gpu --num_processes {gpus} recipes/train.py "
            "RECIPE, or your script in its place. For one GPU, set CUDA_VISIBLE_DEVICES=0.",
        )


@contextmanager
def out_of_memory_told(where: Callable[[], str], fix: Callable[[], str]) -> Iterator[None]:
    """Turn a GPU's "out of memory" into an error that says where it happened and which keys need less.

    Args:
        where: tells what was going on.
        fix: tells what to change.

    Raises:
        OutOfMemoryError: in place of torch's.
    """
    try:
        yield
    except torch.OutOfMemoryError as error:
        got = f"{_memory()}{str(error).splitlines()[0] if str(error) else 'no more'}"
        raise OutOfMemoryError("the GPU is out of memory", where=where(), got=got, fix=fix()) from error


@contextmanager
def stage_out_of_memory_told(trainer: Trainer) -> Iterator[None]:
    """As `out_of_memory_told`, while a stage trains or evaluates.

    Args:
        trainer: a `StagedTrainer`.
    """

    def where() -> str:
        phase = f", phase {max(trainer._phase, 0)}" if trainer.stage.phases else ""
        doing = "training" if trainer.model.training else "evaluation"
        return f"stage '{trainer.stage.name}'{phase}, step {trainer.state.global_step + 1}, {doing}"

    with out_of_memory_told(where, lambda: " ".join(_remedies(trainer))):
        yield


def _memory() -> str:
    """Return the most that was allocated and what the GPU has, as the beginning of a sentence; empty without a GPU."""
    if not torch.cuda.is_available():
        return ""
    total = torch.cuda.get_device_properties(torch.cuda.current_device()).total_memory
    return f"a peak of {torch.cuda.max_memory_allocated() / _GIB:.1f} of {total / _GIB:.1f} GiB; "


def _remedies(trainer: Trainer) -> list[str]:
    """Return what to change, what costs least first."""
    args, stage = trainer.args, trainer.stage
    batch, accumulation = args.per_device_train_batch_size, args.gradient_accumulation_steps
    if not trainer.model.training:
        return [f"Lower args.per_device_eval_batch_size (now {args.per_device_eval_batch_size})."]
    found = []
    if not args.gradient_checkpointing and getattr(trainer.model, "supports_gradient_checkpointing", False):
        found.append("Set args.gradient_checkpointing: true.")
    if batch > 1:
        half, more = batch // 2, accumulation * 2
        found.append(
            f"Set args.per_device_train_batch_size: {half} and args.gradient_accumulation_steps: {more} (now {batch} "
            f"and {accumulation}): the same optimizer step."
        )
        if stage.grad_cache is None:
            found.append("A contrastive stage keeps its whole batch with grad_cache.")
    if not (args.bf16 or args.fp16):
        found.append("Set args.bf16: true.")
    if stage.lora is None:
        found.append("Train with lora, or fewer layers (language.last(n)).")
    found.append("Take smaller pictures or fewer of them (model.config), or cache what is frozen (cache: true).")
    return [*found, "hfvla plan RECIPE says what each stage needs, and what ZeRO and other GPUs would."]

"""What FSDP2 asks of a model: no parameter without dimensions, and layer classes that are there."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn
from transformers import TrainerState

from hfvla.errors import RecipeError
from hfvla.training.stage.phases import entry_phases

if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["joined_parts_only", "prepare_fsdp"]

logger = logging.getLogger(__name__)

_STATE = "trainer_state.json"


def prepare_fsdp(trainer: Trainer) -> None:
    """Ready a model for FSDP2, before it is wrapped; does nothing without FSDP2.

    The layers to split are the classes of `_no_split_modules` that the model has. A model of parts names those of
    every tower that it may have, and Accelerate refuses one that is absent.

    Args:
        trainer: its Accelerate plugin is changed.

    Raises:
        RecipeError: a parameter without dimensions, which PyTorch does not split.
    """
    plugin = getattr(trainer.accelerator.state, "fsdp_plugin", None)
    if plugin is None and os.environ.get("ACCELERATE_USE_FSDP", "").lower() == "true":
        logger.warning("Accelerate has no FSDP on this device: weights are not split, and processes train as with DDP")
    if plugin is None or plugin.fsdp_version != 2:
        return
    scalars = [name for name, parameter in trainer.model.named_parameters() if parameter.ndim == 0]
    if scalars:
        raise RecipeError(
            "FSDP2 cannot split a parameter without dimensions",
            where=f"stage '{trainer.stage.name}'",
            got=", ".join(scalars[:3]),
            fix="Start it with DDP or DeepSpeed: recipes/accelerate/ddp.yaml, zero2.yaml or zero3.yaml.",
        )
    if not plugin.transformer_cls_names_to_wrap:
        plugin.transformer_cls_names_to_wrap = _layer_classes(trainer.model)


def _layer_classes(model: nn.Module) -> list[str]:
    there = {type(module).__name__ for module in model.modules()}
    return sorted(there & set(getattr(model, "_no_split_modules", None) or ()))


@contextmanager
def joined_parts_only(trainer: Trainer, checkpoint: str | None) -> Iterator[None]:
    """Freeze what had not joined at a checkpoint while FSDP loads the optimizer's state, which it has none of there.

    Args:
        trainer: its `timeline` says when which part joins.
        checkpoint: that it goes on from.
    """
    waiting = []
    if checkpoint is not None and trainer.is_fsdp_enabled and trainer.timeline is not None:
        last = TrainerState.load_from_json(str(Path(checkpoint) / _STATE)).global_step - 1
        phase, phases = trainer.timeline.phase_at(max(last, 0)), entry_phases(trainer.stage)
        later = {name for name, entry in trainer.trained.items() if phases[entry] > phase}
        waiting = [value for name, value in trainer.model.named_parameters() if name in later]
    for parameter in waiting:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in waiting:
            parameter.requires_grad_(True)

"""Whatever trains is float32: weights, gradients and the optimizer's moments.

At a learning rate of 1e-5 most steps are smaller than the distance between neighbouring bfloat16 numbers, and lost;
Adam's second moment cannot decay in it at all. So the parts that a stage trains are cast when it begins, or DeepSpeed
keeps float32 copies of them, its master weights.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import torch

from hfvla.nn.mixed_precision import accept_mixed_types, cast_together

if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["engine_type", "train_in_float32"]

logger = logging.getLogger(__name__)


def engine_type(trainer: Trainer) -> torch.dtype | None:
    """Return the half type that DeepSpeed casts the model to, beside float32 master weights; else None."""
    if not trainer.is_deepspeed_enabled:
        return None
    config: Any = trainer.accelerator.state.deepspeed_plugin.hf_ds_config
    if config.is_true("bf16.enabled"):
        return torch.bfloat16
    return torch.float16 if config.is_true("fp16.enabled") else None


def train_in_float32(trainer: Trainer) -> None:
    """Cast what a stage ever trains to float32, and let the model run with parts of several types.

    Under DeepSpeed in half precision nothing is cast: the engine has master weights, and two copies would be one too
    many.
    """
    if engine_type(trainer) is not None:
        return
    model = trainer.model
    before = {name: parameter.dtype for name, parameter in model.named_parameters()}
    changed = cast_together(model, trainer.trained)
    if changed:
        logger.info(
            "stage '%s': %d tensors that train were %s and are float32 now",
            trainer.stage.name,
            len(changed),
            ", ".join(sorted({str(before[name]).removeprefix("torch.") for name in changed})),
        )
    accept_mixed_types(model)

"""What DeepSpeed's ZeRO needs from the engine: buffer sizes, and a clean optimizer state for a part that joins."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hfvla.errors import RecipeError
from hfvla.recipe.zero_checks import contradictions, read_zero_config

if TYPE_CHECKING:
    from torch.optim import Optimizer

__all__ = [
    "accept_scalars",
    "check_offload",
    "check_zero",
    "deepspeed_scope",
    "fill_bucket_sizes",
    "reset_joining_state",
]

_USED, _LAUNCHED = "ACCELERATE_USE_DEEPSPEED", "ACCELERATE_DEEPSPEED_CONFIG_FILE"

_BUCKET, _ALIGNED = 50_000_000, 1024
"""Elements of a reduction bucket (100 MB in bf16; larger messages gain little), and what it must be a multiple of."""


def check_zero(settings: Mapping[str, Any], where: str) -> None:
    """Refuse a DeepSpeed config, named in the recipe or to `accelerate launch`, that contradicts the recipe.

    Args:
        settings: TrainingArguments.
        where: named in errors, e.g. "stage 'align'".

    Raises:
        RecipeError: naming the first contradiction.
    """
    launched = os.environ.get(_LAUNCHED) if os.environ.get(_USED, "").lower() == "true" else None
    named = settings.get("deepspeed") or launched
    if not named or named == "none":
        return
    found = contradictions(read_zero_config(named), settings, int(os.environ.get("WORLD_SIZE", "1")))
    problem = next(found, None)
    if problem is not None:
        raise RecipeError(problem, where=f"{where}, {named}" if isinstance(named, str) else where)


@contextmanager
def deepspeed_scope() -> Iterator[None]:
    """Keep what DeepSpeed leaves behind to one stage.

    While a ZeRO-3 config is alive, transformers partitions every model it loads, also one that a single process
    loads to evaluate; and accelerate's switch would turn DeepSpeed on for later stages that do not ask for it.
    """
    before = os.environ.get(_USED)
    try:
        yield
    finally:
        if os.environ.get(_USED) is not None:
            from transformers.integrations.deepspeed import unset_hf_deepspeed_config

            unset_hf_deepspeed_config()
            os.environ.pop(_USED)
        if before is not None:
            os.environ[_USED] = before


def fill_bucket_sizes(config: dict[str, Any], model: nn.Module) -> None:
    """Fill the bucket sizes that a DeepSpeed config leaves "auto"; changes `config`.

    The Trainer would take the square of the model's hidden size, which fails for a config without that key and makes
    buckets of a few MB, too small to be worth a message, for backbones below 2 B parameters.

    Args:
        config: DeepSpeed config, as a dict.
        model: the model, before it is partitioned.
    """
    zero = config.get("zero_optimization", {})
    elements = min(_BUCKET, sum(parameter.numel() for parameter in model.parameters()))
    bucket = -(-elements // _ALIGNED) * _ALIGNED
    width = max((min(parameter.shape) for parameter in model.parameters() if parameter.dim() == 2), default=1)
    sizes = {
        "reduce_bucket_size": bucket,
        "allgather_bucket_size": bucket,
        "stage3_prefetch_bucket_size": bucket * 9 // 10,
        "stage3_param_persistence_threshold": 10 * width,
    }
    zero.update({key: size for key, size in sizes.items() if zero.get(key) == "auto"})


def accept_scalars() -> None:
    """Let DeepSpeed take models with 0-dimensional parameters, such as a temperature or CLIP's `logit_scale`.

    DeepSpeed 0.19 sends parameters between processes as bytes, and torch cannot view a scalar as bytes ("self.dim()
    cannot be 0 to view Float as Byte"): wrapping such a model fails, and under ZeRO-3 saving it too. From here on they
    are vectors of one element while they are sent. It can go when the three methods named here take scalars.
    """
    from deepspeed.runtime.engine import DeepSpeedEngine
    from deepspeed.runtime.zero.partition_parameters import GatheredParameters, Init

    if getattr(DeepSpeedEngine, "_accepts_scalars", False):
        return
    broadcast, partition, leave = DeepSpeedEngine._broadcast_model, Init._zero_init_param, GatheredParameters._exit

    def broadcast_all(engine: Any) -> None:
        scalars = _as_vectors(engine.module.parameters())
        broadcast(engine)
        for parameter in scalars:
            parameter.data = parameter.data.reshape(())

    def partition_one(init: Any, parameter: Any) -> None:
        shape = parameter.shape
        _as_vectors([parameter])
        partition(init, parameter)
        parameter.ds_shape = shape

    def leave_gathered(gathered: Any, *exception: Any) -> None:
        _as_vectors(gathered.params if gathered.enabled and gathered.src_rank is not None else ())
        leave(gathered, *exception)  # partitions again, so that only `ds_shape` remains

    DeepSpeedEngine._broadcast_model, Init._zero_init_param = broadcast_all, partition_one
    GatheredParameters._exit, DeepSpeedEngine._accepts_scalars = leave_gathered, True


def _as_vectors(parameters: Iterable[Any]) -> list[Any]:
    """Turn the scalars among parameters into vectors of one element, in place, and return them."""
    scalars = [parameter for parameter in parameters if parameter.dim() == 0]
    for parameter in scalars:
        parameter.data = parameter.data.reshape(1)
    return scalars


def check_offload(config: dict[str, Any], where: str) -> None:
    """Refuse phases that add parameters with optimizer state on NVMe: it cannot be reset at the boundary.

    Raises:
        RecipeError: `offload_optimizer.device` is "nvme".
    """
    offload = config.get("zero_optimization", {}).get("offload_optimizer") or {}
    if offload.get("device") == "nvme":
        raise RecipeError(
            "phases that add parameters need the optimizer state in memory",
            where=where,
            got="zero_optimization.offload_optimizer.device 'nvme'",
            expected="'cpu' or 'none'",
        )


def reset_joining_state(optimizer: Optimizer, phase: int) -> None:
    """Zero the optimizer state of the groups that join with `phase`.

    ZeRO steps a group's flat buffer from the first step on. With gradients of 0 the moments stay 0, but the step
    count runs, and Adam's bias correction would take the first real steps for late ones: far too short.
    Without ZeRO such a group has no state yet, and nothing happens.

    Args:
        optimizer: the trainer's optimizer, wrapped or not; its groups are tagged with "phase".
        phase: the phase that begins.
    """
    for base, group, parameter in _optimised(optimizer):
        if group.get("phase") != phase:
            continue
        if "step" in group:  # DeepSpeed's fused Adam also counts there
            group["step"] = 0
        state = base.state.get(parameter, {})
        for key, value in state.items():
            if isinstance(value, Tensor):
                with torch.no_grad():
                    value.zero_()
            elif key == "step":
                state[key] = 0


def _optimised(optimizer: Optimizer) -> Iterator[tuple[Any, dict[str, Any], Tensor]]:
    """Yield base optimizer, group and tensor of everything that is optimised, flat ZeRO partitions included."""
    wrapped = optimizer
    while hasattr(wrapped, "optimizer") and not hasattr(wrapped, "fp32_partitioned_groups_flat"):
        wrapped = wrapped.optimizer
    if not hasattr(wrapped, "fp32_partitioned_groups_flat"):
        for group in wrapped.param_groups:
            for parameter in group["params"]:
                yield wrapped, group, parameter
        return
    # In ZeRO-3 the groups of the base optimizer are empty between steps; the partitions lie beside them.
    bases = (wrapped.optimizer, getattr(wrapped, "backup_optimizer", None))
    for base in filter(None, bases):
        for index, partition in enumerate(wrapped.fp32_partitioned_groups_flat):
            yield base, base.param_groups[wrapped.sub_group_to_group_id[index]], partition

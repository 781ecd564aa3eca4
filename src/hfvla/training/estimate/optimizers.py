"""Bytes that an optimizer keeps for the parameters it trains, by the name that `args.optim` gives it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import Tensor

__all__ = ["OptimizerBytes", "optimizer_bytes"]

_SMALL_TENSOR = 4096  # bitsandbytes keeps the state of smaller tensors in 32 bits
_EIGHT_BIT_BLOCK = 256  # one float32 scale for so many values

# Moments an element, for optimizers whose state has the dtype of the parameter.
_MOMENTS = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_apex_fused", "adamw_hf"), 2),
    **dict.fromkeys(("adamw_anyprecision", "stable_adamw"), 2),
    **dict.fromkeys(("lion_32bit", "adagrad", "rmsprop"), 1),
    "sgd": 0,
}
# The same for bitsandbytes' eight-bit ones, and for those that keep 32 bits whatever the parameter's dtype.
_MOMENTS_8BIT = {"adamw_8bit": 2, "adamw_bnb_8bit": 2, "ademamix_8bit": 3, "lion_8bit": 1, "rmsprop_bnb_8bit": 1}
_MOMENTS_32BIT = {"adamw_bnb_32bit": 2, "ademamix": 3, "rmsprop_bnb": 1, "lion": 1}
_PAGED = {f"paged_{name}": name for name in (*_MOMENTS_8BIT, "ademamix", "lion")} | {
    "paged_adamw_32bit": "adamw_bnb_32bit",
    "paged_adamw_8bit": "adamw_8bit",
    "paged_lion_32bit": "lion",
}
_ONE_KERNEL = ("fused", "bnb", "8bit", "paged", "32bit")


@dataclass(frozen=True)
class OptimizerBytes:
    """What an optimizer needs.

    Attributes:
        state: bytes of its state.
        step: bytes that it needs for the moment of the step only.
        known: False where the name is not in the table, and AdamW's two moments were counted.
    """

    state: int
    step: int
    known: bool = True


def optimizer_bytes(optim: str, parameters: Iterable[Tensor]) -> OptimizerBytes:
    """Return what an optimizer needs for the parameters that train.

    Args:
        optim: name as in `TrainingArguments.optim`.
        parameters: the trained parameters; shapes and dtypes count, so the meta device will do.
    """
    parameters = list(parameters)
    name = _PAGED.get(optim, optim)
    own = sum(parameter.numel() * parameter.element_size() for parameter in parameters)
    # Updates that are not one kernel build a list of intermediate tensors as large as the parameters.
    step = 0 if any(part in optim for part in _ONE_KERNEL) else own
    if name == "adafactor":
        return OptimizerBytes(sum(_factored(parameter) for parameter in parameters), step)
    if name in _MOMENTS_8BIT:
        return OptimizerBytes(sum(_eight_bit(p.numel(), _MOMENTS_8BIT[name]) for p in parameters), 0)
    if name in _MOMENTS_32BIT:
        return OptimizerBytes(sum(4 * _MOMENTS_32BIT[name] * parameter.numel() for parameter in parameters), 0)
    return OptimizerBytes(_MOMENTS.get(name, 2) * own, 0 if name == "sgd" else step, name in _MOMENTS)


def _factored(parameter: Tensor) -> int:
    """Return bytes of Adafactor's second moment: one float32 a row and a column of each matrix."""
    if parameter.dim() < 2:
        return 4 * parameter.numel()
    rows, columns = parameter.numel() // parameter.shape[-1], parameter.numel() // parameter.shape[-2]
    return 4 * (rows + columns)


def _eight_bit(count: int, moments: int) -> int:
    if count < _SMALL_TENSOR:
        return 4 * moments * count
    return moments * (count + 4 * -(-count // _EIGHT_BIT_BLOCK))

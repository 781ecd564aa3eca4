"""Which numbers TrainingArguments can mean: transformers takes most of them without a look."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from hfvla.recipe.document import Problem, Steps
from hfvla.recipe.words import shown

__all__ = ["range_problems"]

_MILLION, _INT32, _LARGE = 1_000_000, 2**31 - 1, 1e15

_FROM_TO: dict[str, tuple[float, float]] = {
    "per_device_train_batch_size": (1, _MILLION),
    "per_device_eval_batch_size": (1, _MILLION),
    "gradient_accumulation_steps": (1, _MILLION),
    "eval_accumulation_steps": (1, _MILLION),
    "dataloader_num_workers": (0, 1024),
    "dataloader_prefetch_factor": (1, 10_000),
    "save_total_limit": (1, _MILLION),
    "torch_empty_cache_steps": (1, _INT32),
    "ddp_timeout": (1, _INT32),
    "ddp_bucket_cap_mb": (1, _MILLION),
    "learning_rate": (0, _LARGE),
    "warmup_steps": (0, _INT32),
    "weight_decay": (0, _LARGE),
    "max_grad_norm": (0, _LARGE),
    "eval_delay": (0, _INT32),
    "neftune_noise_alpha": (0, _LARGE),
}
"""Least and greatest value, both allowed."""

_BELOW_ONE = ("adam_beta1", "adam_beta2")
_POSITIVE: dict[str, str] = {
    "num_train_epochs": "a stage without an epoch trains nothing; take the stage out",
    "adam_epsilon": "with 0 a gradient of 0 gives NaN",
}
_STEPS = ("logging_steps", "eval_steps", "save_steps")


def range_problems(key: str, value: Any, steps: Steps) -> Iterator[Problem]:
    """Yield what is wrong about a number.

    Args:
        key: name of the argument.
        value: of the right type.
        steps: where it stands.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        return
    if not math.isfinite(value):
        yield Problem(steps, f"expected a finite number; got {shown(value)}")
    elif key in _FROM_TO:
        least, most = _FROM_TO[key]
        if not least <= value <= most:
            expected = f">= {least:g}" if value < least else f"<= {most:,.0f}"
            yield Problem(steps, f"expected a finite number {expected}; got {shown(value)}")
    elif key in _BELOW_ONE and not 0 <= value < 1:
        yield Problem(steps, f"expected a number >= 0 and < 1; got {shown(value)}")
    elif key in _POSITIVE and not 0 < value <= _INT32:
        why = f": {_POSITIVE[key]}" if value == 0 else ""
        yield Problem(steps, f"expected a number > 0; got {shown(value)}{why}")
    elif key == "max_steps" and value != -1 and not 1 <= value <= _INT32:
        why = ": a stage without a step trains nothing; take the stage out" if value == 0 else ""
        yield Problem(steps, f"expected a whole number > 0, or -1 for epochs; got {shown(value)}{why}")
    elif key in _STEPS and not (0 < value < 1 or (value == int(value) and 1 <= value <= _INT32)):
        yield Problem(steps, f"expected a share of all steps (> 0, < 1) or a whole number >= 1; got {shown(value)}")
    elif isinstance(value, int) and abs(value) > _INT32:
        yield Problem(steps, f"expected a number of at most {_INT32:,}; got {shown(value)}")

"""What a recipe must agree on about batches of groups and about chunks of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hfvla.recipe.document import Problem

__all__ = ["batch_problems"]


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def batch_problems(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong about `batches` and `grad_cache` in a recipe.

    Args:
        tree: mappings, lists and scalars, as read from YAML.
    """
    stages = tree.get("stages")
    for index, entry in enumerate(stages if isinstance(stages, list) else []):
        stage, base = _mapping(entry), ("stages", index)
        args = {**_mapping(tree.get("args")), **_mapping(stage.get("args"))}
        order = args.get("train_sampling_strategy", "random")
        if stage.get("batches") is not None and order != "random":
            text = f"`batches` orders the rows itself; args.train_sampling_strategy cannot be '{order}' as well"
            yield Problem((*base, "batches"), text)
        if stage.get("grad_cache") is None:
            continue
        steps = (*base, "grad_cache")
        engine = next((key for key in ("deepspeed", "fsdp", "torch_compile") if args.get(key)), None)
        if engine:
            yield Problem(steps, f"it needs DDP or one device; the stage trains under args.{engine}")
        if stage.get("loss_weighting") in ("gradnorm", "pcgrad"):
            text = f"'{stage['loss_weighting']}' needs the way backward of each loss term, which ends at the chunks"
            yield Problem(steps, f"{text}; use 'fixed' or 'uncertainty'")
        if stage.get("gradient_report") is not None:
            yield Problem(steps, "gradient_report needs the way backward of each loss term, which ends at the chunks")

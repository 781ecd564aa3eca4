"""What a recipe must agree on about batches of groups, packed sequences and chunks of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from hfvla.recipe.document import Problem, Steps, as_mapping

__all__ = ["batch_problems"]


def batch_problems(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield what is wrong about `batches`, `packing` and `grad_cache` in a recipe.

    Args:
        tree: mappings, lists and scalars, as read from YAML.
    """
    stages = tree.get("stages")
    for index, entry in enumerate(stages if isinstance(stages, list) else []):
        stage, base = as_mapping(entry), ("stages", index)
        args = {**as_mapping(tree.get("args")), **as_mapping(stage.get("args"))}
        order = args.get("train_sampling_strategy", "random")
        if stage.get("batches") is not None and order != "random":
            text = f"`batches` orders the rows itself; args.train_sampling_strategy cannot be '{order}' as well"
            yield Problem((*base, "batches"), text)
        yield from _packing_problems(stage, order, base)
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


def _packing_problems(stage: Mapping[str, Any], order: Any, base: Steps) -> Iterator[Problem]:
    """Yield what else a stage asks for that packed sequences leave no room for."""
    if stage.get("packing") is None:
        return
    steps = (*base, "packing")
    if stage.get("too_long") == "leave_out":
        yield Problem((*base, "too_long"), "packed sequences have a length of their own; say packing.too_long")
    if order == "group_by_length":
        yield Problem(steps, "packed sequences are nearly of one length; take args.train_sampling_strategy out")
    clashes = {
        "batches": "it orders rows by group, and packing by length",
        "grad_cache": "it cuts a batch into rows, and a packed row holds several samples",
    }
    for key, reason in clashes.items():
        if stage.get(key) is not None and stage.get(key) is not False:
            yield Problem(steps, f"does not go with `{key}`: {reason}")

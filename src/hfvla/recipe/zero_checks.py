"""What a DeepSpeed config must leave to the recipe: batch sizes, clipping, precision, optimizer and schedule."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hfvla.errors import RecipeError
from hfvla.paths import expand_user
from hfvla.recipe.document import Problem, Steps

__all__ = ["contradictions", "read_zero_config", "zero_problems"]

_SHARED: Mapping[str, tuple[str, Any, Any]] = {
    "train_micro_batch_size_per_gpu": ("per_device_train_batch_size", 8, None),
    "gradient_accumulation_steps": ("gradient_accumulation_steps", 1, 1),
    "gradient_clipping": ("max_grad_norm", 1.0, 0.0),
    "bf16.enabled": ("bf16", False, None),
    "fp16.enabled": ("fp16", False, None),
}
"""DeepSpeed key: TrainingArguments key, its default, and what DeepSpeed takes where the key is absent (None: asks)."""

_ABSENT = object()


def read_zero_config(config: Any) -> dict[str, Any]:
    """Return a DeepSpeed config as a dict.

    Args:
        config: a dict, or the path of a JSON file.

    Raises:
        RecipeError: no such file, or not a JSON object.
    """
    if isinstance(config, dict):
        return config
    path = Path(expand_user(str(config)))
    if not path.is_file():
        raise RecipeError(
            "no such DeepSpeed config",
            got=str(path),
            fix="hfvla ships recipes/deepspeed/zero1.json, zero2.json and zero3.json.",
        )
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise RecipeError(f"{path}: not JSON: {error}") from error
    if not isinstance(found, dict):
        raise RecipeError(f"{path}: not a DeepSpeed config", got=type(found).__name__, expected="a JSON object")
    return found


def zero_problems(tree: Mapping[str, Any]) -> Iterator[Problem]:
    """Yield where a DeepSpeed config named in a recipe's `args` contradicts the recipe, each place once.

    Args:
        tree: mappings, lists and scalars, as read from YAML.
    """
    shared = tree.get("args") if isinstance(tree.get("args"), dict) else {}
    stages = tree.get("stages") if isinstance(tree.get("stages"), list) else []
    seen: set[tuple[Steps, str]] = set()
    for index, stage in enumerate(stages or ()):
        own = stage.get("args") if isinstance(stage, dict) and isinstance(stage.get("args"), dict) else {}
        args = {**(shared or {}), **(own or {})}
        if not isinstance(args.get("deepspeed"), str | dict) or not args["deepspeed"]:
            continue
        steps: Steps = ("stages", index, "args", "deepspeed") if "deepspeed" in (own or {}) else ("args", "deepspeed")
        try:
            found = list(contradictions(read_zero_config(args["deepspeed"]), args))
        except RecipeError as error:
            found = [str(error)]
        for text in found:
            if (steps, text) not in seen:
                seen.add((steps, text))
                yield Problem(steps, text)


def contradictions(config: Mapping[str, Any], args: Mapping[str, Any], processes: int | None = None) -> Iterator[str]:
    """Yield in words where a DeepSpeed config says something else than the recipe.

    Args:
        config: DeepSpeed config.
        args: TrainingArguments of a stage, as far as they are set.
        processes: number of processes, where it is known.
    """
    for key, (argument, default, silent) in _SHARED.items():
        found, wanted = _get(config, key), args.get(argument, default)
        if found == "auto" or (found is _ABSENT and silent is None):
            continue
        if (silent if found is _ABSENT else found) != wanted:
            said = "is absent" if found is _ABSENT else f"is {_text(found)}"
            yield f'the DeepSpeed config\'s {key} {said}, and args.{argument} is {_text(wanted)}; write "auto" there'
    yield from _batch_contradiction(config, args, processes)
    for section, whose in (
        ("optimizer", "args.optim, learning_rate and the stage's learning_rates"),
        ("scheduler", "args.lr_scheduler_type and warmup_steps"),
    ):
        if section in config:
            yield f"the DeepSpeed config has a section '{section}', which would replace {whose}; take it out"
    if _get(config, "zero_optimization.stage") == 3 and not _gathers(config):
        key = "zero_optimization.stage3_gather_16bit_weights_on_model_save"
        yield f"without {key} true in the DeepSpeed config, checkpoints would hold no weights that load; set it"


def _batch_contradiction(config: Mapping[str, Any], args: Mapping[str, Any], processes: int | None) -> Iterator[str]:
    found = config.get("train_batch_size", "auto")
    if found == "auto":
        return
    sizes = [args.get("per_device_train_batch_size", 8), args.get("gradient_accumulation_steps", 1)]
    if not all(isinstance(size, int) and size > 0 for size in sizes):
        return  # another check names it
    device = sizes[0] * sizes[1]
    wrong = found != device * processes if processes else not isinstance(found, int) or found % device != 0
    if wrong:
        whole = f"{device} x {processes} processes" if processes else f"{device} x the number of processes"
        yield f"the DeepSpeed config's train_batch_size is {_text(found)}, and the recipe's is {whole}; write \"auto\""


def _get(config: Mapping[str, Any], key: str) -> Any:
    value: Any = config
    for part in key.split("."):
        if not isinstance(value, Mapping) or part not in value:
            return _ABSENT
        value = value[part]
    return value


def _gathers(config: Mapping[str, Any]) -> bool:
    return _get(config, "zero_optimization.stage3_gather_16bit_weights_on_model_save") is True


def _text(value: Any) -> str:
    return {True: "true", False: "false"}[value] if isinstance(value, bool) else repr(value)

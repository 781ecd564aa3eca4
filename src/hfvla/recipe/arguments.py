"""Checks of `args`: keys and values of `transformers.TrainingArguments`."""

from __future__ import annotations

import dataclasses
import functools
import math
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from hfvla.errors import did_you_mean
from hfvla.recipe.document import Problem, Steps
from hfvla.recipe.words import plain_problems

__all__ = ["ENGINE_ARGUMENTS", "argument_problems", "strategy_problems"]

ENGINE_ARGUMENTS: Mapping[str, str] = {
    "output_dir": "each stage has its own folder; set `output_dir` at the top of the recipe, or --output",
    "do_train": "a stage always trains",
    "do_eval": "validation follows from `data.validation` and `keep_best`",
    "do_predict": "the final model is scored on the sets of `data.eval`",
    "remove_unused_columns": "the family's collator picks the columns",
    "load_best_model_at_end": "set by `keep_best` of the stage",
    "metric_for_best_model": "set by `keep_best` of the stage",
    "greater_is_better": "follows from the metric in `keep_best`",
    "label_names": "the family names its labels",
    "seed": "one seed for all; set `seed` at the top of the recipe",
    "data_seed": "one seed for all; set `seed` at the top of the recipe",
    "resume_from_checkpoint": "a run resumes from its own folder; run the same command again",
    "optim_target_modules": "a stage's optimizer gets what `train` names",
    "label_smoothing_factor": "the trainer's own loss is not used; smoothing belongs to the family's config",
}
"""TrainingArguments that the engine sets itself, and what a recipe says instead."""

_RENAMED = {
    "evaluation_strategy": "transformers 5 calls it 'eval_strategy'",
    "warmup_ratio": "transformers 5 takes the share as 'warmup_steps: 0.1'",
    "no_cuda": "transformers 5 calls it 'use_cpu'",
    "save_safetensors": "checkpoints are always safetensors",
    "overwrite_output_dir": "use --overwrite on the command line",
    "logging_dir": "logs go to the run folder",
    "group_by_length": "transformers 5 calls it 'train_sampling_strategy: group_by_length'",
    "batch_size": "say 'per_device_train_batch_size'",
    "epochs": "say 'num_train_epochs'",
    "lr": "say 'learning_rate'",
}

_INEXACT = {
    "dataloader_persistent_workers": "workers that outlive an epoch would augment the next one with the old seeds",
    "ignore_data_skip": "a resumed epoch would see rows again that it has seen",
}
"""Switches under which a resumed run would not equal an uninterrupted one."""

_CHOOSES_PARAMETERS = ("galore", "apollo", "lomo", "adalomo")
"""How the names of optimizers begin that take parameters by themselves, whatever a stage trains and when."""

_AT_LEAST = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "dataloader_num_workers": 0,
    "learning_rate": 0,
    "num_train_epochs": 0,
    "warmup_steps": 0,
    "weight_decay": 0,
    "max_grad_norm": 0,
}


@functools.cache
def _argument_types() -> dict[str, Any]:
    """Return type by TrainingArguments field; imports transformers (seconds)."""
    from transformers import TrainingArguments

    hints = typing.get_type_hints(TrainingArguments)
    return {f.name: hints[f.name] for f in dataclasses.fields(TrainingArguments) if f.init}


def argument_problems(args: Mapping[str, Any], base: Steps) -> Iterator[Problem]:
    """Yield what is wrong with one `args` mapping.

    Args:
        args: as written in the recipe.
        base: where it stands, e.g. ("stages", 0, "args").
    """
    if not args:
        return
    known = _argument_types()
    for key, value in args.items():
        steps = (*base, key)
        if key in ENGINE_ARGUMENTS:
            yield Problem(steps, f"'{key}' is set by the engine: {ENGINE_ARGUMENTS[key]}")
        elif key not in known:
            usable = [name for name in known if name not in ENGINE_ARGUMENTS]
            hint = f"{_RENAMED[key]}." if key in _RENAMED else _nearest(key, usable)
            yield Problem(steps, f"TrainingArguments has no '{key}'. {hint}")
        else:
            yield from _value_problems(value, known[key], steps)
            if key == "optim" and str(value).startswith(_CHOOSES_PARAMETERS):
                problem = (
                    f"'{value}' chooses its parameters itself, and a stage has its own: by entry, phase and decay"
                )
                yield Problem(steps, f"{problem}. Take adamw_torch, adamw_8bit, adafactor or another.")
            if key in _INEXACT and value is True:
                yield Problem(steps, f"'{key}' must stay false: {_INEXACT[key]}")
            minimum = _AT_LEAST.get(key)
            if minimum is not None and isinstance(value, int | float) and not minimum <= value < math.inf:
                yield Problem(steps, f"expected a finite number >= {minimum}; got {value!r}")


def _nearest(key: str, known: list[str]) -> str:
    hint = did_you_mean(key, known)
    return hint if hint.startswith("Did") else "See the documentation of transformers.TrainingArguments."


def _value_problems(value: Any, hint: Any, steps: Steps) -> Iterator[Problem]:
    choices = [part for part in typing.get_args(hint) if isinstance(part, type) and issubclass(part, Enum)]
    if choices:
        allowed = [str(member.value) for member in choices[0]]
        if value not in allowed:
            yield Problem(steps, f"no such choice; got {value!r}. {did_you_mean(str(value), allowed)}")
        return
    adapter = _adapter(hint)
    if adapter is None:
        return
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        # Inside a value (a nested dict) the place of the argument is precise enough.
        yield from plain_problems(error, hint, steps)


def _adapter(hint: Any) -> TypeAdapter | None:
    """Return a checker of a field's type, or None for types that only Python code can build."""
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=False))
    except PydanticSchemaGenerationError:
        return None


def strategy_problems(args: Mapping[str, Any], stage: Mapping[str, Any], base: Steps) -> Iterator[Problem]:
    """Yield clashes between a stage's merged `args` and its `keep_best`, which must save what it has evaluated.

    Args:
        args: the recipe's `args` with the stage's on top.
        stage: the stage as written.
        base: where the stage stands.
    """
    if not stage.get("keep_best"):
        return
    own = stage["args"] if isinstance(stage.get("args"), dict) else {}

    def place(key: str) -> Steps:
        return (*base, "args", key) if key in own else ("args", key)

    evaluate, save = args.get("eval_strategy"), args.get("save_strategy")
    for key, value in (("eval_strategy", evaluate), ("save_strategy", save)):
        if value == "no":
            yield Problem(place(key), f"keep_best needs evaluations and saves; got {key} 'no'")
    if save != "best" and None not in (evaluate, save) and "no" not in (evaluate, save) and evaluate != save:
        yield Problem(
            place("save_strategy"),
            f"keep_best needs the same eval_strategy and save_strategy; got '{evaluate}' and '{save}'",
        )
    evaluate_steps, save_steps = args.get("eval_steps"), args.get("save_steps")
    both = evaluate == save == "steps" and isinstance(evaluate_steps, int) and isinstance(save_steps, int)
    if both and evaluate_steps and save_steps % evaluate_steps:
        yield Problem(
            place("save_steps"),
            f"keep_best needs save_steps to be a multiple of eval_steps; got {save_steps} and {evaluate_steps}",
        )

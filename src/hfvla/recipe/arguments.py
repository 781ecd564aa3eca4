"""Checks of `args`: keys and values of `transformers.TrainingArguments`."""

from __future__ import annotations

import dataclasses
import functools
import typing
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from pydantic import ConfigDict, PydanticSchemaGenerationError, TypeAdapter, ValidationError

from hfvla.errors import did_you_mean
from hfvla.recipe.argument_ranges import range_problems
from hfvla.recipe.document import Problem, Steps
from hfvla.recipe.other_names import ARGUMENT_NAMES, meant_value
from hfvla.recipe.words import plain_problems, shown

__all__ = ["ENGINE_ARGUMENTS", "argument_problems"]

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
    "push_to_hub": "the Trainer would push each checkpoint of each stage, without card, heads and scores; say "
    "`hub: {repo: user/name}` at the top of the recipe, which pushes the result once",
    "hub_model_id": "say `hub: {repo: user/name}` at the top of the recipe",
    "hub_strategy": "the result is pushed once, after the final evaluation: `hub: {repo: user/name}`",
    "hub_token": "a token does not belong in a recipe; run `hf auth login`, or set HF_TOKEN",
    "hub_private_repo": "say `hub: {repo: user/name, private: true}` at the top of the recipe",
    "hub_always_push": "the result is pushed once, after the final evaluation: `hub: {repo: user/name}`",
    "hub_revision": "say `hub: {repo: user/name}` at the top of the recipe",
    "label_smoothing_factor": "the trainer's own loss is not used; smoothing belongs to the family's config",
}
"""TrainingArguments that the engine sets itself, and what a recipe says instead."""

_INEXACT = {
    "dataloader_persistent_workers": "workers that outlive an epoch would augment the next one with the old seeds",
    "ignore_data_skip": "a resumed epoch would see rows again that it has seen",
}
"""Switches under which a resumed run would not equal an uninterrupted one."""

_CHOOSES_PARAMETERS = ("galore", "apollo", "lomo", "adalomo")
"""How the names of optimizers begin that take parameters by themselves, whatever a stage trains and when."""

_CHOICES: dict[str, tuple[Any, ...]] = {
    "train_sampling_strategy": ("random", "sequential", "group_by_length"),
    "log_level": ("debug", "info", "warning", "error", "critical", "passive"),
    "log_level_replica": ("debug", "info", "warning", "error", "critical", "passive"),
    "dataloader_multiprocessing_context": ("fork", "spawn", "forkserver"),
    "ddp_backend": ("nccl", "gloo", "mpi", "ccl", "hccl", "cncl", "mccl"),
    "include_num_input_tokens_seen": ("all", "non_padding", "no", True, False),
    "debug": ("", "underflow_overflow", "tpu_metrics_debug"),
}
"""Values of arguments whose type says no more than text."""


_CHECKPOINTING = ("gradient_checkpointing_kwargs", "activation_checkpointing_kwargs")
_CHECKPOINTING_KEYS = ("use_reentrant", "preserve_rng_state", "determinism_check", "debug", "early_stop")
_PYTHON_ONLY = ("parallelism_config",)


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
            hint = f"{ARGUMENT_NAMES[key]}." if key in ARGUMENT_NAMES else _nearest(key, usable)
            yield Problem(steps, f"TrainingArguments has no '{key}'. {hint}")
        else:
            found = list(_value_problems(key, value, known[key], steps))
            yield from found or range_problems(key, value, steps)
            yield from () if found else _name_problems(key, value, steps)
            if key == "optim" and str(value).startswith(_CHOOSES_PARAMETERS):
                problem = (
                    f"'{value}' chooses its parameters itself, and a stage has its own: by entry, phase and decay"
                )
                yield Problem(steps, f"{problem}. Take adamw_torch, adamw_8bit, adafactor or another.")
            if key in _INEXACT and value is True:
                yield Problem(steps, f"'{key}' must stay false: {_INEXACT[key]}")


def _name_problems(key: str, value: Any, steps: Steps) -> Iterator[Problem]:
    """Yield names inside a value that transformers looks up when training begins, or hands on."""
    if key == "report_to":
        names, known = [value] if isinstance(value, str) else value or [], ["all", "none", *_trackers()]
    elif key in _CHECKPOINTING and isinstance(value, Mapping):
        names, known = list(value), list(_CHECKPOINTING_KEYS)
    else:
        return
    for name in names:
        if name not in known:
            yield Problem(steps, f"no '{name}' here. {did_you_mean(str(name)[:60], known)}")


@functools.cache
def _trackers() -> list[str]:
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    return list(INTEGRATION_TO_CALLBACK)


def _nearest(key: str, known: list[str]) -> str:
    hint = did_you_mean(key, known)
    return hint if hint.startswith("Did") else "See the documentation of transformers.TrainingArguments."


def _value_problems(key: str, value: Any, hint: Any, steps: Steps) -> Iterator[Problem]:
    choices = [part for part in typing.get_args(hint) if isinstance(part, type) and issubclass(part, Enum)]
    allowed = [str(member.value) for member in choices[0]] if choices and key != "debug" else _CHOICES.get(key)
    if allowed and value is not None:
        if value not in allowed or (value in (0, 1) and not isinstance(value, bool)):
            names = [str(choice).lower() if isinstance(choice, bool) else choice for choice in allowed]
            yield Problem(steps, f"no such choice; got {shown(value)}. {meant_value(key, str(value), names)}")
        return
    adapter = None if key in _PYTHON_ONLY else _adapter(key)
    if adapter is None:
        yield Problem(steps, f"only Python code can set it; got {shown(value)}")
        return
    try:
        adapter.validate_python(value, strict=True)
    except ValidationError as error:
        # Inside a value (a nested dict) the place of the argument is precise enough.
        yield from plain_problems(error, hint, steps)


@functools.cache
def _adapter(key: str) -> TypeAdapter | None:
    """Return a checker of a field's type, or None for types that only Python code can build."""
    try:
        return TypeAdapter(_argument_types()[key], config=ConfigDict(arbitrary_types_allowed=False))
    except PydanticSchemaGenerationError:
        return None

"""What a script passes to `StagedTrainer`, looked at before anything is built: one error for each wrong use."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn
from transformers import Trainer, TrainingArguments

from hfvla.errors import DataError, RecipeError, TrainingError, did_you_mean
from hfvla.family import ParameterGroup
from hfvla.recipe import Recipe, Stage

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["check_given", "check_reach", "checked_metrics"]

_WHERE = "StagedTrainer"
_RENAMED = {"tokenizer": "processing_class", "feature_extractor": "processing_class"}
"""Arguments of transformers 4's `Trainer`, by what they are called now."""
_FUNCTIONS = {
    "data_collator": "It takes a list of rows and returns a batch; leave it out for rows of tensors of one shape.",
    "compute_metrics": "It takes an EvalPrediction and returns {name: number}.",
}


def check_given(model: PreTrainedModel, args: Any, stage: Any, groups: Any, others: Mapping[str, Any]) -> None:
    """Refuse what is no model, stage, groups, arguments or data.

    Args:
        model: as passed; a `torch.nn.Module`.
        args: as passed; `TrainingArguments`, or None.
        stage: as passed; a `Stage`.
        groups: as passed; `ParameterGroup` by name.
        others: the other arguments, which are `Trainer`'s.

    Raises:
        RecipeError: naming the argument, what it got and what to write in its place.
        DataError: the training data has no row.
    """
    _check_stage(stage)
    _check_model(model, others)
    _check_groups(groups)
    if isinstance(args, Mapping):
        raise _wrong("args", args, "TrainingArguments", "Write TrainingArguments(**args).")
    if args is not None and not isinstance(args, TrainingArguments):
        raise _wrong("args", args, "TrainingArguments")
    known = list(inspect.signature(Trainer.__init__).parameters)[1:]
    for name in others:
        if name in _RENAMED and name not in known:
            raise RecipeError(f"no argument '{name}'", where=_WHERE, fix=f"It is called {_RENAMED[name]} now.")
        if name not in known:
            raise RecipeError(f"no argument '{name}'. {did_you_mean(name, known)}", where=_WHERE)
    for name in ("data_collator", "compute_metrics"):
        if others.get(name) is not None and not callable(others[name]):
            raise _wrong(name, others[name], "a function", _FUNCTIONS[name])
    _check_rows(others.get("train_dataset"))


def _wrong(name: str, got: Any, expected: str, fix: str | None = None) -> RecipeError:
    shown = got if isinstance(got, str | Path) else type(got)
    return RecipeError(f"no {name}", where=f"{_WHERE}({name}=...)", got=str(shown), expected=expected, fix=fix)


def _check_stage(stage: Any) -> None:
    if isinstance(stage, Stage):
        return
    if stage is None:
        raise RecipeError(
            "a stage is missing: what trains, on which losses", where=_WHERE,
            fix="Pass stage=Stage(name=..., train=[...], losses={...}).",
        )  # fmt: skip
    if isinstance(stage, Mapping):
        raise _wrong("stage", stage, "a Stage", "Write Stage(**stage).")
    fix = None
    if isinstance(stage, str | Path | Recipe):
        fix = f"A stage of a recipe: {'recipe' if isinstance(stage, Recipe) else 'load_recipe(file)'}.stages[0]."
    elif isinstance(stage, list | tuple):
        fix = "One trainer trains one stage; run_recipe trains a recipe's, one after another."
    raise _wrong("stage", stage, "a Stage", fix)


def _check_model(model: PreTrainedModel, others: Mapping[str, Any]) -> None:
    if isinstance(model, str | Path):
        raise _wrong(
            "model", model, "a model, not its name",
            "Load it: hfvla.load_checkpoint(folder)[1], or the class's from_pretrained(name).",
        )  # fmt: skip
    if isinstance(model, type):
        raise RecipeError("a class is no model", where=f"{_WHERE}(model=...)", got=model.__name__, fix="Build one.")
    if not isinstance(model, nn.Module):
        if model is None and others.get("model_init") is not None:
            fix = "Groups are looked up in a model: pass model=model_init() and leave model_init out."
            raise RecipeError("a stage needs its model at once", where=f"{_WHERE}(model_init=...)", fix=fix)
        raise _wrong("model", model, "a torch.nn.Module")


def _check_groups(groups: Any) -> None:
    if groups is None or not isinstance(groups, Mapping):
        raise _wrong(
            "groups",
            groups,
            "parameter groups by name",
            'E.g. {"heads": ParameterGroup(("head.*",))}, or FAMILY.groups.',
        )
    for name, group in groups.items():
        if isinstance(group, ParameterGroup):
            continue
        patterns = (group,) if isinstance(group, str) else group
        plain = isinstance(patterns, list | tuple) and all(isinstance(one, str) for one in patterns)
        raise RecipeError(
            f"the group '{name}' is no ParameterGroup", where=f"{_WHERE}(groups=...)", got=group,
            fix=f"Write ParameterGroup({tuple(patterns)!r})." if plain else None,
        )  # fmt: skip


def _check_rows(rows: Any) -> None:
    if isinstance(rows, str | Path):
        raise RecipeError(
            "a name is no data", where=f"{_WHERE}(train_dataset=...)", got=str(rows),
            fix="Load it, e.g. datasets.load_dataset(...), or name it in a recipe's `data`.",
        )  # fmt: skip
    if isinstance(rows, Mapping):
        raise RecipeError(
            "a mapping is no rows", where=f"{_WHERE}(train_dataset=...)", got=", ".join(map(str, rows)),
            fix="Write datasets.Dataset.from_dict(...), a list of rows, or one part of a DatasetDict.",
        )  # fmt: skip
    if isinstance(rows, Iterator):
        raise RecipeError(
            "an iterator is used up after one epoch", where=f"{_WHERE}(train_dataset=...)", got=type(rows).__name__,
            fix="Write list(...), or torch.utils.data.IterableDataset with args.max_steps.",
        )  # fmt: skip
    if _length(rows) == 0:
        raise DataError("the training data has no row", where=f"{_WHERE}(train_dataset=...)", expected="at least one")


def _length(rows: Any) -> int | None:
    try:
        return len(rows)
    except (TypeError, RuntimeError):  # None, or rows that are a stream
        return None


def checked_metrics(compute_metrics: Callable[..., Any]) -> Callable[..., Any]:
    """Return a `compute_metrics` whose result is looked at; `Trainer` writes into it whatever it is.

    Raises:
        TrainingError: when it is called and returns no mapping.
    """

    @wraps(compute_metrics)
    def checked(*given: Any, **more: Any) -> Any:
        found = compute_metrics(*given, **more)
        if not isinstance(found, Mapping) and not more:  # batch by batch (`compute_result`) only the last call tells
            raise TrainingError(
                "compute_metrics returns {name: number}", where=f"{_WHERE}(compute_metrics=...)", got=found
            )
        return found

    return checked


def check_reach(loss: Tensor, terms: Collection[str], stage: Stage) -> None:
    """Refuse a loss from which no gradient flows to what trains.

    Raises:
        TrainingError: naming the stage's terms and what it trains.
    """
    if not loss.requires_grad:
        raise TrainingError(
            "the loss reaches nothing that trains", where=f"stage '{stage.name}'",
            got=f"losses {', '.join(terms)}; train {', '.join(stage.train)}",
            fix="Train a group that the loss is computed with, or weigh a loss that reaches this one.",
        )  # fmt: skip

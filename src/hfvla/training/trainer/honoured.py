"""Fields of a `Stage` that a recipe's run acts on: in a script each is held already, or refused with what to do."""

from __future__ import annotations

from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any

from transformers import EarlyStoppingCallback

from hfvla.errors import RecipeError, did_you_mean
from hfvla.recipe import Stage
from hfvla.recipe.lora_checks import LORA_GROUP
from hfvla.training.stage.phases import phase_entries

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

__all__ = [
    "check_learning_rates",
    "check_lora_trains",
    "check_script_stage",
    "find_unused_parameters",
    "with_patience",
]

_HANDOVER = ("from_", "new", "reshape", "leave")


def check_learning_rates(stage: Stage) -> None:
    """Refuse a learning rate of an entry that does not train.

    Raises:
        RecipeError: naming it.
    """
    sections = [("learning_rates", stage.learning_rates, stage.train)]
    for number, phase in enumerate(stage.phases):
        sections.append((f"phases[{number}].learning_rates", phase.learning_rates, phase.add))
    for field, rates, entries in sections:
        for name in rates:
            if name not in entries:
                place = "add" if field.startswith("phases") else "train"
                raise RecipeError(
                    f"{field}: '{name}' is not an entry of `{place}`. {did_you_mean(name, entries)}",
                    where=f"stage '{stage.name}'",
                    fix=f"Name an entry of `{place}` as it is written there.",
                )


def check_lora_trains(stage: Stage, groups: Mapping[str, Any]) -> None:
    """Refuse adapters that never train.

    Raises:
        RecipeError: `lora` without the group `lora` in `train` or in a phase's `add`.
    """
    entries = [entry for entries in phase_entries(stage) for entry in entries]
    if stage.lora is not None and LORA_GROUP not in groups and LORA_GROUP not in entries:
        raise RecipeError(
            "lora: its adapters never train",
            where=f"stage '{stage.name}'",
            got=f"train {', '.join(stage.train)}",
            fix="Put the group 'lora' into `train` or a phase's `add`, or leave `lora` out.",
        )


def check_script_stage(stage: Stage, args: Any, model: PreTrainedModel) -> None:
    """Refuse what a recipe's run would do for a stage, and `StagedTrainer` alone does not.

    Args:
        stage: the stage, given to `StagedTrainer` in a script.
        args: its `TrainingArguments`, or None for the defaults.
        model: the model.

    Raises:
        RecipeError: naming the field and what to do in its place.
    """
    where = f"stage '{stage.name}'"
    for name, wanted in stage.args.items():
        if args is None or not hasattr(args, name) or not _equal(getattr(args, name), wanted):
            raise RecipeError(
                f"args.{name}: a script's TrainingArguments hold, and they say otherwise",
                where=where,
                got=f"{wanted!r} in the stage, {getattr(args, name, 'nothing')!r} in TrainingArguments",
                fix=f"Pass TrainingArguments({name}={wanted!r}, ...), or leave it out of the stage.",
            )
    if stage.data is not None:
        raise _refused("data", where, "Pass the rows as train_dataset, and leave `data` out.")
    if stage.keep_checkpoints != "none":
        raise _refused("keep_checkpoints", where, "TrainingArguments(save_total_limit=...) says how many stay.")
    if stage.cache is not None:
        raise _refused("cache", where, "Run a recipe (`run_recipe`), or leave `cache` out.")
    if stage.packing is not None:
        raise _refused(
            "packing", where, "Pass hfvla.data.packing.PackedRows as train_dataset, and leave `packing` out."
        )
    if stage.too_long != "refuse":
        raise _refused("too_long", where, "Leave such rows out of train_dataset, and leave `too_long` out.")
    _check_model(stage.model, getattr(model, "config", None), where)
    for name in _HANDOVER:
        if getattr(stage.handover, name):
            raise _refused(
                f"handover.{name.rstrip('_')}",
                where,
                "Fill the new model with hfvla.training.checkpoint.handover.hand_over before, and leave it out.",
            )
    if stage.keep_best:
        _check_keep_best(stage.keep_best, args, where)


def _refused(field: str, where: str, fix: str) -> RecipeError:
    return RecipeError(f"{field}: only the run of a recipe acts on it, and this is a script", where=where, fix=fix)


def _check_model(changes: Mapping[str, Any], config: PreTrainedConfig, where: str, path: str = "model") -> None:
    for key, wanted in changes.items():
        found = config.get(key) if isinstance(config, Mapping) else getattr(config, key, None)
        if isinstance(wanted, Mapping):
            _check_model(wanted, found, where, f"{path}.{key}")
        elif not _equal(found, wanted):
            raise RecipeError(
                f"{path}.{key}: the model that was passed has another value",
                where=where,
                got=found,
                expected=repr(wanted),
                fix="Build the model with the changed config, or leave it out of the stage.",
            )


def _check_keep_best(metric: str, args: Any, where: str) -> None:
    names = {metric, metric.removeprefix("eval_")}
    if args is None or not args.load_best_model_at_end or args.metric_for_best_model not in names:
        raise RecipeError(
            "keep_best: a script's TrainingArguments say which checkpoint is kept, and they say otherwise",
            where=where,
            got=metric,
            fix=f"Pass TrainingArguments(load_best_model_at_end=True, metric_for_best_model='{metric}', "
            "greater_is_better=..., eval_strategy='epoch', save_strategy='epoch'), or leave it out.",
        )


def _equal(found: Any, wanted: Any) -> bool:
    """Tell whether an argument has the value that a stage asks for, as written in YAML."""
    if isinstance(found, Enum):
        found = found.value
    if isinstance(found, int | float) and not isinstance(found, bool) and isinstance(wanted, str):
        try:
            wanted = float(wanted)
        except ValueError:
            return False
    if found == [] and wanted in ("none", ["none"]):  # report_to
        return True
    if isinstance(found, list | tuple) and not isinstance(wanted, list | tuple):
        return list(found) == [wanted]
    return bool(found == wanted)


def with_patience(stage: Stage, callbacks: Any) -> list[Any] | None:
    """Return a script's callbacks with the one that ends a stage after `patience` evaluations without a better one."""
    given = list(callbacks or ())
    if stage.patience and not any(isinstance(callback, EarlyStoppingCallback) for callback in given):
        given.append(EarlyStoppingCallback(stage.patience))
    return given or None


def find_unused_parameters(args: Any, where: str) -> None:
    """Let DDP expect parameters without a gradient, as those of a phase to come have none.

    Raises:
        RecipeError: the arguments say that DDP must not look for them.
    """
    if args.ddp_find_unused_parameters is False:
        raise RecipeError(
            "parts that join later have no gradient before, and DDP must expect that",
            where=where,
            got="ddp_find_unused_parameters false",
            fix="Leave it out: the engine sets it.",
        )
    args.ddp_find_unused_parameters = True  # None is not enough: gradient checkpointing turns it off

"""What a checkpoint says about the run that wrote it, and what may change before going on from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfvla.errors import CheckpointError, RecipeError
from hfvla.training.stage.fingerprint import changed_rows, rows_fingerprint

if TYPE_CHECKING:
    from torch.optim import Optimizer
    from transformers import Trainer

__all__ = [
    "changed_settings",
    "check_arguments",
    "check_same_run",
    "current_settings",
    "put_settings",
    "run_settings",
]

_SHOWN = 6
_FIXED = {
    "processes": "processes",
    "per_device_train_batch_size": "rows a process and step (per_device_train_batch_size)",
    "gradient_accumulation_steps": "accumulation steps",
    "rows": "training rows",
    "seed": "seed",
    "optim": "optimizer (optim)",
    "dtype": "precision",
    "train": "groups of `train`",
    "phases": "phases",
    "lora": "lora",
    "model": "model changes of the stage",
    "loss_weighting": "loss weighting",
    "batches": "batches of groups",
    "packing": "packing",
}
"""Settings that the saved state or the place in the data depends on."""

_OPTIMIZER = (
    *("learning_rate", "weight_decay", "adam_beta1", "adam_beta2", "adam_epsilon", "optim_args"),
    *("lr_scheduler_type", "lr_scheduler_kwargs", "warmup_steps", "max_steps", "num_train_epochs"),
)
"""Arguments that the saved optimizer and schedule would bring back as they were."""


def check_arguments(args: Any) -> None:
    """Refuse TrainingArguments under which a resumed run could not equal an uninterrupted one.

    Raises:
        RecipeError: naming the argument.
    """
    refused = {
        "dataloader_persistent_workers": "workers that outlive an epoch augment the next one with the old seeds",
        "ignore_data_skip": "a resumed epoch would see rows again that it has seen",
    }
    for name, reason in refused.items():
        if getattr(args, name, False):
            raise RecipeError(f"args.{name}: {reason}", got=True, expected="false", fix="Leave it out.")
    if not getattr(args.accelerator_config, "use_seedable_sampler", True):
        raise RecipeError(
            "args.accelerator_config.use_seedable_sampler: the order of rows would depend on all draws before it",
            got=False,
            expected="true",
            fix="Leave it out.",
        )


def run_settings(trainer: Trainer) -> dict[str, Any]:
    """Return the JSON-serialisable settings of a trainer that its checkpoints remember."""
    args, stage = trainer.args, trainer.stage.model_dump(mode="json")
    fixed = {
        "processes": args.world_size,
        "per_device_train_batch_size": args.per_device_train_batch_size,
        "gradient_accumulation_steps": args.gradient_accumulation_steps,
        "rows": len(trainer.train_dataset) if hasattr(trainer.train_dataset, "__len__") else None,
        "row_values": _row_values(trainer),
        "seed": args.seed,
        "optim": str(getattr(args.optim, "value", args.optim)),
        "dtype": "bf16" if args.bf16 else "fp16" if args.fp16 else "fp32",
        **{name: stage.get(name) for name in ("train", "lora", "model", "loss_weighting", "batches", "packing")},
        "phases": [{key: phase[key] for key in ("epoch", "step", "add")} for phase in stage.get("phases", [])],
    }
    optimizer = {name: getattr(args, name) for name in _OPTIMIZER}
    optimizer["lr_scheduler_type"] = str(getattr(args.lr_scheduler_type, "value", args.lr_scheduler_type))
    optimizer["learning_rates"] = stage.get("learning_rates")
    return {"fixed": fixed, "optimizer": _plain(optimizer)}


def _row_values(trainer: Trainer) -> dict[str, str] | None:
    """Return the fingerprint of a trainer's rows; it is made once."""
    if not hasattr(trainer, "_row_values"):
        trainer._row_values = rows_fingerprint(trainer.train_dataset)
    found: dict[str, str] | None = trainer._row_values
    return found


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values as JSON gives them back, so that they compare equal."""
    simple = (str, int, float, bool, type(None))
    return {
        key: _plain(value) if isinstance(value, Mapping) else value if isinstance(value, simple) else str(value)
        for key, value in values.items()
    }


def check_same_run(saved: Mapping[str, Any], now: Mapping[str, Any], folder: Path) -> None:
    """Refuse to go on where the saved state, or the place in the data, would mean something else.

    Raises:
        CheckpointError: naming every setting that differs.
    """
    before, after = saved["fixed"], now["fixed"]
    changed = changed_rows(before.get("row_values"), after.get("row_values"))
    if changed and before.get("rows") == after.get("rows"):
        raise CheckpointError(
            "the training rows are not those that this stage began with",
            where=str(folder),
            got=f"other values, or another order, in {', '.join(changed[:_SHOWN])}"
            + (f" and {len(changed) - _SHOWN} more columns" if len(changed) > _SHOWN else ""),
            expected=f"the {before.get('rows')} rows of the run, as they were",
            fix=f"Put the data back as it was, or delete {folder.parent} to begin this stage anew.",
        )
    differing = [name for name in _FIXED if before.get(name) != after.get(name)]
    if not differing:
        return
    raise CheckpointError(
        "this checkpoint cannot be gone on from with other settings: " + ", ".join(_FIXED[name] for name in differing),
        where=str(folder),
        got=", ".join(f"{name} {after.get(name)}" for name in differing),
        expected=", ".join(f"{name} {before.get(name)}" for name in differing) + ", as when it was saved",
        fix=f"Go on with those, or delete {folder.parent} to begin this stage anew.",
    )


def changed_settings(saved: Mapping[str, Any] | None, now: Mapping[str, Any]) -> dict[str, str]:
    """Return "name: old -> new" by name for settings of optimizer and schedule that were changed."""
    if saved is None:
        return {}
    before, after = saved["optimizer"], now["optimizer"]
    return {
        name: f"{name}: {before.get(name)} -> {after.get(name)}"
        for name in after
        if before.get(name) != after.get(name)
    }


def current_settings(optimizer: Optimizer, schedule: Any) -> tuple[list[dict[str, Any]], list[float]]:
    """Return each parameter group's settings (decay, betas ...) and the schedule's peak rates, before a load."""
    groups = [
        {key: value for key, value in group.items() if key not in ("params", "lr")} for group in optimizer.param_groups
    ]
    return groups, list(schedule.base_lrs)


def put_settings(optimizer: Optimizer, schedule: Any, groups: list[dict[str, Any]], rates: list[float]) -> None:
    """Put settings back after a load that brought the old ones, and set the rates of the step that comes next."""
    for group, settings in zip(optimizer.param_groups, groups, strict=True):
        group.update(settings)
    schedule.base_lrs = rates
    if not hasattr(schedule, "lr_lambdas"):
        return
    now = [rate * part(schedule.last_epoch) for rate, part in zip(rates, schedule.lr_lambdas, strict=True)]
    for group, rate in zip(optimizer.param_groups, now, strict=True):
        group["lr"] = rate
    schedule._last_lr = now

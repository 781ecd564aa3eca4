"""TrainingArguments of a stage: what the engine sets, under what the recipe says."""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from typing import Any

from hfvla.data.processes import COLLECTIVE_TIMEOUT
from hfvla.errors import RecipeError
from hfvla.family import FamilySpec, as_names, parse_group
from hfvla.recipe import Recipe, Stage
from hfvla.recipe.lora_checks import LORA_GROUP
from hfvla.training.run.machine import use_machine
from hfvla.training.run.trackers import chosen_trackers
from hfvla.training.trainer.devices import one_gpu_a_process
from hfvla.training.trainer.zero import check_zero

__all__ = ["may_leave_unused", "spread_weights", "stage_arguments", "stage_settings", "start_processes", "uses_cpu"]


def uses_cpu(recipe: Recipe) -> bool:
    """Tell whether a recipe trains on the CPU: where it says so, or where there is nothing else."""
    import torch

    no_accelerator = not torch.cuda.is_available() and not torch.backends.mps.is_available()
    return bool(recipe.args.get("use_cpu", no_accelerator))


def start_processes(recipe: Recipe) -> Any:
    """Return accelerate's `PartialState`, and with it start the process group of a distributed run.

    Before any `TrainingArguments`: the run's own collectives come earlier. So the recipe's device and `ddp_timeout`
    must be given here (the longest of all stages: a process group keeps the one that it was started with).

    Raises:
        RecipeError: several GPUs and no launcher; see also `use_machine`.
    """
    import torch
    from accelerate import PartialState

    use_machine(recipe)
    settings = [recipe.args, *(recipe.stage_args(stage) for stage in recipe.stages)]
    seconds = [float(args["ddp_timeout"]) for args in settings if args.get("ddp_timeout") is not None]
    # Without the flag, processes that share no GPU do not know of each other until the first Trainer is built.
    timeout = timedelta(seconds=max(seconds)) if seconds else COLLECTIVE_TIMEOUT
    state = PartialState(cpu=uses_cpu(recipe), timeout=timeout)
    if not uses_cpu(recipe) and state.num_processes == 1 and state.device.type == "cuda":
        one_gpu_a_process(torch.cuda.device_count(), f"run '{recipe.name}'")  # before data are built
    return state


def spread_weights(arguments: Any) -> bool:
    """Tell whether weights will not stay whole on each process: ZeRO or FSDP, by recipe or launcher."""
    launched = any(os.environ.get(f"ACCELERATE_USE_{kind}", "").lower() == "true" for kind in ("DEEPSPEED", "FSDP"))
    return launched or bool(arguments.deepspeed) or bool(arguments.fsdp)


def may_leave_unused(stage: Stage, spec: FamilySpec) -> bool:
    """Tell whether a batch may leave something that trains without a gradient, so that DDP must look for it.

    It costs a walk through the graph in every step. Where a part joins later there is such; else it is what no term of
    a fixed weight is known to reach in every batch (`FamilySpec.reached`). A batch that lacks a term does not count: a
    zero takes its place and reaches everything (`hfvla.training.trainer.loss_reach`).

    Args:
        stage: the stage.
        spec: its family.
    """
    changing = {name for phase in stage.phases for name in phase.losses}
    fixed = [name for name, weight in stage.losses.items() if isinstance(weight, float | int) and weight > 0]
    reached = {group for name in fixed if name not in changing for group in spec.reached.get(name, ())}
    entries = [entry for entry in stage.train if entry != LORA_GROUP]
    if stage.lora is not None and LORA_GROUP in stage.train:
        entries += as_names(stage.lora.target)
    joins = any(phase.add for phase in stage.phases)
    # backward passes of its own
    apart = stage.grad_cache is not None or stage.loss_weighting in ("gradnorm", "pcgrad")
    return joins or apart or any(entry.startswith("re:") or parse_group(entry)[0] not in reached for entry in entries)


def stage_arguments(recipe: Recipe, stage: Stage, spec: FamilySpec, stage_dir: Path, has_validation: bool) -> Any:
    """Return `TrainingArguments` for one stage.

    Args:
        recipe: the recipe; its `args` and the stage's own go over the engine's defaults.
        stage: the stage.
        spec: its family, for the label names and for which metrics are errors.
        stage_dir: folder of the stage; Trainer checkpoints go to `checkpoints/` in it.
        has_validation: evaluate (and, for `keep_best`, choose) at each epoch unless the recipe says otherwise.

    Raises:
        RecipeError: `keep_best` without validation rows, a DeepSpeed config that contradicts the recipe, or arguments
            that transformers refuses together (`keep_best` with `save_strategy: steps` and evaluations by epoch).
    """
    from transformers import TrainingArguments

    settings = stage_settings(recipe, stage, spec, stage_dir, has_validation)
    try:
        return TrainingArguments(**settings)
    except (ValueError, TypeError) as error:
        raise RecipeError(
            f"stage '{stage.name}': its training arguments do not go together",
            got=str(error).replace("\n", " "),
            fix="Change `args` of the recipe or of this stage.",
        ) from None


def stage_settings(
    recipe: Recipe, stage: Stage, spec: FamilySpec, stage_dir: Path, has_validation: bool
) -> dict[str, Any]:
    """Return what `stage_arguments` builds them from; arguments and errors as there."""
    settings: dict[str, Any] = {
        "use_cpu": uses_cpu(recipe),
        "eval_strategy": "epoch" if has_validation else "no",
        "save_strategy": "epoch",
        "save_total_limit": None if stage.keep_checkpoints == "all" else 2,
        "logging_steps": 0.02,
        "run_name": f"{recipe.name}-{stage.name}",
        "project": recipe.name,
        "ddp_find_unused_parameters": may_leave_unused(stage, spec),
        **recipe.stage_args(stage),
        "report_to": chosen_trackers(recipe.stage_args(stage).get("report_to")),
        "output_dir": str(stage_dir / "checkpoints"),
        "seed": recipe.seed,
        "data_seed": recipe.seed,
        "remove_unused_columns": False,
        "label_names": list(spec.label_names),
    }
    if stage.keep_best and not has_validation:
        raise RecipeError(
            f"stage '{stage.name}': keep_best needs validation rows, and its sources have none",
            got=stage.keep_best,
            fix="Name one of its sources in data.validation.sources, raise data.validation.fraction, or leave it out.",
        )
    if stage.keep_best:
        settings |= {
            "load_best_model_at_end": True,
            "metric_for_best_model": stage.keep_best,
            "greater_is_better": not spec.metric(stage.keep_best.removeprefix("eval_")).is_error,
        }
    check_zero(settings, f"stage '{stage.name}'")
    return settings

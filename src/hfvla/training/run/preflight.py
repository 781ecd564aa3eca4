"""What would end a run in a later stage, looked at before the first: arguments, optimizers, models, rows."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from transformers import TrainingArguments
from transformers.optimization import get_scheduler

from hfvla.data.rows.mixing import is_stream
from hfvla.errors import HfvlaError, MissingExtraError, RecipeError
from hfvla.family import FamilySpec
from hfvla.recipe import Recipe, Stage
from hfvla.recipe.scalars import shortened
from hfvla.training.run.arguments import stage_settings

__all__ = ["check_arguments", "check_data", "check_rows", "check_stream", "model_errors", "unused_arguments"]

_LATER = ("deepspeed", "torch_compile", "torch_compile_backend", "torch_compile_mode", "tf32")
"""Arguments that change the process when they are built; each has a check of its own."""

_ADAMW = ("adamw_torch", "adamw_torch_fused")

_BATCH = 8  # TrainingArguments' own

_STEPS = 8  # a schedule is asked for: warm-up, middle and end


class _Arguments(TrainingArguments):
    """TrainingArguments that check their values and leave devices and process groups alone."""

    @property
    def device(self) -> torch.device:
        """No device is set up."""
        return torch.device("cpu")


def check_arguments(
    recipe: Recipe,
    spec: FamilySpec,
    stages: Sequence[Stage] = (),
    validation: Mapping[str, bool] | None = None,
    here: bool = True,
) -> None:
    """Build arguments, optimizer and schedule of every stage as the `Trainer` will, around one parameter.

    Args:
        recipe: a checked recipe.
        spec: its family.
        stages: those that run; default: all.
        validation: whether a stage has validation rows, by its name; default: where the recipe holds rows out.
        here: the recipe trains on this machine; else what is not installed or no GPU here is not looked at.

    Raises:
        RecipeError: with every stage's problem.
    """
    problems = []
    for stage in stages or recipe.stages:
        held_out = recipe.data.validation.fraction > 0 if validation is None else validation[stage.name]
        try:
            _build(recipe, spec, stage, held_out, here)
        except RecipeError as error:
            problems += error.problems if len(error.problems) > 1 else [str(error)]
        except MissingExtraError as error:
            problems += [str(error)] if here else []
        except HfvlaError as error:
            problems.append(str(error))
    if problems:
        raise RecipeError(list(dict.fromkeys(problems)))


def _build(recipe: Recipe, spec: FamilySpec, stage: Stage, held_out: bool, here: bool) -> None:
    settings = stage_settings(recipe, stage, spec, Path("unused"), held_out)
    if here and settings.get("tf32") is True and not (torch.cuda.is_available() and _has_tf32()):
        raise RecipeError(f"stage '{stage.name}': args.tf32 needs an NVIDIA GPU of the Ampere generation or newer")
    if here and settings.get("fp16") and settings["use_cpu"]:
        raise RecipeError(f"stage '{stage.name}': args.fp16 needs a GPU; this run trains on the CPU. Use bf16")
    if here and settings.get("use_liger_kernel") and find_spec("liger_kernel") is None:
        raise RecipeError(f"stage '{stage.name}': args.use_liger_kernel needs the package liger-kernel")
    settings = {key: value for key, value in settings.items() if key not in _LATER}
    if not here:
        settings["use_cpu"] = True
    with _argument_errors(stage, here), _without_deepspeed():
        arguments = _Arguments(**settings)
        if isinstance(arguments.lr_scheduler_kwargs, str):
            raise ValueError(f"lr_scheduler_kwargs is no mapping; got {arguments.lr_scheduler_kwargs!r}")
        optimizer = _optimizer(arguments)
        schedule = get_scheduler(
            arguments.lr_scheduler_type, optimizer,
            num_warmup_steps=min(arguments.get_warmup_steps(_STEPS), 1), num_training_steps=_STEPS,
            scheduler_specific_kwargs=arguments.lr_scheduler_kwargs,
        )  # fmt: skip
        for step in range(_STEPS if isinstance(schedule, torch.optim.lr_scheduler.LambdaLR) else 0):
            for rate in schedule.lr_lambdas:
                rate(step)


def unused_arguments(recipe: Recipe, stages: Sequence[Stage] = ()) -> list[str]:
    """Return a sentence for each argument that has no effect beside another one, which the Trainer leaves unsaid.

    Args:
        recipe: a checked recipe.
        stages: those that run; default: all.
    """
    found: dict[str, list[str]] = {}
    for stage in stages or recipe.stages:
        args = recipe.stage_args(stage)
        if int(args.get("max_steps", -1)) > 0 and "num_train_epochs" in args:
            found.setdefault("num_train_epochs has no effect: max_steps says when it ends", []).append(stage.name)
        for what, default in (("eval", "epoch"), ("save", "epoch"), ("logging", "steps")):
            strategy = str(args.get(f"{what}_strategy", default))
            if args.get(f"{what}_steps") is not None and strategy != "steps":
                text = f"{what}_steps has no effect: {what}_strategy is {strategy}, not steps"
                found.setdefault(text, []).append(stage.name)
        batch = int(args.get("per_device_train_batch_size", _BATCH))
        if stage.grad_cache is not None and stage.grad_cache >= batch:
            text = f"grad_cache has no effect: a batch of {batch} is no larger"
            found.setdefault(text, []).append(stage.name)
    count = len(stages or recipe.stages)
    return [text if len(names) == count else f"stage {', '.join(names)}: {text}" for text, names in found.items()]


def _optimizer(arguments: TrainingArguments) -> torch.optim.Optimizer:
    """Build the optimizer that the `Trainer` would, around one parameter.

    The default is built here: the module of the `Trainer` imports `datasets` and pandas with it, which a plan of most
    recipes needs for nothing else.
    """
    parameters = [torch.nn.Parameter(torch.zeros(1))]
    if arguments.optim in _ADAMW and not arguments.optim_args:
        betas = (arguments.adam_beta1, arguments.adam_beta2)
        return torch.optim.AdamW(parameters, lr=arguments.learning_rate, betas=betas, eps=arguments.adam_epsilon)
    from transformers import Trainer

    kind, options = Trainer.get_optimizer_cls_and_kwargs(arguments)
    return kind(parameters, **options)


def _has_tf32() -> bool:
    return torch.cuda.get_device_capability()[0] >= 8


@contextmanager
def _argument_errors(stage: Stage, here: bool) -> Iterator[None]:
    """Say what transformers and torch refuse as a problem of the stage."""
    try:
        yield
    except HfvlaError:
        raise
    except ImportError as error:
        if here:
            raise RecipeError(f"stage '{stage.name}': {_line(error)}") from error
    except Exception as error:  # whatever a class of transformers, torch or an optimizer's package raises
        raise RecipeError(f"stage '{stage.name}': its args do not go together: {_line(error)}") from error


@contextmanager
def _without_deepspeed() -> Iterator[None]:
    """Take away accelerate's switch, under which arguments would set up ZeRO as they are built."""
    name = "ACCELERATE_USE_DEEPSPEED"
    before = os.environ.pop(name, None)
    try:
        yield
    finally:
        if before is not None:
            os.environ[name] = before


@contextmanager
def model_errors(where: str) -> Iterator[None]:
    """Say in one line what a config or a model refuses while it is built.

    Args:
        where: named first, e.g. "model.config".

    Raises:
        RecipeError: in place of any error that is not one of hfvla's.
    """
    try:
        yield
    except HfvlaError:
        raise
    except Exception as error:  # of transformers, timm or torch, whatever they make of such sizes
        raise RecipeError(f"{where}: the model cannot be built: {type(error).__name__}: {_line(error)}") from error


def _line(error: BaseException) -> str:
    return shortened(" ".join(str(error).split()) or type(error).__name__, most=400)


def check_data(recipe: Recipe, spec: FamilySpec, stages: Sequence[Stage], data: Any, processes: int) -> None:
    """Look at every stage's rows before the first trains: enough for a batch, and held-out ones where they are needed.

    Args:
        recipe: the recipe.
        spec: its family.
        stages: those that run.
        data: the `RecipeData` of the run.
        processes: that share a batch.

    Raises:
        RecipeError: naming the stage and its numbers.
    """
    validation = {}
    for stage in stages:
        rows = data.stage_rows(stage)
        validation[stage.name] = rows.validation is not None
        if is_stream(rows.train):
            check_stream(recipe, stage)
        else:
            check_rows(recipe, stage, len(rows.train), processes)
    check_arguments(recipe, spec, stages, validation)


def check_stream(recipe: Recipe, stage: Stage) -> None:
    """Refuse a stage on streamed rows that asks for what only rows of known number can give.

    Raises:
        RecipeError: naming the key.
    """
    args, where = recipe.stage_args(stage), f"stage '{stage.name}'"
    if int(args.get("max_steps", -1)) < 1:
        raise RecipeError(
            "its rows are streamed and have no number, so that epochs have no steps",
            where=where,
            got=f"num_train_epochs {args.get('num_train_epochs', 3)} and no max_steps",
            fix="Say args.max_steps, or read its sources without streaming.",
        )
    for key in ("packing", "batches", "cache"):
        if getattr(stage, key) is not None:
            raise RecipeError(
                f"`{key}` needs to know all rows, and they are streamed",
                where=where,
                fix="Leave it out, or read its sources without streaming.",
            )


def check_rows(recipe: Recipe, stage: Stage, rows: int, processes: int = 1) -> None:
    """Refuse a stage whose rows do not fill one batch where the last batch is dropped.

    Args:
        recipe: the recipe.
        stage: the stage.
        rows: training rows of an epoch.
        processes: that share a batch.

    Raises:
        RecipeError: the stage would train nothing.
    """
    args = recipe.stage_args(stage)
    batch = int(args.get("per_device_train_batch_size", _BATCH)) * processes
    if rows < 1:
        raise RecipeError(f"stage '{stage.name}': no training rows are left once the validation rows are held out")
    if args.get("dataloader_drop_last") and rows < batch:
        shared = f" ({batch // processes} on each of {processes} processes)" if processes > 1 else ""
        raise RecipeError(
            f"stage '{stage.name}': {rows} training rows do not fill one batch of {batch}{shared}, and "
            "args.dataloader_drop_last drops it: nothing would train. Lower per_device_train_batch_size, or keep the "
            "last batch"
        )

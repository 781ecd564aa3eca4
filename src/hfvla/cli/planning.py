"""`hfvla plan`, and `hfvla train --dry-run`: what a recipe would do and need."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import typer

from hfvla.cli.output import USER_ERROR, importing, run_command
from hfvla.errors import HfvlaError
from hfvla.paths import expand_user

__all__ = ["plan", "try_recipe"]

_SHAPES = "For --shape"


def _option(text: str, name: str | None = None, metavar: str | None = None, **more: Any) -> Any:
    names = [name] if name else []
    return typer.Option(*names, metavar=metavar, help=text, rich_help_panel=_SHAPES, **more)


Recipe = Annotated[str | None, typer.Argument(metavar="[RECIPE]", parser=expand_user, help="The recipe, a YAML file.")]
Overrides = Annotated[list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Recipe values to change.")]
Gpus = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME", help="Only this GPU, e.g. a40, rtx4090 or, with its memory, mine:24GB; repeat for more."
    ),
]
Measured = Annotated[
    str | None,
    typer.Option(
        metavar="FILE", parser=expand_user, help="Measured TFLOP/s by GPU, a JSON file; default: a stated share."
    ),
]
Shape = Annotated[
    str | None, typer.Option(metavar="NAME", help="In place of a recipe: a shipped backbone, e.g. internvl3_1b.")
]
Train = Annotated[str | None, _option("Groups that train: vision,projector,language.last(2).")]
LoraTarget = Annotated[str | None, _option("Groups that get LoRA adapters.", metavar="GROUPS")]
LoraRank = Annotated[int | None, _option("Rank of the adapters.", "--lora-r", min=1)]
Qlora = Annotated[bool | None, _option("Hold the adapted weights in four bits.", "--qlora")]
Batch = Annotated[int | None, _option("Samples a GPU.", min=1)]
Tokens = Annotated[int | None, _option("Tokens a sample, images included.", min=1)]
Images = Annotated[int | None, _option("Images a sample.", min=0)]
ImageSize = Annotated[int | None, _option("Pixels of an image's side, where it is free.", min=1)]
PrecisionName = Annotated[str | None, _option("bf16-mixed, fp16-mixed, bf16 or float32.")]
Optimizer = Annotated[str | None, _option("Optimizer, as in TrainingArguments.")]
Accumulation = Annotated[int | None, _option("Batches an optimizer step.", min=1)]
Samples = Annotated[
    int | None,
    typer.Option(metavar="N", min=1, help="Samples of an epoch; the data then need not be here."),
]
All = Annotated[bool, typer.Option("--all", help="Every group, phase, setting and number of GPUs.")]
Epochs = Annotated[float | None, _option("Passes over the data.", min=0)]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")]


def plan(
    recipe: Recipe = None,
    overrides: Overrides = None,
    show_all: All = False,
    gpu: Gpus = None,
    measured: Measured = None,
    shape: Shape = None,
    train: Train = None,
    lora_target: LoraTarget = None,
    lora_r: LoraRank = None,
    qlora: Qlora = None,
    batch: Batch = None,
    tokens: Tokens = None,
    images: Images = None,
    image_size: ImageSize = None,
    precision: PrecisionName = None,
    optim: Optimizer = None,
    accumulation: Accumulation = None,
    samples: Samples = None,
    epochs: Epochs = None,
    as_json: AsJson = False,
) -> None:
    """Print what a recipe would train: parts, stages, phases, steps, bytes, memory, time. Trains nothing."""
    of_shape: dict[str, Any] = {"train": train, "lora_target": lora_target, "lora_r": lora_r, "qlora": qlora}
    of_shape |= {"batch": batch, "tokens": tokens, "images": images, "image_size": image_size, "precision": precision}
    of_shape |= {"optim": optim, "accumulation": accumulation, "epochs": epochs}
    given = {name: value for name, value in of_shape.items() if value is not None}

    def show(result: Any) -> None:
        from hfvla.cli.plan_summary import show_summary
        from hfvla.cli.plan_tables import show_plan

        words = [word for word in (recipe, f"--shape {shape}" if shape else None, *(overrides or ())) if word]
        if show_all:
            show_plan(result)
        else:
            show_summary(result, f"hfvla plan {' '.join(words)} --all")

    def work() -> Any:
        def options() -> dict[str, Any]:
            found = _cost_options(gpu, measured, with_cpu=not gpu)
            return found if show_all or as_json else {**found, "brief": True}

        with importing():  # and little else
            return _plan(recipe, overrides or [], shape, given, samples, options)

    run_command(work, show, as_json)


def _plan(
    recipe: str | None,
    overrides: list[str],
    shape: str | None,
    given: dict[str, Any],
    samples: int | None,
    options: Callable[[], dict[str, Any]],
) -> Any:
    if (recipe is None) == (shape is None):
        raise HfvlaError("give a recipe or --shape NAME, one of the two", got=f"{recipe}, --shape {shape}")
    if shape is not None:
        return _plan_of_shape(shape, given if samples is None else {**given, "samples": samples}, options())
    if given:
        option = next(iter(given)).replace("_", "-")
        raise HfvlaError(f"--{option} goes with --shape", fix="Change the recipe, or its values as KEY=VALUE.")
    from hfvla.recipe import load_recipe

    loaded = load_recipe(str(recipe), overrides)
    from hfvla.training.estimate import plan_recipe

    return plan_recipe(loaded, samples=samples, **options())


def _cost_options(gpu: list[str] | None, measured: str | None, with_cpu: bool) -> dict[str, Any]:
    """Return the GPUs and throughputs asked for; without a GPU named, this machine's CPU too."""
    options: dict[str, Any] = {}
    if with_cpu:
        from hfvla.training.estimate import this_cpu

        options["cpu"] = this_cpu()
    if gpu:
        from hfvla.training.estimate import find_gpu

        options["gpus"] = [find_gpu(name) for name in gpu]
    if measured:
        from hfvla.training.estimate import read_throughput

        options["throughput"] = read_throughput(measured)
    return options


def _plan_of_shape(shape: str, given: dict[str, Any], options: dict[str, Any]) -> Any:
    from hfvla.training.estimate.shapes import ShapeRun, plan_shape

    settings = dict(given)
    target, rank = settings.pop("lora_target", None), settings.pop("lora_r", None)
    quantized = settings.pop("qlora", None)
    if target is not None:
        from hfvla.recipe import Lora

        asked = {"r": rank, "alpha": 2 * rank} if rank else {}
        settings["lora"] = Lora(target=_names(target), qlora=bool(quantized), **asked)
        settings.setdefault("train", "")
    elif rank is not None or quantized:
        raise HfvlaError("adapters need --lora-target", fix="For example --lora-target language.")
    if "batch" in settings:
        settings["batch_size"] = settings.pop("batch")
    if "train" in settings:
        settings["train"] = _names(settings["train"])
    return plan_shape(shape, ShapeRun(**settings), **options)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


def try_recipe(
    recipe: str,
    overrides: Sequence[str],
    start_at: str | None,
    from_checkpoint: str | None,
    stop_after: str | None,
    writes: Sequence[str],
    as_json: bool,
) -> None:
    """Run one step of each stage and phase, print what was seen, and end with 2 where a run would go wrong.

    Args:
        recipe: YAML file.
        overrides: "key=value".
        start_at: first stage.
        from_checkpoint: what stands for the stage before.
        stop_after: last stage.
        writes: options of a run folder that were given; a dry run has none.
        as_json: print one JSON document.
    """
    problems: list[str] = []

    def work() -> Any:
        if writes:
            raise HfvlaError("a dry run leaves nothing on disk", got=" ".join(writes), fix="Leave them out.")
        with importing():
            from hfvla.recipe import load_recipe

            loaded = load_recipe(recipe, overrides)
            from hfvla.training.run.dry_run import dry_run

        found = dry_run(loaded, start_at=start_at, from_checkpoint=from_checkpoint, stop_after=stop_after)
        problems.extend(found["problems"])
        return found

    def show(result: Any) -> None:
        from hfvla.cli.plan_tables import show_dry_run

        show_dry_run(result)

    run_command(work, show, as_json)
    if problems:
        raise typer.Exit(USER_ERROR)

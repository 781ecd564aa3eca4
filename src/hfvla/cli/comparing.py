"""`hfvla compare`: recipes trained at equal budget, or checkpoints on the same rows, and their scores side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from hfvla.cli.evaluating import evaluation_sets, values_of_options
from hfvla.cli.output import importing, run_command
from hfvla.errors import HfvlaError
from hfvla.paths import expand_user

__all__ = ["compare"]


_CHECKPOINTS = "Checkpoints"


def _of_checkpoints(text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=_CHECKPOINTS, **more)


def compare(
    file: Annotated[
        str | None, typer.Argument(metavar="FILE", parser=expand_user, help="Recipes to compare, a YAML file.")
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Values to change in all its recipes.")
    ] = None,
    checkpoint: Annotated[
        list[str] | None,
        _of_checkpoints("Checkpoint to compare with the first one; repeat.", metavar="DIR", parser=expand_user),
    ] = None,
    data: Annotated[
        list[str] | None,
        _of_checkpoints("SOURCE, SOURCE=FILE or SOURCE:key=value,...; repeat for more sets.", metavar="SOURCE"),
    ] = None,
    option: Annotated[
        list[str] | None, _of_checkpoints("An option of the family's evaluation; repeat.", metavar="NAME=VALUE")
    ] = None,
    batch_size: Annotated[int, _of_checkpoints("Samples a forward pass.", min=1)] = 32,
    max_generate: Annotated[int, _of_checkpoints("Samples of a set for which text is generated.", min=0)] = 64,
    seed: Annotated[int, _of_checkpoints("Seed of bootstraps and generated data.", min=0)] = 0,
    device: Annotated[str | None, _of_checkpoints("Torch device; default: a GPU if there is one.")] = None,
    output: Annotated[
        str | None, typer.Option(metavar="DIR", parser=expand_user, help="Folder of runs and results.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")] = False,
) -> None:
    """Compare recipes, trained at equal budget, or checkpoints on the same rows: paired scores with intervals."""

    def work() -> Any:
        if (file is None) == (not checkpoint):
            raise HfvlaError(
                "compare a FILE of recipes, or two --checkpoint on --data", got=file or "neither",
                fix="hfvla compare --checkpoint A --checkpoint B --data SOURCE --output DIR",
            )  # fmt: skip
        if checkpoint:
            settings = {"seed": seed, "device": device, "batch_size": batch_size, "max_generate": max_generate}
            return _checkpoints(checkpoint, data or (), output, option or (), settings)
        if data or option:
            raise HfvlaError("--data and --option go with --checkpoint", got=", ".join(data or option or ()))
        with importing():
            from hfvla.evaluation.comparison_file import load_comparison

            comparison = load_comparison(str(file))
            from hfvla.training.run.comparing import run_comparison

        return run_comparison(comparison, overrides or (), output)

    run_command(work, _show_checkpoints if checkpoint else _show, as_json)


def _checkpoints(
    checkpoints: Sequence[str], data: Sequence[str], output: str | None, options: Sequence[str], settings: Any
) -> dict[str, Any]:
    if output is None:
        raise HfvlaError("where are the results to go?", where="--output", expected="a folder")
    sets, given = evaluation_sets(data), values_of_options(options)
    from hfvla.evaluation.checkpoint_comparison import compare_checkpoints

    return compare_checkpoints([expand_user(one) for one in checkpoints], sets, output, options=given, **settings)


def _show_checkpoints(result: Mapping[str, Any]) -> None:
    from hfvla.cli.tables import console, table
    from hfvla.evaluation.comparison_report import score_cell

    out, reference, others = console(), result["reference"], list(result["checkpoints"])[1:]
    for name, part in result["sets"].items():
        heads = ["", reference, *(head for one in others for head in (one, f"{one} - {reference}", ""))]
        rows = []
        for entry in part["metrics"]:
            cells = [entry["metric"], score_cell(entry["scores"][reference])]
            for one in others:
                own = entry["differences"][one]
                cells += [score_cell(entry["scores"][one]), score_cell(own, signed=True), own["verdict"]]
            rows.append(cells)
        out.print(table(f"{name} ({part['rows']} rows)", heads, rows))
    out.print(f"Comparison: {result['output_dir']}/comparison.md", soft_wrap=True)


def _show(result: Mapping[str, Any]) -> None:
    from hfvla.cli.tables import console, table
    from hfvla.evaluation.comparison_report import score_cell

    names = list(result["budget"]["samples_seen"])
    others = [name for name in names if name != result["reference"]]
    rows = [
        [
            entry["metric"],
            *(score_cell(entry["scores"][name]) for name in names),
            *(score_cell(entry["differences"][name], signed=True) for name in others),
        ]
        for entry in result["metrics"]
    ]
    out = console()
    out.print(table("scores", ["", *names, *(f"{name} - {result['reference']}" for name in others)], rows))
    stages = [
        [run["run"], run["seed"], run["samples_seen"], stage["name"], stage["epochs"], stage["seconds_per_epoch"],
         stage["best_epoch"], f"{stage['trainable_share']:.1%}"]
        for run in result["runs"]
        for stage in run["stages"]
    ]  # fmt: skip
    found = result.get("convergence")
    if found:
        parts = [
            f"{name} {'never' if count is None else f'{count:,.0f}'}"
            + ("" if found["speed_up"][name] is None else f" ({found['speed_up'][name]:.2f} x)")
            for name, count in found["samples"].items()
        ]
        told = f"samples until {found['metric']} {found['target']:.3g}, 95 % of {result['reference']}'s best"
        out.print(f"{told}: {', '.join(parts)}", soft_wrap=True)
    heads = ["run", "seed", "samples seen", "stage", "epochs", "s / epoch", "best epoch", "trains"]
    out.print(table("runs", heads, stages))
    out.print(f"Comparison: {result['output_dir']}/comparison.md", soft_wrap=True)

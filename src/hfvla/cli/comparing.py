"""`hfvla compare`: recipes trained at equal budget, and their scores side by side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from hfvla.cli.output import run_command
from hfvla.paths import expand_user

__all__ = ["compare"]


def compare(
    file: Annotated[str, typer.Argument(metavar="FILE", parser=expand_user, help="The comparison, a YAML file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="KEY=VALUE", help="Values to change in all its recipes.")
    ] = None,
    output: Annotated[
        str | None, typer.Option(metavar="DIR", parser=expand_user, help="Folder of runs and results.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")] = False,
) -> None:
    """Train recipes at equal budget and print their scores with intervals; finished runs are used as they are."""

    def work() -> Any:
        from hfvla.evaluation.comparison_file import load_comparison

        comparison = load_comparison(file)
        from hfvla.training.run.comparing import run_comparison

        return run_comparison(comparison, overrides or (), output)

    run_command(work, _show, as_json)


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
    heads = ["run", "seed", "samples seen", "stage", "epochs", "s / epoch", "best epoch", "trains"]
    out.print(table("runs", heads, stages))
    out.print(f"Comparison: {result['output_dir']}/comparison.md", soft_wrap=True)

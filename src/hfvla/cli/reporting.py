"""`hfvla report`: the report of a run or an evaluation, drawn from what it saved."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from hfvla.cli.output import run_command
from hfvla.paths import expand_user

__all__ = ["report"]


def report(
    folder: Annotated[
        str, typer.Argument(metavar="FOLDER", parser=expand_user, help="A run folder, or one that hfvla eval wrote.")
    ],
    output: Annotated[
        str | None,
        typer.Option(metavar="DIR", parser=expand_user, help="Folder for plots and report; default: FOLDER itself."),
    ] = None,
    png: Annotated[bool, typer.Option("--png", help="Draw each plot as PNG too.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")] = False,
) -> None:
    """Draw the report again from what was saved; nothing is trained or scored."""

    def work() -> Any:
        from hfvla.evaluation.run import remake_report

        return {"report": remake_report(folder, output, png)}

    def show(found: Mapping[str, Any]) -> None:
        typer.echo(f"Report: {found['report']}")

    run_command(work, show, as_json)

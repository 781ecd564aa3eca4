"""`hfvla eval --benchmarks`: public benchmarks that lie on disk."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hfvla.cli.output import run_command
from hfvla.errors import HfvlaError
from hfvla.paths import expand_user

__all__ = ["BenchmarkDir", "Benchmarks", "Limit", "run_benchmarks"]

_PANEL = "Public benchmarks"

Benchmarks = Annotated[
    str | None,
    typer.Option(
        metavar="NAME,...",
        help="Benchmarks in place of --data, e.g. mme,mmbench; or stage1 to stage4 for the lists of a curriculum.",
        rich_help_panel=_PANEL,
    ),
]
BenchmarkDir = Annotated[
    str | None,
    typer.Option(metavar="DIR", parser=expand_user, help="Folder of their files.", rich_help_panel=_PANEL),
]
Limit = Annotated[
    int | None, typer.Option(min=1, help="Only as many questions of each, for a quick test.", rich_help_panel=_PANEL)
]


def run_benchmarks(
    checkpoint: str,
    names: str,
    folder: str | None,
    output: str,
    data: Sequence[str] | None,
    limit: int | None,
    batch_size: int,
    seed: int,
    device: str | None,
    as_json: bool,
) -> None:
    """Run benchmarks and print their scores, with a line for each that was not run.

    Args:
        checkpoint: folder or hub id.
        names: benchmarks and stage lists, separated by commas.
        folder: of their files.
        output: an evaluation's folder.
        data: of `--data`, which does not go together with them.
        limit: questions of each.
        batch_size: questions a forward pass.
        seed: of what is drawn.
        device: torch device.
        as_json: print the record as JSON.
    """

    def work() -> Any:
        if folder is None:
            raise HfvlaError("--benchmarks needs the folder of their files", fix="Add --benchmark-dir DIR.")
        if data:
            raise HfvlaError("--benchmarks and --data are two evaluations", fix="Run one after the other.")
        asked = [name.strip() for name in names.split(",") if name.strip()]
        from hfvla.evaluation.benchmarks.checkpoint import evaluate_benchmarks

        run, record = evaluate_benchmarks(
            checkpoint, asked, folder, output, seed=seed, device=device, batch_size=batch_size, limit=limit
        )
        return record if as_json else run

    def show(run: Any) -> None:
        from hfvla.cli.tables import console
        from hfvla.evaluation.run import results_tables

        console().print(*results_tables(run.results), sep="\n", markup=True)
        for name, reason in run.not_run.items():
            console().print(f"Not run: {name}: {reason}", soft_wrap=True, markup=False)
        console().print(f"Scores: {Path(output) / 'evaluation_results.json'}", soft_wrap=True)
        console().print(f"Report: {Path(output) / 'report.html'}", soft_wrap=True)

    run_command(work, show, as_json)

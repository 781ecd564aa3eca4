"""`hfvla export`: a checkpoint for a robot, a phone or another server."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from hfvla.cli.output import importing, run_command
from hfvla.paths import expand_user

__all__ = ["export"]


def export(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", parser=expand_user, help="Checkpoint folder, or a hub id.")
    ],
    output: Annotated[str, typer.Option(metavar="DIR", parser=expand_user, help="New folder for the export.")],
    format_: Annotated[str, typer.Option("--format", help="onnx, openvino, or merged (the plain backbone).")] = "onnx",
    bits: Annotated[int, typer.Option(help="Of the weights: 32, 16, 8 or 4.")] = 32,
    method: Annotated[str, typer.Option(help="Of 8 bits in ONNX: blocks, dynamic, static or mixed.")] = "blocks",
    data: Annotated[
        str | None, typer.Option(metavar="SOURCE", help="Rows to compare on; default: the family's example rows.")
    ] = None,
    rows: Annotated[int, typer.Option(min=1, help="How many of them.")] = 64,
    least: Annotated[float, typer.Option(help="Share of rows that both must decide alike.")] = 0.995,
    threads: Annotated[int, typer.Option(min=0, help="Threads of the exported engine; 0 for all cores.")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of generated rows and resamples.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")] = False,
) -> None:
    """Write a checkpoint for another program, and compare both on the same rows; one that decides otherwise fails."""

    def work() -> Any:
        with importing():
            from hfvla.export.run import export_checkpoint

        return export_checkpoint(
            checkpoint, output, format=format_, bits=bits, method=method, data=data, rows=rows, least=least,
            threads=threads, seed=seed,
        )  # fmt: skip

    def show(found: Mapping[str, Any]) -> None:
        from rich.table import Table

        from hfvla.cli.tables import console
        from hfvla.export.parity import parity_figure

        figure = parity_figure(found)
        table = Table(title=f"{found['family']}: {found['format']}, {found['bits']} bits")
        for number, heading in enumerate(figure.data["columns"]):
            table.add_column(heading, justify="right" if number else "left")
        for row in figure.data["rows"]:
            table.add_row(*row)
        console().print(table)
        left = {part: names for part, names in found["left_whole"].items() if names}
        if left:
            console().print(f"Weights that stayed whole: {left}", soft_wrap=True)
        console().print(f"{found['output']}: parity.json, report.html", soft_wrap=True)

    run_command(work, show, as_json)

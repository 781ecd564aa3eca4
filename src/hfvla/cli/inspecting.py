"""`hfvla inspect`: what a checkpoint is, where it came from, and whether its files are whole."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from hfvla.cli.output import importing, run_command
from hfvla.paths import expand_user

__all__ = ["inspect"]


def inspect(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", parser=expand_user, help="Checkpoint folder, or a hub id.")
    ],
    load: Annotated[
        bool, typer.Option("--load", help="Also load it: names weights that are missing or do not fit.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")] = False,
) -> None:
    """Show a checkpoint's family, parts, adapters, stages, scores and files."""
    found: dict[str, Any] = {}

    def work() -> Any:
        with importing():
            from hfvla.evaluation.inspection import inspect_checkpoint

        found.update(inspect_checkpoint(checkpoint, load=load))
        return found

    run_command(work, _show, as_json)
    if str(found.get("loads", "yes")) != "yes" or str(found.get("contents", "")).startswith("changed"):
        raise typer.Exit(1)


def _show(found: Mapping[str, Any]) -> None:
    from hfvla.cli.tables import console, show_values, table

    out = console()
    weights = found["weights"]
    out.print(f"{found['family']}: {found['summary']}", style="bold", soft_wrap=True)
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in weights["dtypes"].items())
    out.print(f"{weights['parameters']:,} parameters in {weights['tensors']} tensors ({kinds})", soft_wrap=True)
    out.print(f"files: {found['contents']}", soft_wrap=True)
    if "loads" in found:
        out.print(f"loads: {found['loads']}", soft_wrap=True)
    shares = [[part, f"{count:,}", f"{count / weights['parameters']:.1%}"] for part, count in found["parts"].items()]
    out.print(table("parts", ["part", "parameters", "share"], shares))
    for adapter in found["adapters"]:
        show_values("adapter", adapter)
    run = dict(found["run"])
    stages = run.pop("stages", [])
    if run:
        show_values("run", {key: value for key, value in run.items() if value is not None})
        heads = list(stages[0]) if stages else []
        out.print(table("stages", [head.replace("_", " ") for head in heads], [list(one.values()) for one in stages]))
    for name, scores in found["scores"].items():
        out.print(table(f"scores: {name}", ["metric", "value"], scores.items()))
    out.print(table("files", ["file", "bytes"], [[name, f"{size:,}"] for name, size in found["files"].items()]))

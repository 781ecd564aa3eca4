"""`hfvla lora-targets` and `hfvla merge`: which layers take a LoRA adapter, and a checkpoint without any."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from hfvla.cli.output import importing, run_command
from hfvla.paths import expand_user

__all__ = ["lora_targets", "merge"]

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")]


def lora_targets(
    source: Annotated[
        str,
        typer.Argument(metavar="CHECKPOINT_OR_RECIPE", parser=expand_user, help="Folder, hub id, or recipe (.yaml)."),
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(metavar="GROUP", help="A group, group.last(n), or re:REGEX of module names, as in lora.target."),
    ] = None,
    rank: Annotated[int, typer.Option(min=1, help="Rank of the adapters that are counted.")] = 16,
    names: Annotated[bool, typer.Option("--names", help="List every module that a target matches.")] = False,
    as_json: AsJson = False,
) -> None:
    """List the layers that can take a LoRA adapter, by parameter group, and what a target matches."""

    def work() -> Any:
        with importing():
            from hfvla.training.estimate.lora_layers import describe_lora_targets

        return describe_lora_targets(source, target or (), rank)

    def show(found: Mapping[str, Any]) -> None:
        from hfvla.cli.tables import console, show_values

        show_values("", {key: found[key] for key in ("layers", "targets") if found[key]})
        for entry, modules in found["names"].items() if names else ():
            console().print(f"{entry}:", *modules, sep="\n  ")

    run_command(work, show, as_json)


def merge(
    checkpoint: Annotated[
        str, typer.Argument(metavar="CHECKPOINT", parser=expand_user, help="A stage's folder, or one with adapter/.")
    ],
    output: Annotated[
        str, typer.Option(metavar="DIR", parser=expand_user, help="New folder for the plain checkpoint.")
    ],
    base: Annotated[
        str | None,
        typer.Option(
            metavar="DIR", parser=expand_user, help="Checkpoint the adapters were trained on, if it is not in there."
        ),
    ] = None,
    dtype: Annotated[
        str | None, typer.Option(help="float32, bfloat16 or float16; default: as the weights are.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Write a checkpoint with its LoRA adapters merged in, to deploy or to share."""

    def work() -> Any:
        with importing():
            from hfvla.training.checkpoint.merging import merge_checkpoint

        return merge_checkpoint(checkpoint, output, base=base, dtype=dtype)

    def show(summary: Mapping[str, Any]) -> None:
        from hfvla.cli.tables import show_values

        show_values("", summary)

    run_command(work, show, as_json)

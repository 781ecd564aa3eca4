"""`hfvla new-family`: a package with a family that trains, to start from."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hfvla.cli.output import importing, run_command
from hfvla.paths import expand_user

__all__ = ["new_family"]


def new_family(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Of the family and its package, e.g. wave_reader.")],
    output: Annotated[
        str | None, typer.Option(metavar="DIR", parser=expand_user, help="New folder; default: the name.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")] = False,
) -> None:
    """Write a package with a model family of your own, which trains as it is."""

    def work() -> Any:
        with importing():
            from hfvla.recipe.skeleton import write_family
            from hfvla.registry import available_families

        return {"folder": output or name, "files": write_family(name, output, available_families())}

    def show(found: Any) -> None:
        typer.echo(f"Written to {found['folder']}: {', '.join(found['files'])}")
        typer.echo(f"Next:\n  cd {found['folder']}\n  pip install -e .\n  hfvla train tiny.yaml")

    run_command(work, show, as_json)

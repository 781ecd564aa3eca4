"""`hfvla recipes`: the recipes that come with the package, listed and copied."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hfvla.cli.output import run_command
from hfvla.paths import expand_user

__all__ = ["recipes"]


def recipes(
    name: Annotated[str | None, typer.Argument(metavar="NAME", help="One of them, as family/recipe.")] = None,
    output: Annotated[
        str | None, typer.Option(metavar="FILE", parser=expand_user, help="Copy it to this file.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")] = False,
) -> None:
    """List the recipes that come with hfvla, print one, or copy it to a file of your own."""

    def work() -> Any:
        from hfvla.errors import HfvlaError
        from hfvla.recipe.shipped import copy_recipe, shipped_recipes

        if output is not None:
            if name is None:
                raise HfvlaError("which recipe?", where="--output", got=output, fix="Name one: hfvla recipes NAME.")
            return {"recipe": name, "file": str(copy_recipe(name, output, overwrite))}
        known = shipped_recipes()
        if name is None:
            return {one: _first_line(path.read_text(encoding="utf-8")) for one, path in known.items()}
        if name not in known:
            copy_recipe(name, "unused")  # says which there are
        return {"recipe": name, "text": known[name].read_text(encoding="utf-8")}

    def show(found: Any) -> None:
        from hfvla.cli.tables import show_values

        if "text" in found:
            typer.echo(found["text"], nl=False)
        else:
            show_values("", found)

    run_command(work, show, as_json)


def _first_line(text: str) -> str:
    line = text.splitlines()[0]
    return line.removeprefix("# ") if line.startswith("#") else ""

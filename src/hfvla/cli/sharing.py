"""`hfvla push`: a checkpoint, its card and its report to the hub."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from hfvla.cli.output import run_command
from hfvla.paths import expand_user

__all__ = ["push"]


def push(
    folder: Annotated[
        str, typer.Argument(metavar="DIR", parser=expand_user, help="Folder of a run, or of a checkpoint.")
    ],
    repo: Annotated[str, typer.Argument(metavar="REPO", help="Repository on the hub, as user/name.")],
    what: Annotated[
        str, typer.Option(help="final (for hfvla), adapter (for peft) or merged (for transformers).")
    ] = "final",
    public: Annotated[
        bool, typer.Option("--public", help="Let everybody see a repository that is made here.")
    ] = False,
    license_: Annotated[
        str | None, typer.Option("--license", help="Licence of the weights, for the card, e.g. apache-2.0.")
    ] = None,
    code: Annotated[
        bool, typer.Option("--code", help="Push the family's code along with final, for people without hfvla.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")] = False,
) -> None:
    """Push a checkpoint with its model card and report to the hub, in one commit."""

    def work() -> Any:
        from pydantic import ValidationError

        from hfvla.errors import RecipeError
        from hfvla.recipe.schema import HubRecipe

        given: Mapping[str, Any] = {"repo": repo, "private": not public, "what": what, "license": license_,
                                    "code": code}  # fmt: skip
        try:
            hub = HubRecipe.model_validate(given)
        except ValidationError as error:
            lines = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}; got {one['input']!r}" for one in error.errors()]
            raise RecipeError(lines) from None
        from hfvla.hub.forms import push_checkpoint

        return push_checkpoint(folder, hub)

    def show(done: Mapping[str, Any]) -> None:
        from hfvla.cli.tables import show_values

        show_values("", done)

    run_command(work, show, as_json)

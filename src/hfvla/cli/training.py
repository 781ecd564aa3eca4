"""`hfvla train`: all stages of a recipe, or a part of them, and the scores at the end."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from hfvla.cli.output import importing, run_command
from hfvla.paths import expand_user

__all__ = ["AsJson", "Overrides", "RecipeFile", "train"]

RecipeFile = Annotated[str, typer.Argument(metavar="RECIPE", parser=expand_user, help="The recipe, a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Recipe values to change, e.g. stages.select.args.learning_rate=1e-4."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")]
Output = Annotated[
    str | None, typer.Option(metavar="DIR", parser=expand_user, help="Run folder; default: the recipe's.")
]
FromCheckpoint = Annotated[
    str | None,
    typer.Option("--from", metavar="DIR", parser=expand_user, help="Checkpoint that stands for the stage before."),
]
Extend = Annotated[
    str | None, typer.Option(metavar="STAGE", help="A finished stage that trains on, for as long as now asked.")
]
ResumeFrom = Annotated[
    str | None, typer.Option(metavar="[STAGE/]checkpoint-N", help="An earlier checkpoint to go on from.")
]


def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    output: Output = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run in that folder.")] = False,
    allow_recipe_change: Annotated[
        bool, typer.Option("--allow-recipe-change", help="Go on with a recipe that was changed since.")
    ] = False,
    start_at: Annotated[str | None, typer.Option(metavar="STAGE", help="First stage to run; needs --from.")] = None,
    from_checkpoint: FromCheckpoint = None,
    stop_after: Annotated[str | None, typer.Option(metavar="STAGE", help="Last stage to run.")] = None,
    extend: Extend = None,
    resume_from: ResumeFrom = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="One real batch through every stage and phase; leaves nothing on disk.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run all stages of a recipe, then score the result."""
    if dry_run:
        from hfvla.cli.planning import try_recipe

        given = {"--output": output, "--overwrite": overwrite, "--extend": extend, "--resume-from": resume_from}
        writes = [name for name, value in given.items() if value]
        return try_recipe(recipe, overrides or (), start_at, from_checkpoint, stop_after, writes, as_json)

    def work() -> Any:
        with importing():
            from hfvla.recipe import load_recipe

            loaded = load_recipe(recipe, overrides or ())
            from hfvla.training.run.run import run_recipe

        return run_recipe(
            loaded, output_dir=output, overwrite=overwrite, allow_recipe_change=allow_recipe_change, start_at=start_at,
            from_checkpoint=from_checkpoint, stop_after=stop_after, extend=extend, resume_from=resume_from,
        )  # fmt: skip

    def show(summary: Any) -> None:
        from hfvla.cli.tables import show_training

        show_training(summary)

    run_command(work, show, as_json)

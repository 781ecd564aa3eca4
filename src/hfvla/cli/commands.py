"""The commands of `hfvla`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hfvla import __version__
from hfvla.cli.adapting import lora_targets, merge
from hfvla.cli.answering import predict
from hfvla.cli.asking import AskCommand
from hfvla.cli.chatting import chat
from hfvla.cli.comparing import compare
from hfvla.cli.creating import new_family
from hfvla.cli.data_sets import data
from hfvla.cli.demonstrating import demo
from hfvla.cli.evaluating import evaluate
from hfvla.cli.exporting import export
from hfvla.cli.inspecting import inspect
from hfvla.cli.output import importing, run_command, to_json
from hfvla.cli.planning import plan
from hfvla.cli.reporting import report
from hfvla.cli.searching import index, search
from hfvla.cli.serving import serve
from hfvla.cli.sharing import push
from hfvla.cli.shipping import recipes
from hfvla.cli.training import AsJson, Overrides, RecipeFile, train
from hfvla.errors import HfvlaError
from hfvla.paths import expand_user

__all__ = ["app"]

app = typer.Typer(
    name="hfvla",
    help="Staged training of vision-language(-action) models on the Hugging Face Trainer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(asked: bool) -> None:
    if asked:
        typer.echo(f"hfvla {__version__}")
        raise typer.Exit()


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


app.command()(train)
app.command()(plan)


@app.command()
def cache(
    recipe: RecipeFile,
    overrides: Overrides = None,
    stage: Annotated[str | None, typer.Option(metavar="STAGE", help="Only this stage's cache.")] = None,
    output: Annotated[
        str | None, typer.Option(metavar="DIR", parser=expand_user, help="Run folder; default: the recipe's.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Compute the output of a recipe's frozen parts ahead of training, once a sample."""

    def work() -> Any:
        with importing():
            from hfvla.recipe import load_recipe

            loaded = load_recipe(recipe, overrides or ())
            from hfvla.training.run.build_caches import build_caches

        return {"caches": build_caches(loaded, stage=stage, output_dir=output)}

    def show(result: Any) -> None:
        from hfvla.cli.tables import show_values

        show_values("", result)

    run_command(work, show, as_json)


app.command("eval")(evaluate)
app.command(cls=AskCommand)(predict)
app.add_typer(data, name="data")
app.command()(index)
app.command()(search)
app.command()(serve)
app.command()(demo)
app.command()(report)
app.command()(compare)
app.command()(inspect)
app.command("lora-targets")(lora_targets)
app.command()(merge)
app.command()(push)
app.command()(chat)
app.command()(export)
app.command()(recipes)
app.command("new-family")(new_family)


@app.command()
def schema(
    family: Annotated[str | None, typer.Option(help="Only recipes of this family.")] = None,
    output: Annotated[str | None, typer.Option(metavar="FILE", parser=expand_user, help="Write to a file.")] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")] = False,
) -> None:
    """Print the JSON schema of recipes, for completion in an editor."""

    def work() -> Any:
        from hfvla.outputs import claim_file
        from hfvla.recipe import recipe_json_schema

        if output is not None:
            claim_file(output, overwrite, "--output")
        text = to_json(recipe_json_schema(family))
        if output is None:
            return text
        try:
            Path(output).write_text(text + "\n", encoding="utf-8")
        except OSError as error:
            raise HfvlaError(f"the schema cannot be written: {error.strerror}", where=output) from error
        return f"Schema: {output}"

    run_command(work, typer.echo, as_json=False)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Print what hfvla finds on this machine, and how to fix what is missing."""
    checks: list[Any] = []

    def work() -> Any:
        from hfvla.cli.doctor import diagnose

        checks.extend(diagnose())
        return {"checks": checks, "failed": _failed(checks)} if as_json else checks

    def show(found: Any) -> None:
        from hfvla.cli.tables import checks_table

        checks_table(found)

    run_command(work, show, as_json)
    if _failed(checks):
        raise typer.Exit(1)


def _failed(checks: Sequence[Any]) -> int:
    return sum(check.status == "fail" for check in checks)


@app.command()
def families(as_json: AsJson = False) -> None:
    """List the model families, and the names their recipes may use."""

    def work() -> Any:
        from hfvla.cli.families import describe_families

        return describe_families()

    def show(found: Any) -> None:
        from hfvla.cli.tables import show_families

        show_families(found)

    run_command(work, show, as_json)

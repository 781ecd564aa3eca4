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
from hfvla.cli.benchmarking import BenchmarkDir, Benchmarks, Limit, run_benchmarks
from hfvla.cli.comparing import compare
from hfvla.cli.output import run_command, to_json
from hfvla.cli.planning import plan
from hfvla.cli.reporting import report
from hfvla.cli.searching import index, search
from hfvla.cli.serving import serve
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

RecipeFile = Annotated[str, typer.Argument(metavar="RECIPE", parser=expand_user, help="The recipe, a YAML file.")]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(metavar="KEY=VALUE", help="Recipe values to change, e.g. stages.select.args.learning_rate=1e-4."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")]
Checkpoint = Annotated[
    str, typer.Option("--checkpoint", metavar="DIR", parser=expand_user, help="Checkpoint folder, or a hub id.")
]
Device = Annotated[str | None, typer.Option(help="Torch device, e.g. cpu or cuda:0; default: a GPU if there is one.")]


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


@app.command()
def train(
    recipe: RecipeFile,
    overrides: Overrides = None,
    output: Annotated[
        str | None, typer.Option(metavar="DIR", parser=expand_user, help="Run folder; default: the recipe's.")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Delete the run in that folder.")] = False,
    allow_recipe_change: Annotated[
        bool, typer.Option("--allow-recipe-change", help="Go on with a recipe that was changed since.")
    ] = False,
    start_at: Annotated[str | None, typer.Option(metavar="STAGE", help="First stage to run; needs --from.")] = None,
    from_checkpoint: Annotated[
        str | None,
        typer.Option("--from", metavar="DIR", parser=expand_user, help="Checkpoint that stands for the stage before."),
    ] = None,
    stop_after: Annotated[str | None, typer.Option(metavar="STAGE", help="Last stage to run.")] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="One real batch through every stage and phase; leaves nothing on disk.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Run all stages of a recipe, then score the result."""
    if dry_run:
        from hfvla.cli.planning import try_recipe

        writes = output is not None or overwrite
        return try_recipe(recipe, overrides or (), start_at, from_checkpoint, stop_after, writes, as_json)

    def work() -> Any:
        from hfvla.recipe import load_recipe

        loaded = load_recipe(recipe, overrides or ())
        from hfvla.training.run.run import run_recipe

        return run_recipe(
            loaded,
            output_dir=output,
            overwrite=overwrite,
            allow_recipe_change=allow_recipe_change,
            start_at=start_at,
            from_checkpoint=from_checkpoint,
            stop_after=stop_after,
        )

    def show(summary: Any) -> None:
        from hfvla.cli.tables import show_training

        show_training(summary)

    run_command(work, show, as_json)


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
        from hfvla.recipe import load_recipe

        loaded = load_recipe(recipe, overrides or ())
        from hfvla.training.run.build_caches import build_caches

        return {"caches": build_caches(loaded, stage=stage, output_dir=output)}

    def show(result: Any) -> None:
        from hfvla.cli.tables import show_values

        show_values("", result)

    run_command(work, show, as_json)


def _evaluation_sets(arguments: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Return sets by name from --data; a source used twice gets a number."""
    from hfvla.recipe import parse_data_argument

    sets: dict[str, dict[str, Any]] = {}
    for argument in arguments:
        source, options = parse_data_argument(argument)
        name, count = source, 1
        while name in sets:
            count += 1
            name = f"{source}_{count}"
        sets[name] = options
    return sets


def _values(arguments: Sequence[str]) -> dict[str, Any]:
    """Return values by name from NAME=VALUE, read as in a recipe."""
    from hfvla.recipe.document import parse_value

    found = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not name or not equals:
            raise HfvlaError("not an option", where="--option", got=argument, expected="NAME=VALUE")
        found[name] = parse_value(value, f"--option {name}")
    return found


@app.command("eval")
def evaluate(
    checkpoint: Checkpoint,
    output: Annotated[
        str,
        typer.Option(metavar="DIR", parser=expand_user, help="Folder for metrics and report; a run's own is refused."),
    ],
    data: Annotated[
        list[str] | None,
        typer.Option(
            metavar="SOURCE", help="SOURCE, SOURCE=FILE or SOURCE:key=value,key=value; repeat for more sets."
        ),
    ] = None,
    benchmarks: Benchmarks = None,
    benchmark_dir: BenchmarkDir = None,
    limit: Limit = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples a forward pass.")] = 32,
    max_generate: Annotated[int, typer.Option(min=0, help="Samples of a set for which text is generated.")] = 64,
    option: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of the family's evaluation; repeat.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of bootstraps and generated data.")] = 0,
    device: Device = None,
    as_json: AsJson = False,
) -> None:
    """Score a checkpoint on data sets or on public benchmarks, beside its baselines."""
    if benchmarks is not None:
        return run_benchmarks(
            checkpoint, benchmarks, benchmark_dir, output, data, limit, batch_size, seed, device, as_json
        )

    def work() -> Any:
        if benchmark_dir is not None or limit is not None:
            raise HfvlaError(
                "--benchmark-dir and --limit go with --benchmarks", fix="Name benchmarks, or leave them away."
            )
        sets = _evaluation_sets(data or ())
        from hfvla.evaluation.run import evaluate_checkpoint, metrics_json

        results = evaluate_checkpoint(
            checkpoint, sets, output, seed=seed, device=device, batch_size=batch_size, max_generate=max_generate,
            options=_values(option or ()),
        )  # fmt: skip
        if not as_json:
            return results
        return {"output_dir": output, "results": {name: metrics_json(result) for name, result in results.items()}}

    def show(results: Any) -> None:
        from hfvla.cli.tables import console
        from hfvla.evaluation.run import results_table

        console().print(results_table(results), markup=True)
        console().print(f"Report: {Path(output) / 'report.html'}", soft_wrap=True)

    run_command(work, show, as_json)


app.command(cls=AskCommand)(predict)
app.command()(index)
app.command()(search)
app.command()(serve)
app.command()(report)
app.command()(compare)
app.command("lora-targets")(lora_targets)
app.command()(merge)


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

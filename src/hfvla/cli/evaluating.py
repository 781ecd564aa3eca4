"""`hfvla eval`: a checkpoint scored on data sets, or on public benchmarks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hfvla.cli.benchmarking import BenchmarkDir, Benchmarks, Limit, run_benchmarks
from hfvla.cli.output import importing, run_command
from hfvla.errors import HfvlaError
from hfvla.paths import expand_user

__all__ = ["evaluate", "evaluation_sets", "values_of_options"]

Checkpoint = Annotated[
    str, typer.Option("--checkpoint", metavar="DIR", parser=expand_user, help="Checkpoint folder, or a hub id.")
]
Output = Annotated[
    str,
    typer.Option(metavar="DIR", parser=expand_user, help="Folder for metrics and report; a run's own is refused."),
]
Data = Annotated[
    list[str] | None,
    typer.Option(metavar="SOURCE", help="SOURCE, SOURCE=FILE or SOURCE:key=value,key=value; repeat for more sets."),
]
FamilyOption = Annotated[
    list[str] | None, typer.Option(metavar="NAME=VALUE", help="An option of the family's evaluation; repeat.")
]
ReportTo = Annotated[
    list[str] | None,
    typer.Option(metavar="TRACKER", help="Also log scores and figures: tensorboard, wandb or trackio; repeat."),
]
Device = Annotated[str | None, typer.Option(help="Torch device, e.g. cpu or cuda:0; default: a GPU if there is one.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")]


def evaluation_sets(arguments: Sequence[str]) -> dict[str, dict[str, Any]]:
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


def values_of_options(arguments: Sequence[str]) -> dict[str, Any]:
    """Return values by name from NAME=VALUE, read as in a recipe."""
    from hfvla.recipe.document import parse_value

    found = {}
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if not name or not equals:
            raise HfvlaError("not an option", where="--option", got=argument, expected="NAME=VALUE")
        found[name] = parse_value(value, f"--option {name}")
    return found


def _tracking(report_to: list[str] | None, output: str, checkpoint: str) -> Callable[[Any], None]:
    """Return what logs the results; a tracker that is not installed is said before the scoring."""
    if not report_to:
        return lambda results: None
    from hfvla.training.run.trackers import chosen_trackers, track_evaluation

    chosen_trackers(report_to)
    return lambda results: track_evaluation(report_to, results, Path(output), Path(checkpoint).name)


def evaluate(
    checkpoint: Checkpoint,
    output: Output,
    data: Data = None,
    benchmarks: Benchmarks = None,
    benchmark_dir: BenchmarkDir = None,
    limit: Limit = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Samples a forward pass.")] = 32,
    max_generate: Annotated[int, typer.Option(min=0, help="Samples of a set for which text is generated.")] = 64,
    option: FamilyOption = None,
    report_to: ReportTo = None,
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
        sets = evaluation_sets(data or ())
        track = _tracking(report_to, output, checkpoint)
        with importing():
            from hfvla.evaluation.run import evaluate_checkpoint, metrics_json

        results = evaluate_checkpoint(
            checkpoint, sets, output, seed=seed, device=device, batch_size=batch_size, max_generate=max_generate,
            options=values_of_options(option or ()),
        )  # fmt: skip
        track(results)
        if not as_json:
            return results
        return {"output_dir": output, "results": {name: metrics_json(result) for name, result in results.items()}}

    def show(results: Any) -> None:
        from hfvla.cli.tables import console
        from hfvla.evaluation.run import results_tables

        console().print(*results_tables(results), sep="\n", markup=True)
        console().print(f"Report: {Path(output) / 'report.html'}", soft_wrap=True)

    run_command(work, show, as_json)

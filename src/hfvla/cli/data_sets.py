"""`hfvla data`: what lies at a path, what is wrong with it, and the same in another format."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from hfvla.cli.output import run_command
from hfvla.errors import HfvlaError
from hfvla.paths import expand_user

__all__ = ["data"]

data = typer.Typer(help="Look at data, check it, convert it.", no_args_is_help=True, add_completion=False)

DataPath = Annotated[str, typer.Argument(metavar="PATH", parser=expand_user, help="File or folder.")]
SourceName = Annotated[
    str | None, typer.Option(metavar="NAME", help="Source that reads it (`hfvla families`); default: all are tried.")
]
SourceOption = Annotated[list[str] | None, typer.Option(metavar="NAME=VALUE", help="Option of the source; repeat.")]
Seed = Annotated[int, typer.Option(min=0, help="Seed of the choice of rows.")]
Rows = Annotated[int, typer.Option(min=1, help="Rows that texts and pictures are looked at of.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")]


def _read(path: str, source: str | None, option: Sequence[str] | None) -> Any:
    from hfvla.cli.evaluating import values_of_options
    from hfvla.data.inspection.finding import read_path, sources_of_paths
    from hfvla.registry import available_families

    sources = sources_of_paths({name: spec.sources for name, spec in available_families().items()})
    return read_path(path, sources, source, values_of_options(option or ()))


def _is_recipe(path: str) -> bool:
    return Path(path).suffix in (".yaml", ".yml")


def _recipe_sets(paths: Sequence[str]) -> tuple[list[Any], list[Any]]:
    """Return what the recipes among some paths train on, and what they are scored on."""
    trained: list[Any] = []
    scored: list[Any] = []
    for path in filter(_is_recipe, paths):
        from hfvla.recipe import load_recipe
        from hfvla.training.stage.data import recipe_sets

        one, other = recipe_sets(load_recipe(path))
        trained, scored = trained + one, scored + other
    return trained, scored


@data.command()
def inspect(
    path: DataPath,
    source: SourceName = None,
    option: SourceOption = None,
    sheet: Annotated[
        str | None,
        typer.Option(metavar="FILE", parser=expand_user, help="Write a contact sheet of samples, an HTML file."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Samples on the contact sheet.")] = 24,
    checkpoint: Annotated[
        str | None,
        typer.Option(metavar="DIR", parser=expand_user, help="Show samples as this checkpoint's model sees them."),
    ] = None,
    rows: Rows = 2000,
    seed: Seed = 0,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a contact sheet that is there.")] = False,
    as_json: AsJson = False,
) -> None:
    """Say what a file or folder is read as: formats, counts, what is unusable, lengths, sizes, samples."""

    def work() -> Any:
        from hfvla.data.inspection.sampling import write_sheet
        from hfvla.data.inspection.summary import describe
        from hfvla.outputs import claim_file

        if sheet is not None:
            claim_file(sheet, overwrite, "--sheet")
        viewer, lengths = None, None
        if checkpoint is not None:
            from hfvla.evaluation.seeing import viewer_of_checkpoint

            viewer, lengths = viewer_of_checkpoint(checkpoint)
        found = _read(path, source, option)
        tokens = (lambda row: lengths([row])[0]) if lengths else (lambda row: viewer(row).tokens) if viewer else None
        result = describe(found, rows, seed, tokens)
        if sheet is not None:
            result["sheet"] = {"file": sheet, "samples": write_sheet(found, Path(sheet), samples, seed, viewer)}
        return result

    def show(result: Any) -> None:
        from hfvla.cli.data_tables import show_inspection

        show_inspection(result)

    run_command(work, show, as_json)


@data.command()
def check(
    paths: Annotated[
        list[str],
        typer.Argument(
            metavar="PATH", parser=expand_user, help="What is trained on, or a recipe with its evaluation sets."
        ),
    ],
    against: Annotated[
        list[str] | None,
        typer.Option(metavar="PATH", parser=expand_user, help="Evaluation set that must share nothing; repeat."),
    ] = None,
    source: SourceName = None,
    option: SourceOption = None,
    rows: Annotated[int, typer.Option(min=1, help="Rows of a set that are looked at, drawn by the seed.")] = 100_000,
    near_bits: Annotated[
        int, typer.Option(min=0, max=7, help="Bits of 64 by which hashes of pictures that look alike may differ.")
    ] = 5,
    seed: Seed = 0,
    as_json: AsJson = False,
) -> None:
    """Look for leaks between splits and into evaluation sets, imbalance, outliers; ends with 1 where data leak."""
    failed: list[int] = []

    def work() -> Any:
        from hfvla.data.inspection.checks import check_sets
        from hfvla.data.inspection.splitting import checked_sets

        trained, scored = _recipe_sets(paths)
        trained += [_read(path, source, option) for path in paths if not _is_recipe(path)]
        scored += [_read(path, source, option) for path in against or ()]
        training = [one for found in trained for one in checked_sets(found, rows, seed)]
        held = [one for found in scored for one in checked_sets(found, rows, seed, whole=True)]
        findings = check_sets(training, held, near_bits)
        failed.append(sum(one.status == "fail" for one in findings))
        return {"failed": failed[0], "findings": findings} if as_json else findings

    def show(findings: Any) -> None:
        from hfvla.cli.data_tables import show_findings

        show_findings(findings)

    run_command(work, show, as_json)
    if failed and failed[0]:
        raise typer.Exit(1)


@data.command()
def convert(
    path: DataPath,
    output: Annotated[str, typer.Argument(metavar="DIR", parser=expand_user, help="New folder.")],
    to: Annotated[str, typer.Option(metavar="FORMAT", help="jsonl, parquet, webdataset or lerobot.")] = "jsonl",
    source: SourceName = None,
    option: SourceOption = None,
    shard: Annotated[int, typer.Option(min=1, help="Rows of a Parquet file or a tar.")] = 5000,
    lossless: Annotated[bool, typer.Option("--lossless", help="Cameras as PNG, not as videos; for lerobot.")] = False,
    as_json: AsJson = False,
) -> None:
    """Write conversations as JSON lines, Parquet or tars that hold their pictures, and robot episodes for LeRobot."""

    def work() -> Any:
        from hfvla.data.inspection.converting import FORMATS, convert_rows
        from hfvla.data.inspection.episodes import convert_episodes, is_episodes

        if to not in (*FORMATS, "lerobot"):
            raise HfvlaError("no such format", where="--to", got=to, expected=", ".join((*FORMATS, "lerobot")))
        found = _read(path, source, option)
        if is_episodes(found.data.dataset) != (to == "lerobot"):
            raise HfvlaError(
                "these rows have another format",
                where=f"--to {to}",
                got=f"{path}, read as {found.source}",
                fix="Robot episodes go --to lerobot, conversations to the others.",
            )
        if to == "lerobot":
            result = convert_episodes(found.data.dataset, output, path, lossless)
        else:
            result = convert_rows(found.data.dataset, output, to, shard, path)
        return {**result, "read_as": found.source}

    def show(result: Mapping[str, Any]) -> None:
        from hfvla.cli.tables import show_values

        show_values("", result)

    run_command(work, show, as_json)

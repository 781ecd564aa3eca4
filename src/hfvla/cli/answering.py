"""`hfvla predict`: one answer to one request, or a file of answers to a whole data source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hfvla.cli.asking import asked_values, read_request
from hfvla.cli.output import chosen_device, run_command
from hfvla.errors import DataError, HfvlaError
from hfvla.family import FamilySpec
from hfvla.outputs import check_writable, claim_file
from hfvla.paths import expand_user

__all__ = ["predict"]

_FILE = "A file of answers"


def _file_option(text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=_FILE, **more)


Checkpoint = Annotated[
    str, typer.Option("--checkpoint", metavar="DIR", parser=expand_user, help="Checkpoint folder, or a hub id.")
]
RequestFile = Annotated[
    str | None,
    typer.Option("--request", metavar="FILE", parser=expand_user, help="The request, as a JSON file; - for stdin."),
]
Csv = Annotated[
    str | None,
    _file_option("Answer all of --data into this file; goes on where it stopped.", metavar="FILE", parser=expand_user),
]
Deadline = Annotated[float, _file_option("Seconds a question may take, else it has no answer; 0 = no limit.", min=0)]


def predict(
    ctx: typer.Context,
    checkpoint: Checkpoint,
    request: RequestFile = None,
    data: Annotated[str | None, _file_option("SOURCE=FILE or SOURCE:key=value,...", metavar="SOURCE")] = None,
    csv: Csv = None,
    limit: Annotated[int | None, _file_option("Only the first questions, for a quick test.", min=1)] = None,
    deadline: Deadline = 30.0,
    id_column: Annotated[str, _file_option("Heading of the column of ids, e.g. question_id.")] = "id",
    retry_failed: Annotated[bool, _file_option("Ask failed questions again.", "--retry-failed")] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a file that would be written.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="Seed of what is drawn: generated data, a model's noise.")] = 0,
    device: Annotated[str | None, typer.Option(help="Torch device; default: a GPU if there is one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")] = False,
) -> None:
    """Print a checkpoint's answer to one request, or write its answers to a whole test file.

    What can be asked is the checkpoint's family to say: `hfvla predict --checkpoint DIR --help` shows it.
    """

    def work() -> Any:
        if (csv is None) != (data is None):
            raise HfvlaError("--csv and --data go together", got=f"--csv {csv}, --data {data}")
        from hfvla.registry import family_of_checkpoint

        spec = family_of_checkpoint(checkpoint)
        given = {**read_request(request), **asked_values(ctx, spec.request)}
        if csv is not None and data is not None:
            file: dict[str, Any] = {
                "path": csv,
                "id_column": id_column,
                "limit": limit,
                "deadline_s": deadline or None,
            }
            file |= {"deadline_s": deadline or None, "overwrite": overwrite, "retry_failed": retry_failed}
            file |= {"given": _for_all(spec, given)}
            return _answer_file(checkpoint, data, file, seed, device)
        return _answer(checkpoint, _checked(spec, given, overwrite), seed, device)

    run_command(work, _show, as_json)


def _show(answer: Any) -> None:
    from hfvla.cli.tables import show_values

    show_values("", answer)


def _checked(spec: FamilySpec, given: dict[str, Any], overwrite: bool) -> dict[str, Any]:
    """Return what the family's `predict` is asked; files are looked at here, before a model is loaded."""
    if spec.request is None:
        if not given:
            raise HfvlaError(f"what is {spec.name} to answer?", expected="--request FILE.json")
        return given
    asked = spec.request.check(given, as_options=True)
    for field in spec.request.fields:
        if field.kind == "output" and field.name in asked:
            claim_file(asked[field.name], overwrite, field.flag, error=DataError)
    return asked


def _for_all(spec: FamilySpec, given: dict[str, Any]) -> dict[str, Any]:
    """Return the fields of a request that hold for all questions of a file."""
    known = {field.name: field for field in (spec.request.fields if spec.request else ())}
    alone = [known[name].flag if name in known else name for name in given
             if name not in known or not known[name].whole_file]  # fmt: skip
    if alone:
        raise HfvlaError("--csv answers a whole file", got=", ".join(alone), fix="Leave that away.")
    return spec.request.check(given, as_options=True, partial=True) if spec.request else {}


def _answer(checkpoint: str, request: dict[str, Any], seed: int, device: str | None) -> Any:
    from transformers import set_seed

    from hfvla.registry import load_checkpoint

    place = chosen_device(device)
    spec, model, processor = load_checkpoint(checkpoint)
    if place != "cpu":
        model = model.to(place)
    set_seed(seed)
    return spec.ask(model, processor, request)


def _answer_file(checkpoint: str, data: str, file: Mapping[str, Any], seed: int, device: str | None) -> dict[str, Any]:
    from hfvla.family import AnswerFile, resolve
    from hfvla.recipe import build_options, parse_data_argument
    from hfvla.registry import family_of_checkpoint, load_checkpoint

    name, entry = parse_data_argument(data)
    spec = family_of_checkpoint(checkpoint)
    if spec.path("answer_file") is None:
        raise HfvlaError("this family writes no file of answers", got=spec.name, fix="Use `hfvla eval`.")
    check_writable(file["path"], "--csv", error=DataError)
    place = chosen_device(device)
    options = {key: value for key, value in entry.items() if key != "source"}
    built = build_options(spec, name, options, where=f"--data {name}")
    if "max_bad_fraction" in type(built).model_fields and "max_bad_fraction" not in built.model_fields_set:
        built = built.model_copy(update={"max_bad_fraction": 1.0})  # the file names every question it cannot answer
    source = resolve(spec.source(name).build)(built, seed=seed)
    settings = {**_identity(checkpoint), "data": data, "seed": seed}
    spec, model, processor = load_checkpoint(checkpoint)
    request = AnswerFile(settings=settings, device=place, **file)
    return spec.load("answer_file")(model.to(request.device), processor, source, request)


def _identity(checkpoint: str) -> dict[str, Any]:
    """Return what tells a checkpoint from another one, and from what lay in its folder before."""
    from hfvla.fetching import local_checkpoint

    folder = local_checkpoint(checkpoint)
    if not Path(checkpoint).is_dir():
        return {"checkpoint": checkpoint, "commit": folder.name}  # the cache calls a snapshot by its commit
    weights = sorted(
        (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.glob("*.safetensors")
    )
    return {"checkpoint": str(folder.resolve()), "weights": weights}

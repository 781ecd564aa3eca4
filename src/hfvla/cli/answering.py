"""`hfvla predict`: one answer to one request, pictures for a text, or a file of answers to a whole data source."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from hfvla.cli.output import chosen_device, run_command
from hfvla.errors import DataError, HfvlaError
from hfvla.paths import expand_user

__all__ = ["predict"]

_FILE = "A file of answers"


def _file_option(text: str, *names: str, **more: Any) -> Any:
    return typer.Option(*names, help=text, rich_help_panel=_FILE, **more)


Generate = Annotated[bool, typer.Option("--generate", help="Let the model write its answer to a question.")]
Text = Annotated[str | None, typer.Option(help="A description; finds the pictures of --gallery that fit it.")]
Image = Annotated[str | None, typer.Option(metavar="FILE", parser=expand_user, help="Picture of the scene.")]
Video = Annotated[str | None, typer.Option(metavar="FILE", parser=expand_user, help="Video that a question is about.")]
Gallery = Annotated[
    str | None, typer.Option(metavar="DIR", parser=expand_user, help="Folder of pictures that are searched.")
]
Csv = Annotated[
    str | None,
    _file_option("Answer all of --data into this file; goes on where it stopped.", metavar="FILE", parser=expand_user),
]
Deadline = Annotated[float, _file_option("Seconds a question may take, else it has no answer; 0 = no limit.", min=0)]


def predict(
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", metavar="DIR", parser=expand_user, help="Checkpoint folder, or a hub id.")
    ],
    task: Annotated[str | None, typer.Option(help="What is to be done, in words.")] = None,
    image: Image = None,
    video: Video = None,
    question: Annotated[str | None, typer.Option(help="A question, in place of a task.")] = None,
    choices: Annotated[str | None, typer.Option(metavar="A|B|...", help="Its choices, separated by |.")] = None,
    generate: Generate = False,
    text: Text = None,
    gallery: Gallery = None,
    sheet: Annotated[
        str | None, typer.Option(metavar="FILE", parser=expand_user, help="Draw what --text found on a sheet.")
    ] = None,
    top_k: Annotated[int, typer.Option(min=1, help="Choices or pictures to list.")] = 3,
    no_reasoning: Annotated[bool, typer.Option("--no-reasoning", help="Do not write the reasoning (faster).")] = False,
    data: Annotated[str | None, _file_option("SOURCE=FILE or SOURCE:key=value,...", metavar="SOURCE")] = None,
    csv: Csv = None,
    limit: Annotated[int | None, _file_option("Only the first questions, for a quick test.", min=1)] = None,
    deadline: Deadline = 30.0,
    id_column: Annotated[str, _file_option("Heading of the column of ids, e.g. question_id.")] = "id",
    overwrite: Annotated[bool, _file_option("Start the file anew, or replace a sheet.", "--overwrite")] = False,
    retry_failed: Annotated[bool, _file_option("Ask failed questions again.", "--retry-failed")] = False,
    seed: Annotated[int, _file_option("Seed of generated data.", min=0)] = 0,
    device: Annotated[str | None, typer.Option(help="Torch device; default: a GPU if there is one.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON document; logs go to stderr.")] = False,
) -> None:
    """Print a checkpoint's answer to one request, or write its answers to a whole test file."""

    def work() -> Any:
        _check_asked({"--task": task, "--question": question, "--text": text}, csv, data)
        if csv is not None and data is not None:
            file = {"path": csv, "id_column": id_column, "limit": limit, "deadline_s": deadline or None}
            file |= {"overwrite": overwrite, "retry_failed": retry_failed, "gallery": gallery}
            return _answer_file(checkpoint, data, file, seed, device)
        if text is not None:
            from hfvla.cli.searching import search_pictures

            return search_pictures(
                checkpoint, text, gallery=gallery, top_k=top_k, sheet=sheet, overwrite=overwrite, device=device
            )
        request = _request(task, choices, question, {"image": image, "video": video})
        if task is not None:
            request |= {"top_k": top_k, "reasoning": not no_reasoning}
        elif generate:
            request["generate"] = True
        return _answer(checkpoint, request, device)

    run_command(work, _show, as_json)


def _show(answer: Any) -> None:
    from hfvla.cli.tables import show_values

    show_values("", answer)


def _check_asked(requests: Mapping[str, str | None], csv: str | None, data: str | None) -> None:
    """Refuse anything but one request or one file."""
    asked = [name for name, value in requests.items() if value is not None]
    if (csv is None) != (data is None):
        raise HfvlaError("--csv and --data go together", got=f"--csv {csv}, --data {data}")
    if csv is not None and asked:
        raise HfvlaError("--csv answers a whole file", got=", ".join(asked), fix="Leave that away.")
    if csv is None and len(asked) != 1:
        raise HfvlaError(
            "one request is a --task, a --question or a --text", got=", ".join(asked) or "none of them",
            fix="A whole file is answered with --data and --csv.",
        )  # fmt: skip


def _request(
    task: str | None, choices: str | None, question: str | None, files: Mapping[str, str | None]
) -> dict[str, Any]:
    """Return what the family's `predict` is asked; files are checked here, before a model is loaded."""
    for option, path in files.items():
        if path is not None and not Path(path).is_file():
            kind = "picture" if option == "image" else option
            raise DataError(f"no such {kind}", where=f"--{option}", got=path, fix="Check the path.")
    if task is not None:
        video = {"video": files["video"]} if files["video"] is not None else {}
        return {"image": files["image"], "task": task, **video}
    texts = [text.strip() for text in (choices or "").split("|")]
    if len(texts) < 2 or not all(texts):
        raise DataError("a question needs its choices", where="--choices", got=choices, expected='"one|two|..."')
    given = {option: path for option, path in files.items() if path is not None}
    return {"question": question, "choices": texts, **given}


def _answer(checkpoint: str, request: dict[str, Any], device: str | None) -> Any:
    from hfvla.registry import load_checkpoint

    place = chosen_device(device)
    spec, model, processor = load_checkpoint(checkpoint)
    if place != "cpu":
        model = model.to(place)
    return spec.load("predict")(model, processor, request)


def _answer_file(checkpoint: str, data: str, file: Mapping[str, Any], seed: int, device: str | None) -> dict[str, Any]:
    from hfvla.family import AnswerFile, resolve
    from hfvla.outputs import check_writable
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
    folder = Path(checkpoint)
    if not folder.is_dir():
        return {"checkpoint": checkpoint}
    weights = sorted(
        (path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in folder.glob("*.safetensors")
    )
    return {"checkpoint": str(folder.resolve()), "weights": weights}

"""Benchmarks in the folders of their own releases: MME, POPE, ScienceQA and SEED-Bench."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from hfvla.data.samples.chat import ChatSample, ImageRef
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.inside import inside_root
from hfvla.errors import DataError
from hfvla.evaluation.benchmarks.catalog import Benchmark
from hfvla.evaluation.benchmarks.tsv import read_tsv
from hfvla.evaluation.benchmarks.wording import benchmark_sample

__all__ = ["find_benchmark", "read_benchmark"]

_PICTURES = (".jpg", ".jpeg", ".png")
_LAYOUTS = {
    "mme": "a folder 'MME' with a folder a category, each with pictures and a text file of the same name",
    "pope": "a folder 'POPE' with coco_pope_random.json (and popular, adversarial) and the pictures",
    "scienceqa": "a folder 'ScienceQA' with problems.json and images/<split>/<id>/image.png",
    "seed": "a folder 'SEED-Bench' with SEED-Bench.json and SEED-Bench-image/",
}


def _plain(name: str) -> str:
    return "".join(letter for letter in name.lower() if letter.isalnum())


def find_benchmark(benchmark: Benchmark, folder: Path) -> Path | None:
    """Return the TSV file, or the folder of the release, of a benchmark; None where neither is there.

    Args:
        benchmark: to look for.
        folder: that holds the files of benchmarks; subfolders are looked into one level deep.
    """
    wanted = _plain(benchmark.name)
    places = [folder, *sorted(place for place in folder.iterdir() if place.is_dir())]
    for place in places:
        for file in sorted(place.glob("*.tsv")):
            if _plain(file.stem) == wanted:
                return file
    if not benchmark.layout:
        return None
    names = {_plain(benchmark.name), *map(_plain, benchmark.also), _plain(benchmark.layout)}
    for place in places[1:]:
        if _plain(place.name) in names:
            return place
    return None


def expected_files(benchmark: Benchmark) -> str:
    """Return what `find_benchmark` looks for, in words."""
    layout = _LAYOUTS.get(benchmark.layout, "")
    return f"{benchmark.name}.tsv" + (f", or {layout}" if layout else "")


def read_benchmark(benchmark: Benchmark, place: Path) -> Iterator[ChatSample]:
    """Yield the questions of a benchmark.

    Args:
        benchmark: to read.
        place: from `find_benchmark`.

    Raises:
        DataError: a file is missing, damaged or of another form.
    """
    if place.is_file():
        return read_tsv(place, benchmark)
    reader = {"mme": _read_mme, "pope": _read_pope, "scienceqa": _read_scienceqa, "seed": _read_seed}
    return reader[benchmark.layout](benchmark, place)


def _read_mme(benchmark: Benchmark, place: Path) -> Iterator[ChatSample]:
    """Text files with two lines "question<TAB>Yes|No", beside their picture or in folders of their own."""
    count = 0
    for texts in sorted(place.rglob("*.txt")):
        category = texts.parent.name
        folders = [texts.parent]
        if category == "questions_answers_YN":
            category, folders = texts.parent.parent.name, [texts.parent.parent / "images"]
        pictures = [f / f"{texts.stem}{ending}" for f in folders for ending in _PICTURES]
        picture = next((candidate for candidate in pictures if candidate.is_file()), None)
        if picture is None:
            if texts.parent == place:
                continue  # a readme
            raise DataError("questions without their picture", where=str(texts), expected=str(pictures[0]))
        for number, line in enumerate(texts.read_text("utf-8-sig").splitlines(), 1):
            if not line.strip():
                continue
            question, tab, answer = line.partition("\t")
            if not tab or answer.strip().lower() not in ("yes", "no"):
                raise DataError("no question and answer", where=f"{texts}:{number}", got=line[:80],
                                expected="question<TAB>Yes or No")  # fmt: skip
            count += 1
            yield benchmark_sample(
                f"{category}/{texts.stem}/{number}", question.strip(), [ImageRef(path=str(picture))],
                scorer="yes_no", answers=(answer.strip(),), category=category,
                details={"image_path": f"{category}/{texts.stem}"}, source=benchmark.name,
                group=f"{category}/{texts.stem}",
            )  # fmt: skip
    if not count:
        raise DataError("no questions of MME", where=str(place), expected=_LAYOUTS["mme"])


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text("utf-8-sig"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise DataError("a benchmark's file cannot be read", where=str(path), got=str(error)) from error


def _field(record: Any, name: str, where: str) -> Any:
    if not isinstance(record, Mapping) or name not in record:
        got = ", ".join(record) if isinstance(record, Mapping) else type(record).__name__
        raise DataError(f"a record without '{name}'", where=where, got=got[:200])
    return record[name]


def _picture(root: Path, name: Any, where: str) -> ImageRef:
    try:
        found = inside_root(root, name, "image")
    except UnusableError as error:
        raise DataError("a picture's path cannot be followed", where=where, got=str(error)) from error
    return ImageRef(path=str(found))


def _read_pope(benchmark: Benchmark, place: Path) -> Iterator[ChatSample]:
    """JSON lines {"question_id", "image", "text", "label"}, a file for random, popular and adversarial objects."""
    files = sorted(place.rglob("*pope_*.json"))
    if not files:
        raise DataError("no questions of POPE", where=str(place), expected=_LAYOUTS["pope"])
    folders: dict[str, Path] = {}
    for found in place.rglob("*"):
        if found.suffix.lower() in _PICTURES:
            folders.setdefault(found.name, found)
    for file in files:
        category = file.stem.rpartition("_")[2]
        for number, line in enumerate(file.read_text("utf-8-sig").splitlines(), 1):
            if not line.strip():
                continue
            where = f"{file}:{number}"
            try:
                record = json.loads(line)
            except json.JSONDecodeError as error:
                raise DataError("a line is not JSON", where=where, got=str(error)) from error
            name = str(_field(record, "image", where))
            if name not in folders:
                raise DataError("a picture is not there", where=where, got=name, fix=f"Put it under {place}.")
            yield benchmark_sample(
                f"{category}/{_field(record, 'question_id', where)}", str(_field(record, "text", where)),
                [ImageRef(path=str(folders[name]))], scorer="yes_no",
                answers=(str(_field(record, "label", where)),), category=category, source=benchmark.name, group=name,
            )  # fmt: skip


def _read_scienceqa(benchmark: Benchmark, place: Path) -> Iterator[ChatSample]:
    """problems.json of the release; only questions of the validation split with a picture, as VLMEvalKit has them."""
    for name, record in _json(place / "problems.json").items():
        where = f"{place / 'problems.json'}, problem {name}"
        if _field(record, "split", where) != "val" or not record.get("image"):
            continue
        choices = [str(choice) for choice in _field(record, "choices", where)]
        answer = _field(record, "answer", where)
        if not isinstance(answer, int) or not 0 <= answer < len(choices):
            raise DataError("the answer is none of the choices", where=where, got=answer)
        yield benchmark_sample(
            name, str(_field(record, "question", where)),
            [_picture(place, f"images/val/{name}/{record['image']}", where)],
            scorer="choice", choices=choices, answer=chr(65 + answer), hint=str(record.get("hint") or ""),
            category=str(record.get("subject") or record.get("topic") or ""), source=benchmark.name,
        )  # fmt: skip


def _read_seed(benchmark: Benchmark, place: Path) -> Iterator[ChatSample]:
    """SEED-Bench.json; only questions about pictures."""
    path = place / "SEED-Bench.json"
    content = _json(path)
    kinds = {number: name for name, number in (content.get("question_type") or {}).items()}
    for record in _field(content, "questions", str(path)):
        where = f"{path}, question {record.get('question_id')}"
        if _field(record, "data_type", where) != "image":
            continue
        choices = [str(record[f"choice_{letter}"]) for letter in "abcd" if record.get(f"choice_{letter}") is not None]
        yield benchmark_sample(
            str(record.get("question_id")), str(_field(record, "question", where)),
            [_picture(place, f"SEED-Bench-image/{_field(record, 'data_id', where)}", where)], scorer="choice",
            choices=choices, answer=str(_field(record, "answer", where)),
            category=str(kinds.get(record.get("question_type_id"), "")), source=benchmark.name,
        )  # fmt: skip

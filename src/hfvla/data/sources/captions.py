"""Reader of captioned pictures for retrieval: JSON or JSON lines, one picture a record.

    {"image": "images/frog.png", "caption": "A frog.", "languages": {"vi": "Con ếch."}}     own files
    {"image": "coco/val2014/1.jpg", "caption": ["...", "..."], "image_id": "coco_1"}        LAVIS and BLIP
    {"file_name": "0001.png", "text": "A frog."}                                           metadata.jsonl of `datasets`

A row is a caption. What counts as a hit, and never crosses a split, is what the records share under one key
(`group_by`): the picture itself unless the recipe says more, e.g. the caption, where several pictures have the same.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hfvla.data.samples.retrieval import ImageText, build_image_text_dataset
from hfvla.data.sources.census import Census, UnusableError
from hfvla.data.sources.geotext_records import ImageFiles
from hfvla.data.sources.json_files import parse_json, read_json, read_text, text_lines
from hfvla.data.text import clean_text, task_key, text_problem
from hfvla.errors import DataError
from hfvla.family import SourceData
from hfvla.paths import UserPath

__all__ = ["CaptionsOptions", "build_captions", "count_captions"]

_IMAGE_KEYS = ("image", "file_name")
_CAPTION_KEYS = ("caption", "captions", "text")
_SHOWN = 80


class CaptionsOptions(BaseModel):
    """What a recipe may say about a file of captioned pictures.

    Attributes:
        path: JSON (a list of records) or JSON lines.
        root: folder that pictures are relative to, and that none may lie outside of; default: the file's own.
        captions: "all", or the "first" of each record alone.
        group_by: key of the records whose value counts as a hit and is kept together; "caption" compares letters and
            numbers alone. Default: the picture.
        language: take captions of this key of a record's `languages`, and leave out the records that lack it.
        max_bad_fraction: share of unusable records above which reading fails.
    """

    model_config = ConfigDict(extra="forbid")

    path: UserPath
    root: UserPath | None = None
    captions: Literal["all", "first"] = "all"
    group_by: str | None = None
    language: str | None = None
    max_bad_fraction: float = Field(default=0.01, ge=0.0, le=1.0)


def _records(path: Path) -> list[tuple[str, Any]]:
    """Return (place, record) pairs.

    Raises:
        DataError: unreadable, not JSON, or no list of records.
    """
    if path.suffix == ".json":
        records = read_json(path)
        if not isinstance(records, list) or not records:
            got = type(records).__name__ if not isinstance(records, list) else "an empty list"
            raise DataError("no records in the file", where=str(path), got=got, expected='[{"image": ...}, ...]')
        return [(f"{path.name}:{index}", record) for index, record in enumerate(records)]
    lines = text_lines(read_text(path))
    if not lines:
        raise DataError("no records in the file", where=str(path), got="no line", expected='{"image": ...} a line')
    return [(f"{path.name}:{number}", parse_json(line, str(path), line=number)) for number, line in lines]


def _first_of(record: Mapping[str, Any], keys: tuple[str, ...]) -> Any:
    return next((record[key] for key in keys if record.get(key) is not None), None)


def _captions_of(record: Mapping[str, Any], options: CaptionsOptions) -> list[str]:
    """Return a record's captions; none where it lacks the language that is asked for.

    Raises:
        UnusableError: none, empty, or no text.
    """
    if options.language is None:
        value = _first_of(record, _CAPTION_KEYS)
    else:
        others = record.get("languages")
        value = others.get(options.language) if isinstance(others, Mapping) else None
        if value is None:
            return []
    texts = value if isinstance(value, list) else [value]
    for text in texts:
        if not isinstance(text, str) or not text.strip():
            raise UnusableError("no caption", f"got {text!r}"[:_SHOWN])
        if problem := text_problem(text):
            raise UnusableError("caption is no text", problem)
    if not texts:
        raise UnusableError("no caption", "got an empty list")
    return [clean_text(text) for text in (texts[:1] if options.captions == "first" else texts)]


def _group_of(record: Mapping[str, Any], key: str | None, image: str) -> str:
    """Return what a record belongs together with.

    Raises:
        UnusableError: it lacks the key, or its value is neither text nor number.
    """
    if key is None:
        return image
    value = _first_of(record, _CAPTION_KEYS) if key == "caption" else record.get(key)
    value = value[0] if isinstance(value, list) and value else value
    if isinstance(value, bool) or not isinstance(value, str | int) or not str(value).strip():
        raise UnusableError(f"no {key} to group by", f"got {value!r}"[:_SHOWN])
    return task_key(str(value)) or clean_text(str(value))


def _rows_of(record: Any, where: str, options: CaptionsOptions, images: ImageFiles) -> list[ImageText]:
    if not isinstance(record, Mapping):
        raise UnusableError("not an object", f"got {type(record).__name__}")
    captions = _captions_of(record, options)
    if not captions:
        return []
    name = _first_of(record, _IMAGE_KEYS)
    path = images.find(name)
    group = _group_of(record, options.group_by, str(name))
    own = str(record.get("id") or where)
    return [
        ImageText(f"{own}#{number}", path, str(name), caption, group=group, source="captions")
        for number, caption in enumerate(captions)
    ]


def count_captions(options: CaptionsOptions) -> int:
    """Return how many rows the file has if all its records can be used, without looking at its pictures.

    Raises:
        DataError: unreadable or broken file.
    """
    count = 0
    for _, record in _records(Path(options.path)):
        try:
            count += len(_captions_of(record, options)) if isinstance(record, Mapping) else 0
        except UnusableError:  # building names and counts it
            continue
    return count


def build_captions(options: CaptionsOptions, *, seed: int = 0) -> SourceData:
    """Read captioned pictures into rows, one a caption; each picture is opened once, as far as its header.

    Args:
        options: see `CaptionsOptions`.
        seed: unused; part of every source's signature.

    Returns:
        `SourceData`; its census also has "captions" (rows), "images", "groups" and "without_language" (records).

    Raises:
        DataError: unreadable or broken file, or too many unusable records.
    """
    path = Path(options.path)
    images, census = ImageFiles(Path(options.root) if options.root else path.parent), Census()
    samples: list[ImageText] = []
    without, used = 0, Counter[str]()
    for where, record in _records(path):
        census.found += 1
        try:
            rows = _rows_of(record, where, options, images)
        except UnusableError as problem:
            own = record.get("id") if isinstance(record, Mapping) else ""
            census.reject(where, own if isinstance(own, str) else "", problem)
            continue
        without += not rows
        for row in rows:
            used[row.id] += 1
            again = "" if used[row.id] == 1 else f".{used[row.id]}"
            samples.append(row if not again else ImageText(**{**vars(row), "id": row.id + again}))
    counts = {
        "captions": len(samples),
        "images": len({sample.image for sample in samples}),
        "groups": len({sample.group for sample in samples}),
        "without_language": without,
    }
    census.log(options.path, counts.items())
    census.refuse_if_too_bad(options.max_bad_fraction, options.path)
    if not samples:
        raise DataError(
            "no record can be used", where=options.path, got=options.language, expected="captions in that language"
        )
    found = {"found": census.found, "usable": census.usable, "rejected": census.rejected(), **counts}
    rejected = {one.id: f"{one.reason}: {one.detail}" for one in census.rejections if one.id}
    return SourceData(build_image_text_dataset(samples), found, rejected)

"""Reader of the RoboSense challenge, track 4: text queries without answers, and a folder of unnamed images to rank.

    test_queries.txt               q_00001<TAB>The image shows a view of a large, historic campus ...
    Track_4_Phase_I_Images/        image_0a0bb9e5.jpeg  image_0a01df75.jpeg  ...

Queries may also be CSV with the columns id and text, or JSON: {"q_00001": "..."} or
[{"id": "q_00001", "text": "..."}]. A line of a submission names a query "q1" and images by their file names without
extension.
"""

from __future__ import annotations

import csv
import io
import logging
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from hfvla.data.samples.retrieval import ImageText, build_image_text_dataset
from hfvla.data.sources.census import Census, UnusableError
from hfvla.data.sources.geotext_records import check_image
from hfvla.data.sources.json_files import read_json, read_text, text_lines
from hfvla.data.text import clean_text, text_problem
from hfvla.errors import DataError
from hfvla.family import SourceData
from hfvla.paths import UserPath

__all__ = [
    "Gallery",
    "GalleryImage",
    "RoboSenseOptions",
    "build_robosense",
    "count_robosense",
    "read_gallery",
    "submission_name",
]

logger = logging.getLogger(__name__)

_IMAGE_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".tif", ".tiff", ".bmp")


class RoboSenseOptions(BaseModel):
    """What a recipe may say about the challenge's queries.

    Attributes:
        path: file of queries; .txt and .tsv with a tab, .csv, or .json.
        max_bad_fraction: share of unusable queries above which reading fails.
    """

    model_config = ConfigDict(extra="forbid")

    path: UserPath
    max_bad_fraction: float = Field(default=0.0, ge=0.0, le=1.0)


@dataclass(frozen=True)
class GalleryImage:
    """One image to rank.

    Attributes:
        id: file name without extension, as a submission names it.
        path: of the file.
    """

    id: str
    path: str


@dataclass(frozen=True)
class Gallery:
    """The images of a folder.

    Attributes:
        images: in the order of their ids.
        census: {"found", "usable", "rejected"} as a `SourceData` has it, and "hidden" files where there are some.
    """

    images: tuple[GalleryImage, ...]
    census: dict[str, Any]


def submission_name(query_id: str) -> str:
    """Return a query's name in a submission: "q_00001" becomes "q1"; an id of another form stays.

    Args:
        query_id: as the queries have it.
    """
    match = re.fullmatch(r"q_?0*(\d+)", query_id)
    return f"q{match[1]}" if match else query_id


def _entries(path: Path) -> Iterator[tuple[str, Any, Any]]:
    """Yield (place, id, text) of every query, whatever they are."""
    if path.suffix.lower() == ".json":
        content = read_json(path)
        if isinstance(content, Mapping):
            yield from ((f"{path.name}:{index}", key, text) for index, (key, text) in enumerate(content.items()))
        elif isinstance(content, list):
            for index, record in enumerate(content):
                fields = record if isinstance(record, Mapping) else {}
                yield f"{path.name}:{index}", fields.get("id"), fields.get("text")
        else:
            raise DataError("no queries in the file", where=str(path), got=type(content).__name__, expected="id: text")
        return
    content = read_text(path, what="query file cannot be read")
    if path.suffix.lower() == ".csv":
        yield from _csv_entries(path, content)
        return
    for number, line in text_lines(content):
        query_id, tab, text = line.partition("\t")
        yield f"{path.name}:{number}", query_id, text if tab else None


def _csv_entries(path: Path, content: str) -> Iterator[tuple[str, Any, Any]]:
    rows = csv.reader(io.StringIO(content, newline=""))
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            raise DataError("broken CSV", where=f"{path}:{rows.line_num}", got=str(error)) from error
        if row is None:
            return
        if row and not (rows.line_num == 1 and row[:2] == ["id", "text"]):
            yield f"{path.name}:{rows.line_num}", row[0], row[1] if len(row) == 2 else None


def _query(query_id: Any, text: Any, used: set[str]) -> ImageText:
    if not isinstance(query_id, str) or not query_id.strip():
        raise UnusableError("no query id", f"got {query_id!r}")
    query_id = query_id.strip()
    if re.search(r"\s", query_id):
        raise UnusableError("query id with a blank", f"got {query_id[:60]!r}, expected id, tab, text")
    if submission_name(query_id) in used:
        raise UnusableError("query id used twice", f"{query_id} is {submission_name(query_id)} in a submission")
    used.add(submission_name(query_id))
    if not isinstance(text, str) or not text.strip():
        raise UnusableError("no query text", f"got {text!r}")
    if problem := text_problem(query_id) or text_problem(text):
        raise UnusableError("query is no text", problem)
    return ImageText(id=query_id, image="", image_id="", caption=clean_text(text), source="robosense")


def count_robosense(options: RoboSenseOptions) -> int:
    """Return how many queries the file has.

    Raises:
        DataError: unreadable or broken file.
    """
    return sum(1 for _ in _entries(Path(options.path)))


def build_robosense(options: RoboSenseOptions, *, seed: int = 0) -> SourceData:
    """Read queries into rows without image, group and platform; `read_gallery` lists what they are searched in.

    Args:
        options: see `RoboSenseOptions`.
        seed: unused; part of every source's signature.

    Raises:
        DataError: unreadable or broken file, no query, or too many unusable ones.
    """
    path = Path(options.path)
    census, queries, used = Census(), [], set[str]()
    for where, query_id, text in _entries(path):
        census.found += 1
        try:
            queries.append(_query(query_id, text, used))
        except UnusableError as problem:
            census.reject(where, query_id if isinstance(query_id, str) else "", problem)
    if not census.found:
        raise DataError("no queries in the file", where=str(path), expected="a line each: q_00001, tab, text")
    census.log(options.path)
    census.refuse_if_too_bad(options.max_bad_fraction, options.path)
    summary = {"found": census.found, "usable": census.usable, "rejected": census.rejected()}
    rejected = {one.id: f"{one.reason}: {one.detail}" for one in census.rejections if one.id}
    return SourceData(build_image_text_dataset(queries), summary, rejected)


def read_gallery(folder: str | Path, *, max_bad_fraction: float = 0.0) -> Gallery:
    """List the images of a folder, each opened once, as far as its header; files of other kinds are not looked at.

    Args:
        folder: with the images themselves, not with subfolders.
        max_bad_fraction: share of broken images above which reading fails; up to it they are counted and left out.

    Raises:
        DataError: no folder, no image in it, two images of one id, or too many broken ones.
    """
    folder = Path(folder).expanduser()
    try:
        found = sorted(path for path in folder.iterdir() if path.suffix.lower() in _IMAGE_SUFFIXES)
    except (OSError, ValueError) as error:  # ValueError: a name that no folder can have
        got = getattr(error, "strerror", None) or str(error)
        raise DataError(
            "gallery cannot be read", where=str(folder)[:200], got=got, expected="a folder of images"
        ) from error
    paths = [path for path in found if not path.name.startswith(".")]  # "._a.jpeg" is macOS's note on "a.jpeg"
    if not paths:
        raise DataError("no image in the gallery", where=str(folder), expected=f"files *{', *'.join(_IMAGE_SUFFIXES)}")
    census, images = Census(found=len(paths)), dict[str, GalleryImage]()
    for path in paths:
        if path.stem in images:
            raise DataError(
                "two images of one id", where=str(folder), got=f"{Path(images[path.stem].path).name} and {path.name}"
            )
        try:
            check_image(path)
            images[path.stem] = GalleryImage(path.stem, str(path))
        except UnusableError as problem:
            census.reject(path.name, path.stem, problem)
    census.log(str(folder))
    census.refuse_if_too_bad(max_bad_fraction, str(folder))
    summary = {"found": census.found, "usable": census.usable, "rejected": census.rejected()}
    if len(found) > len(paths):
        summary["hidden"] = len(found) - len(paths)
        logger.info("%s: %d hidden files are passed over", folder, summary["hidden"])
    return Gallery(tuple(images[name] for name in sorted(images)), summary)

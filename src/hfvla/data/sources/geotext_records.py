"""Records of GeoText-1652's JSON: the two kinds of file, and what one record must hold."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import UnidentifiedImageError

from hfvla.data.boxes import Box, box_problem, clip_box
from hfvla.data.pictures import check_picture
from hfvla.data.samples.retrieval import MAX_SENTENCES, building_of
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.inside import inside_root
from hfvla.data.sources.json_files import read_json
from hfvla.data.text import clean_text, text_problem
from hfvla.errors import DataError

__all__ = [
    "ImageFiles",
    "Slot",
    "captions_of",
    "check_image",
    "image_id_of",
    "load_records",
    "slots_of",
]


@dataclass(frozen=True)
class Slot:
    """One sentence of a caption.

    Attributes:
        sentence: "" where the file has null.
        box: cxcywh, or None where the file has null or a box that cannot be used.
        problem: why a box cannot be used; "" for a good one and for null.
        value: the box as it is written.
    """

    sentence: str
    box: Box | None
    problem: str
    value: Any


def load_records(path: Path) -> list[tuple[str, Any]]:
    """Read the file as (place, record) pairs; place is "file:index", counted from 0.

    Raises:
        DataError: unreadable, not JSON, or no list of GeoText-1652 records.
    """
    records = read_json(path)
    if not isinstance(records, list) or not records:
        got = sorted(map(str, records))[:5] if isinstance(records, Mapping) else type(records).__name__
        raise DataError("no records in the file", where=str(path), got=got, expected='[{"image_id": ...}, ...]')
    if not any(isinstance(record, Mapping) and "image_id" in record and "caption" in record for record in records):
        got = sorted(map(str, records[0])) if isinstance(records[0], Mapping) else type(records[0]).__name__
        raise DataError(
            "no record has the format of GeoText-1652",
            where=str(path),
            got=f"{len(records)} records, the first with {got}",
            expected="the keys 'image_id', 'image' and 'caption'",
        )
    return [(f"{path.name}:{index}", record) for index, record in enumerate(records)]


def image_id_of(record: Mapping[str, Any]) -> str:
    """Return a record's image id.

    Raises:
        UnusableError: missing, or without the building before a slash.
    """
    value = record.get("image_id")
    if not isinstance(value, str) or not value.strip():
        raise UnusableError("no image_id", f"got {value!r}")
    if not building_of(value):
        raise UnusableError("no building in the image_id", f"got {value!r}, expected '0839/image-43.jpeg'")
    return _stored(value, "image_id")


def _stored(value: str, name: str) -> str:
    if problem := text_problem(value):
        raise UnusableError(f"{name} is no text", problem)
    return clean_text(value)


def captions_of(record: Mapping[str, Any]) -> tuple[str, ...]:
    """Return a record's captions: one text of a train record, a list of texts of a test record.

    A record with the key "sentences" or "bboxes" is one of a train file.

    Raises:
        UnusableError: the other form than the record's kind has, empty, or not text.
    """
    value = record.get("caption")
    if "sentences" in record or "bboxes" in record:
        if isinstance(value, list):
            raise UnusableError("caption list in a train record", f"got {len(value)} captions, expected one text")
        value = [value]
    elif isinstance(value, str):
        raise UnusableError("caption text in a test record", f"got {value[:60]!r}, expected a list of texts")
    if not isinstance(value, list) or not value:
        raise UnusableError("no caption", f"got {value!r}")
    for caption in value:
        if not isinstance(caption, str) or not caption.strip():
            raise UnusableError("empty caption", f"got {caption!r}")
    return tuple(_stored(caption, "caption") for caption in value)


def slots_of(record: Mapping[str, Any]) -> list[Slot]:
    """Return a record's sentences with their boxes; [] for a test record.

    Boxes that stand out of the image by rounding are cut at its edges.

    Raises:
        UnusableError: sentences and boxes do not match, or are more than `MAX_SENTENCES`.
    """
    sentences, boxes = record.get("sentences"), record.get("bboxes")
    if sentences is None and boxes is None:
        return []
    if not isinstance(sentences, list):
        raise UnusableError("sentences are not a list", f"got {sentences!r}")
    if not isinstance(boxes, list):
        raise UnusableError("bboxes are not a list", f"got {boxes!r}")
    if len(sentences) != len(boxes):
        raise UnusableError("sentences and bboxes differ in number", f"{len(sentences)} and {len(boxes)}")
    if len(sentences) > MAX_SENTENCES:
        raise UnusableError(f"more than {MAX_SENTENCES} sentences", f"got {len(sentences)}")
    slots = []
    for sentence, value in zip(sentences, boxes, strict=True):
        if sentence is not None and not isinstance(sentence, str):
            raise UnusableError("sentence is not text", f"got {sentence!r}")
        problem = "" if value is None else box_problem(value)
        box = None if value is None or problem else clip_box(value)
        slots.append(Slot(_stored(sentence or "", "sentence"), box, problem, value))
    return slots


class ImageFiles:
    """Looks at each image once: is it inside the root, there, and an image by its header?

    Args:
        root: folder that paths are relative to.
    """

    def __init__(self, root: Path) -> None:
        self.root = root.expanduser().absolute()
        self._seen: dict[str, str | UnusableError] = {}

    def __len__(self) -> int:
        return sum(isinstance(found, str) for found in self._seen.values())

    def find(self, value: Any) -> str:
        """Return the path of an image.

        Raises:
            UnusableError: no path, outside the root, missing, or not an image.
        """
        if not isinstance(value, str):
            raise UnusableError("no image path", f"got {value!r}"[:200])
        if value not in self._seen:
            try:
                self._seen[value] = self._look(value)
            except UnusableError as problem:
                self._seen[value] = problem
        found = self._seen[value]
        if isinstance(found, UnusableError):
            raise UnusableError(found.reason, found.detail)
        return found

    def _look(self, value: str) -> str:
        path = inside_root(self.root, value, "image")
        check_image(path)
        return str(path)


def check_image(path: Path) -> None:
    """Open an image as far as its header; its pixels are not decoded.

    Raises:
        UnusableError: missing, a folder, empty, or not an image.
    """
    try:
        if not path.is_file():
            raise UnusableError("not an image file" if path.exists() else "missing image", str(path))
        if path.stat().st_size == 0:
            raise UnusableError("image file is empty", str(path))
        check_picture(path, str(path))
    except DataError as error:
        if isinstance(error.__cause__, UnidentifiedImageError):
            raise UnusableError("not an image", str(path)) from error
        reason = error.what if error.__cause__ is None else "image cannot be read"
        raise UnusableError(reason, f"{path}: {error.got}") from error
    except (OSError, ValueError) as error:
        raise UnusableError(
            "image cannot be read", f"{str(path)[:200]}: {getattr(error, 'strerror', None) or error}"
        ) from error

"""What readers of vision-language sets share: counting, texts, pictures, prompts, splits and ids."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np

from hfvla.data.samples.chat import Box, ChatSample, ImageRef, check_chat
from hfvla.data.sources.census import Census, UnusableError
from hfvla.data.sources.vision_language.image_files import ImageFiles
from hfvla.data.sources.vision_language.options import _Reading
from hfvla.data.sources.vision_language.splits import split_wanted
from hfvla.data.text import clean_text, text_problem
from hfvla.data.video.files import check_video_file
from hfvla.errors import DataError

__all__ = [
    "Reading",
    "SeenIds",
    "field_of",
    "optional_text",
    "record_id",
    "spelled",
    "text_of",
    "texts_of",
    "weight_of",
]

_SHOWN = 120


def text_of(value: Any, name: str) -> str:
    """Return a text of a record, composed and without blanks at its ends.

    Raises:
        UnusableError: no text (NaN is none), an empty one, or bytes that are no UTF-8.
    """
    if not isinstance(value, str):
        raise UnusableError(f"{name} is not text", f"got {value!r}"[:_SHOWN])
    if problem := text_problem(value):
        raw = any("\udc80" <= letter <= "\udcff" for letter in value)
        raise UnusableError(f"{name} is not UTF-8" if raw else f"{name} is not text", problem)
    text = clean_text(value)
    if not text:
        raise UnusableError(f"empty {name}", repr(value)[:_SHOWN])
    return text


def optional_text(value: Any, name: str) -> str:
    """Return a text, "" where there is none.

    Raises:
        UnusableError: see `text_of`.
    """
    return "" if value is None or (isinstance(value, str) and not value.strip()) else text_of(value, name)


def texts_of(values: Any, name: str) -> tuple[str, ...]:
    """Return the texts of a list, those that are empty left out.

    Raises:
        UnusableError: no list, a value that is no text, or nothing in it.
    """
    if not isinstance(values, list | tuple):
        raise UnusableError(f"{name} is not a list", f"got {values!r}"[:_SHOWN])
    found = tuple(text for text in (optional_text(value, name) for value in values) if text)
    if not found:
        raise UnusableError(f"no {name}", repr(values)[:_SHOWN])
    return found


def spelled(values: Iterable[Any]) -> tuple[str, ...]:
    """Return the texts among values that can be used, composed."""
    return tuple(
        clean_text(value) for value in values if isinstance(value, str) and value.strip() and not text_problem(value)
    )


def field_of(record: Any, name: str) -> Any:
    """Return a field that a record must have.

    Raises:
        UnusableError: no object, or one without the field.
    """
    if not isinstance(record, Mapping):
        raise UnusableError("not an object", f"got {type(record).__name__}")
    if record.get(name) is None:
        raise UnusableError(f"no {name}", f"keys {sorted(map(str, record))}"[:_SHOWN])
    return record[name]


def weight_of(value: Any) -> float:
    """Return the weight of a sample's loss, 1 where a record has none.

    Raises:
        UnusableError: no finite number from 0 up.
    """
    if value is None:
        return 1.0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
        raise UnusableError("weight is no number from 0 up", f"got {value!r}"[:_SHOWN])
    return float(value)


def record_id(record: Any, *names: str) -> str:
    """Return the first of a record's ids, as text; "" where it has none."""
    if isinstance(record, Mapping):
        for name in names:
            value = record.get(name)
            if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
                return str(value).encode(errors="backslashreplace").decode()
    return ""


class SeenIds:
    """Which ids came by, eight bytes each: recent ones in a set, the others in one sorted array."""

    def __init__(self, recent: int = 1 << 18) -> None:
        self._recent: set[int] = set()
        self._most = recent
        self._sorted = np.empty(0, np.int64)

    def add(self, *parts: str) -> bool:
        """Remember an id and return whether it came by before."""
        key = hash(parts)
        if key in self._recent:
            return True
        if len(self._sorted):
            place = int(np.searchsorted(self._sorted, key))
            if place < len(self._sorted) and int(self._sorted[place]) == key:
                return True
        self._recent.add(key)
        if len(self._recent) >= self._most:
            fresh = np.fromiter(self._recent, np.int64, len(self._recent))
            self._sorted = np.sort(np.concatenate([self._sorted, fresh]))
            self._recent = set()
        return False


@dataclass
class Reading:
    """One pass over the files of a source.

    Attributes:
        options: of the source.
        images: finds pictures; None where records bring their own.
        census: records found and rejected.
        left_out: records of official splits that were not asked for, by split.
        files_left_out: files all of such a split, with the split.
        alone: whether the source is one file, which then must be usable.
        address_files: files that name pictures of the web which are not on disk.
        notes: what was kept, or left out without fault, by what it is.
        usable: samples made.
        by_set: samples by name of their set.
    """

    options: _Reading
    images: ImageFiles | None = None
    root: Path = Path()
    census: Census = field(default_factory=Census)
    left_out: Counter[str] = field(default_factory=Counter)
    files_left_out: dict[str, str] = field(default_factory=dict)
    alone: bool = True
    address_files: list[str] = field(default_factory=list)
    notes: Counter[str] = field(default_factory=Counter)
    by_set: Counter[str] = field(default_factory=Counter)
    usable: int = 0
    _ids: SeenIds = field(default_factory=SeenIds)

    def name(self, path: Path) -> str:
        """Return a file's name as seen from the root."""
        shown = str(path.relative_to(self.root)) if path != self.root and path.is_relative_to(self.root) else path.name
        return shown.replace(os.sep, "/")

    def record(self, where: str, name: str = "") -> _Attempt:
        """Count a record; what makes it unusable inside of the `with` is counted too, and reading goes on.

        Args:
            where: its place, "file:index".
            name: its own id, "" without one.
        """
        self.census.found += 1
        return _Attempt(self, where, name)

    def reject(self, where: str, name: str, problem: UnusableError) -> None:
        """Count something unusable beside the records, e.g. a box; it counts as found, too."""
        self.census.found += 1
        self.census.reject(where, name, problem)

    def picture(self, names: str | Iterable[str], beside: Path, split: str = "") -> ImageRef:
        """Return the place of a picture that a record names.

        Raises:
            UnusableError: see `ImageFiles.find`.
        """
        if self.images is None:
            raise UnusableError("picture by its name alone", f"{names!r}: the set is not on disk")
        return ImageRef(path=self.images.find(names, beside, split))

    def video(self, name: str, beside: Path, split: str = "") -> str:
        """Return the path of a video that a record names.

        Raises:
            UnusableError: see `ImageFiles.find`; or it is cut short, or empty.
        """
        if self.images is None:
            raise UnusableError("video by its name alone", f"{name!r}: the set is not on disk")
        path = self.images.find(name, beside, split, "video")
        try:
            check_video_file(path)
        except DataError as error:
            raise UnusableError(error.what, f"{path}: {error.got}") from error
        return path

    def wants(self, split: str) -> bool:
        """Tell whether records of an official split are read; counts those that are not."""
        if split_wanted(split, self.options.splits):
            return True
        self.left_out[split] += 1
        return False

    def wants_file(self, path: Path, split: str) -> bool:
        """Tell whether a file whose records are all of one official split is read; remembers one that is not."""
        if split_wanted(split, self.options.splits):
            return True
        self.files_left_out[self.name(path)] = split
        return False

    def once(self, file: str, record: str) -> None:
        """Refuse a record of a file, by its id, that came by before; one without an id is taken.

        Raises:
            UnusableError: it did.
        """
        if record and self._ids.add("record of", file, record):
            raise UnusableError("duplicate id", record)

    def take(self, sample: ChatSample, *, again: str = "reject") -> Iterator[ChatSample]:
        """Yield a sample after the last checks.

        Args:
            sample: to check.
            again: what to do with a second sample of one id: "reject" it, or "keep" it under an id of its own, where
                ids of the set name pictures rather than records.

        Raises:
            UnusableError: see `check_chat`; an id that came by before.
        """
        check_chat(sample)
        if self.options.loss_weight != 1.0:
            sample = replace(sample, weight=sample.weight * self.options.loss_weight)
        if self._ids.add(sample.source, sample.split, sample.id):
            if again == "reject":
                raise UnusableError("duplicate id", sample.id)
            if self._ids.add(*_content(sample)):
                raise UnusableError("record that stands twice", sample.id)
            self.notes["ids that repeat, with another text (kept)"] += 1
            sample = _renamed(sample, f"{sample.id}#{self.usable}")
        elif again == "keep":
            self._ids.add(*_content(sample))
        self.usable += 1
        self.by_set[sample.source] += 1
        yield sample

    def box_words(self, box: Box) -> str:
        """Return a box as it is written in a text, by the recipe's `box_text`."""
        if self.options.box_text == "pixels":
            return "[" + ", ".join(str(round(edge)) for edge in box.xyxy) + "]"
        if self.options.box_text == "thousandths":
            return "[" + ", ".join(str(round(1000 * edge)) for edge in box.normalised) + "]"
        return "[" + ", ".join(f"{edge:.3f}" for edge in box.normalised) + "]"


def _content(sample: ChatSample) -> tuple[str, ...]:
    return (sample.source, sample.id, *(turn.text for turn in (*sample.turns, *sample.rejected)))


def _renamed(sample: ChatSample, name: str) -> ChatSample:
    return replace(sample, id=name)


class _Attempt:
    """Counts what makes a record unusable, and ends there."""

    def __init__(self, reading: Reading, where: str, name: str) -> None:
        self._reading, self._where, self._name = reading, where, name

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Count an `UnusableError`; let anything else pass."""
        if isinstance(problem, UnusableError):
            self._reading.census.reject(self._where, self._name, problem)
            return True
        return False

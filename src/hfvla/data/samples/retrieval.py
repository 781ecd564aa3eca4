"""Captioned images of buildings, as every retrieval source yields them, and their `datasets` features."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datasets import Dataset, Features

__all__ = [
    "MAX_SENTENCES",
    "PLATFORMS",
    "ImageText",
    "build_image_text_dataset",
    "building_of",
    "image_text_features",
    "platform_of",
]

MAX_SENTENCES = 3
"""Sentences with a box that a caption may have."""

PLATFORMS: tuple[str, ...] = ("drone", "satellite", "ground")
"""Where a picture was taken from."""

_PLATFORM_WORDS = {"drone": "drone", "satellite": "satellite", "ground": "ground", "street": "ground"}


def building_of(image_id: str) -> str:
    """Return the building of an image: what stands before the slash of its id; "" without a slash."""
    head, slash, _ = image_id.partition("/")
    return head if slash else ""


def platform_of(image_id: str, path: str = "") -> str:
    """Return the platform that an image's name tells, or "".

    A folder or name with the word itself comes first ("drone/", "street_view.jpg"). Else, within a building's folder,
    "image-43" is a drone's, the building's own number a satellite's, and any other number one from the ground.

    Args:
        image_id: e.g. "0839/image-43.jpeg".
        path: of the file, as the data set writes it.
    """
    for word in reversed(re.split(r"[/_.-]", f"{path}/{image_id}".lower())):
        if word in _PLATFORM_WORDS:
            return _PLATFORM_WORDS[word]
    building, slash, name = image_id.partition("/")
    stem = name.rpartition(".")[0] or name
    if not slash:
        return ""
    if re.fullmatch(r"image-\d+", stem):
        return "drone"
    if stem == building:
        return "satellite"
    return "ground" if stem.isdigit() else ""


@dataclass(frozen=True)
class ImageText:
    """One caption of one image.

    Attributes:
        id: unique within its source.
        image: path of the file; "" for a text query.
        image_id: "building/file name", e.g. "0839/image-43.jpeg"; "" for a text query.
        caption: describes the whole image.
        sentences: up to `MAX_SENTENCES` texts, each about one object of the image.
        boxes: one a sentence: centre x, centre y, width, height as shares of the image, all in 0..1.
        group: the building: what must not cross a split, and what counts as a hit in retrieval; "" when unknown.
        platform: one of `PLATFORMS`, or "" when unknown.
        source: name of the reader or generator.
        details: further facts as strings, e.g. {"roof": "red"}.
    """

    id: str
    image: str
    image_id: str
    caption: str
    sentences: tuple[str, ...] = ()
    boxes: tuple[tuple[float, float, float, float], ...] = ()
    group: str = ""
    platform: str = ""
    source: str = ""
    details: dict[str, str] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """Return a plain dict for `datasets` (details become one `key=value;...` string)."""
        return {
            "id": self.id,
            "image": self.image,
            "image_id": self.image_id,
            "caption": self.caption,
            "sentences": list(self.sentences),
            "boxes": [list(box) for box in self.boxes],
            "group": self.group or building_of(self.image_id),
            "platform": self.platform,
            "source": self.source,
            "details": ";".join(f"{key}={value}" for key, value in self.details.items()),
        }


def image_text_features() -> Features:
    """Return the features of a captioned image's row, the same for every source."""
    from datasets import Features, List, Value

    text = Value("string")
    return Features(
        {
            "id": text,
            "image": text,
            "image_id": text,
            "caption": text,
            "sentences": List(text),
            "boxes": List(List(Value("float64"))),
            "group": text,
            "platform": text,
            "source": text,
            "details": text,
        }
    )


def build_image_text_dataset(samples: Iterable[ImageText]) -> Dataset:
    """Put samples into an in-memory `datasets.Dataset` with `image_text_features`; also for none at all."""
    from datasets import Dataset

    rows = [sample.to_row() for sample in samples]
    features = image_text_features()
    return Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features)

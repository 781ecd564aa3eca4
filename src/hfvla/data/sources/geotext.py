"""Reader of GeoText-1652's JSON: captions of buildings, seen by drones, satellites and from the ground.

    train: [{"image_id": "0839/image-43.jpeg", "image": "train/0839/image-43.jpeg", "caption": "...",
             "sentences": ["...", "...", null], "bboxes": [[cx, cy, w, h], null, null]}, ...]
    test:  [{"image_id": "0001/image-01.jpeg", "image": "test/query/0001/image-01.jpeg",
             "caption": ["...", "...", "..."]}, ...]

Which of the two a record is follows from its own keys. The group of a row is its building. Every record that cannot be
used is counted by reason with the first offender named, and so is every box; a sentence or box that is null is left
out, and its caption stays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hfvla.data.samples.retrieval import ImageText, build_image_text_dataset, building_of, platform_of
from hfvla.data.sources.census import Census, UnusableError
from hfvla.data.sources.geotext_records import ImageFiles, captions_of, image_id_of, load_records, slots_of
from hfvla.errors import DataError
from hfvla.family import SourceData
from hfvla.paths import UserPath

__all__ = ["GeoTextOptions", "build_geotext", "count_geotext"]


class GeoTextOptions(BaseModel):
    """What a recipe may say about a GeoText-1652 file.

    Attributes:
        path: train or test JSON.
        root: folder that `image` is relative to, and that no image may lie outside of; default: the file's own.
        max_bad_fraction: share of unusable records, or of unusable boxes, above which reading fails.
        captions: "all", or the "first" of each image alone.
    """

    model_config = ConfigDict(extra="forbid")

    path: UserPath
    root: UserPath | None = None
    max_bad_fraction: float = Field(default=0.01, ge=0.0, le=1.0)
    captions: Literal["all", "first"] = "all"


@dataclass
class _Reading:
    """What one pass over a file gathers."""

    images: ImageFiles
    first_only: bool
    samples: list[ImageText] = field(default_factory=list)
    records: Census = field(default_factory=Census)
    boxes: Census = field(default_factory=Census)
    slots_without_box: int = 0
    captions_left_out: int = 0
    captions_of_image: Counter[str] = field(default_factory=Counter)

    def add(self, where: str, record: Any) -> None:
        """Turn one record into rows, or count it."""
        image_id = record.get("image_id") if isinstance(record, Mapping) else None
        self.records.found += 1
        try:
            self._add(where, record)
        except UnusableError as problem:
            self.records.reject(where, image_id if isinstance(image_id, str) else "", problem)

    def _add(self, where: str, record: Any) -> None:
        if not isinstance(record, Mapping):
            raise UnusableError("not an object", f"got {type(record).__name__}")
        image_id = image_id_of(record)
        captions = captions_of(record)
        slots = slots_of(record)
        path = self.images.find(record.get("image"))
        wanted = captions
        if self.first_only:
            wanted = () if self.captions_of_image[image_id] else captions[:1]
        self.captions_left_out += len(captions) - len(wanted)
        if not wanted:
            return
        boxed = []
        for number, slot in enumerate(slots):
            if slot.value is not None:
                self.boxes.found += 1
            if slot.problem:
                detail = f"slot {number}: {slot.value!r}"
                self.boxes.reject(where, image_id, UnusableError(f"box {slot.problem}", detail))
            elif slot.sentence and slot.box:
                boxed.append((slot.sentence, slot.box))
            else:
                self.slots_without_box += 1
        for caption in wanted:
            number = self.captions_of_image[image_id]
            self.captions_of_image[image_id] += 1
            self.samples.append(
                ImageText(
                    id=f"{image_id}#{number}",
                    image=path,
                    image_id=image_id,
                    caption=caption,
                    sentences=tuple(sentence for sentence, _ in boxed),
                    boxes=tuple(box for _, box in boxed),
                    platform=platform_of(image_id, str(record["image"])),
                    source="geotext",
                )
            )


def count_geotext(options: GeoTextOptions) -> int:
    """Return how many rows the file has if all its records can be used, without looking at its images.

    Raises:
        DataError: unreadable or broken file, or unknown format.
    """
    records = [record for _, record in load_records(Path(options.path)) if isinstance(record, Mapping)]
    if options.captions == "first":
        return len({str(record.get("image_id")) for record in records})
    captions = [record.get("caption") for record in records]
    return sum(len(caption) if isinstance(caption, list) else 1 for caption in captions)


def _single_image_buildings(samples: Iterable[ImageText]) -> list[str]:
    images = {sample.image_id for sample in samples}
    counts = Counter(building_of(image_id) for image_id in images)
    return sorted(building for building, count in counts.items() if count == 1)


def _refuse_bad_boxes(boxes: Census, options: GeoTextOptions) -> None:
    if boxes.bad <= options.max_bad_fraction * boxes.found:
        return
    reasons = boxes.rejected()
    counts = ", ".join(f"{entry['count']} {reason}" for reason, entry in reasons.items())
    raise DataError(
        f"{boxes.bad} of {boxes.found} boxes are unusable ({counts}); first: {next(iter(reasons.values()))['first']}",
        where=options.path,
        expected=f"at most {options.max_bad_fraction:.1%}; centre x, centre y, width, height as shares of the image",
        fix="Correct the boxes, or raise max_bad_fraction.",
    )


def build_geotext(options: GeoTextOptions, *, seed: int = 0) -> SourceData:
    """Read a GeoText-1652 file into rows, one a caption; each image is opened once, as far as its header.

    Args:
        options: see `GeoTextOptions`.
        seed: unused; part of every source's signature.

    Returns:
        `SourceData`; its census also has "captions" (rows), "captions_left_out", "images", "buildings",
        "single_image_buildings" (their number) and "first_single_image_building", "platforms" (rows by platform),
        "boxes", "slots_without_box" (null sentence or box) and "bad_boxes" by reason, with the first of each.

    Raises:
        DataError: unreadable or broken file, unknown format, or too many unusable records or boxes.
    """
    path = Path(options.path)
    images = ImageFiles(Path(options.root) if options.root else path.parent)
    reading = _Reading(images, options.captions == "first")
    for where, record in load_records(path):
        reading.add(where, record)
    samples, lonely = reading.samples, _single_image_buildings(reading.samples)
    counts = {
        "captions": len(samples),
        "captions_left_out": reading.captions_left_out,
        "images": len({sample.image_id for sample in samples}),
        "buildings": len({building_of(sample.image_id) for sample in samples}),
        "single_image_buildings": len(lonely),
        "boxes": sum(len(sample.boxes) for sample in samples),
        "slots_without_box": reading.slots_without_box,
    }
    bad_boxes = reading.boxes.rejected()
    notes = [(f"left out: {reason}, first {entry['first']}", entry["count"]) for reason, entry in bad_boxes.items()]
    reading.records.log(options.path, [*counts.items(), *notes])
    reading.records.refuse_if_too_bad(options.max_bad_fraction, options.path)
    _refuse_bad_boxes(reading.boxes, options)
    census = {
        "found": reading.records.found,
        "usable": reading.records.usable,
        "rejected": reading.records.rejected(),
        **counts,
        "first_single_image_building": lonely[0] if lonely else "",
        "bad_boxes": bad_boxes,
        "platforms": dict(sorted(Counter(sample.platform or "unknown" for sample in samples).items())),
    }
    rejected = {one.id: f"{one.reason}: {one.detail}" for one in reading.records.rejections if one.id}
    return SourceData(build_image_text_dataset(samples), census, rejected)

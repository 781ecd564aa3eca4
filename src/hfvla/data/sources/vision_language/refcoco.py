"""RefCOCO, RefCOCO+ and RefCOCOg: expressions for things in COCO's pictures, with their boxes.

    refs(unc).p, refs(umd).p, refs(google).p: a pickled list of {"ref_id", "ann_id", "image_id", "category_id",
        "split", "file_name", "sentences": [{"sent_id", "raw", "sent", "tokens"}]}
    instances.json beside: COCO's instances, for the boxes

Releases in JSON or Parquet have the same records with `bbox` in them ([x, y, w, h]; where there is `raw_anns`, its box
counts, for `bbox` is then [left, top, right, bottom]).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfvla.data.samples.chat import Box, ChatSample, ImageRef, text_turn
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.vision_language.boxes import box_from_xywh, sized_picture
from hfvla.data.sources.vision_language.conversations import reference_of
from hfvla.data.sources.vision_language.heads import Head
from hfvla.data.sources.vision_language.json_stream import iterate_json
from hfvla.data.sources.vision_language.pickled import read_pickled_data
from hfvla.data.sources.vision_language.reading import Reading, field_of, record_id, spelled, text_of
from hfvla.data.sources.vision_language.records import Taken, iterate_records
from hfvla.data.sources.vision_language.splits import image_group, split_of_path
from hfvla.data.sources.vision_language.store import Store
from hfvla.errors import DataError

__all__ = ["INSTANCES", "division_of", "is_refcoco", "read_refcoco"]

INSTANCES = "instances.json"
_DIVISIONS = ("unc", "umd", "google")  # of the same references; the first that is there is the one that papers use


def division_of(head: Head) -> int:
    """Return the rank of a file among the divisions of the same references; the lowest is read."""
    return next((rank for rank, name in enumerate(_DIVISIONS) if f"({name})" in head.path.name), len(_DIVISIONS))


def is_refcoco(head: Head) -> bool:
    """Tell whether a file holds references."""
    if head.kind == "pickle":
        return head.path.name.startswith("refs(")
    said = head.first.get("sentences")
    boxed = "bbox" in head.first or "ann_id" in head.first or "raw_anns" in head.first
    return isinstance(said, list) and boxed and "ref_id" in head.first


@dataclass(frozen=True)
class _Place:
    """What a reference is of."""

    picture: ImageRef
    bbox: Any
    size: tuple[Any, Any]


def read_refcoco(taken: Taken, reading: Reading) -> Iterator[ChatSample]:
    """Yield a sample a sentence: where is it?"""
    for head in taken.heads:
        if head.path.name == INSTANCES:
            continue
        with Store() as boxes, Store() as images:
            records: Iterator[tuple[str, Any]]
            if head.kind == "pickle":
                found = read_pickled_data(head.path)
                if not isinstance(found, list):
                    raise DataError("no list of references", where=str(head.path), got=type(found).__name__)
                name = reading.name(head.path)
                records = ((f"{name}:{number}", record) for number, record in enumerate(found))
                _load_instances(head.path.parent / INSTANCES, boxes, images)
            else:
                records = iterate_records(head, reading)
            boxes.sort()
            images.sort()
            for where, record in records:
                yield from _reference(where, record, head, taken.source, reading, boxes, images)


def _load_instances(path: Path, boxes: Store, images: Store) -> None:
    if not path.is_file():
        raise DataError(
            "references without their boxes", where=str(path), fix="Put COCO's instances.json beside them."
        )
    for section, number, record in iterate_json(path):
        if number is None or not isinstance(record, Mapping):
            continue
        if section == "annotations":
            boxes.put(record_id(record, "id"), json.dumps(record.get("bbox")))
        elif section == "images":
            facts = [record.get("file_name"), record.get("width"), record.get("height")]
            images.put(record_id(record, "id"), json.dumps(facts))


def _reference(
    where: str, record: Any, head: Head, source: str, reading: Reading, boxes: Store, images: Store
) -> Iterator[ChatSample]:
    told = record.get("split") if isinstance(record, Mapping) else None
    split = told if isinstance(told, str) and told else split_of_path(head.name)
    if not reading.wants(split):
        return
    with reading.record(where, record_id(record, "ref_id")):
        sentences = field_of(record, "sentences")
        said = [one.get("sent") or one.get("raw") if isinstance(one, Mapping) else one for one in sentences]
        place = _place(record, head, reading, boxes, images)
        names = spelled(said)
        if not names:
            raise UnusableError("no sentences", repr(sentences)[:120])
        size = place.size if all(place.size) else _size(place.picture, reading)
        for number, name in enumerate(names):
            box = box_from_xywh(place.bbox, size, name)
            if not number:
                sized_picture(reading, place.picture, box.size)
            identity = f"{record_id(record, 'ref_id')}-{number}"
            yield from reading.take(_sample(identity, box, place.picture, names, record, source, split, reading))


def _sample(
    name: str,
    box: Box,
    picture: ImageRef,
    names: tuple[str, ...],
    record: Any,
    source: str,
    split: str,
    reading: Reading,
) -> ChatSample:
    number = record.get("image_id")
    return ChatSample(
        id=name,
        turns=(
            text_turn("user", reading.options.prompts.locate.format(label=box.label), images=1),
            text_turn("assistant", reading.box_words(box)),
        ),
        images=(picture,),
        boxes=(box,),
        references=names,
        kind="locate",
        source=source,
        split=split,
        group=image_group(f"{number:012d}.jpg") if isinstance(number, int) else f"{source}/{number}",
        details={"ref_id": record_id(record, "ref_id"), "ann_id": record_id(record, "ann_id")},
    )


def _place(record: Mapping[str, Any], head: Head, reading: Reading, boxes: Store, images: Store) -> _Place:
    if head.kind == "pickle":
        found = next(boxes.get(record_id(record, "ann_id")), None)
        if found is None:
            raise UnusableError("reference without its box", f"ann_id {record.get('ann_id')!r}")
        listed = next(images.get(record_id(record, "image_id")), None)
        file_name, width, height = json.loads(listed) if listed else (None, None, None)
        return _Place(reading.picture(_names(record, file_name), head.path), json.loads(found), (width, height))
    raw = record.get("raw_anns")
    annotation = json.loads(raw) if isinstance(raw, str) else raw
    bbox = annotation.get("bbox") if isinstance(annotation, Mapping) else record.get("bbox")
    given = record.get("image")
    info = record.get("raw_image_info")
    facts = json.loads(info) if isinstance(info, str) else info if isinstance(info, Mapping) else record
    picture = reference_of(given, head.path, reading) if isinstance(given, Mapping | bytes) else None
    if picture is None:
        picture = reading.picture(_names(record, facts.get("file_name")), head.path)
    return _Place(picture, bbox, (facts.get("width"), facts.get("height")))


def _names(record: Mapping[str, Any], listed: Any) -> list[str]:
    """Return the names of a picture; `file_name` of a reference has the number of its box behind it."""
    number = field_of(record, "image_id")
    if isinstance(number, bool) or not isinstance(number, int):
        raise UnusableError("image_id is no number", repr(number))
    names = [f"COCO_train2014_{number:012d}.jpg", f"{number:012d}.jpg"]
    return [text_of(listed, "file_name"), *names] if listed else names


def _size(picture: ImageRef, reading: Reading) -> tuple[int, int]:
    from hfvla.data.pictures import picture_size

    if picture.data:
        return picture_size(picture.data, "picture in the record")
    if reading.images is None:
        raise UnusableError("picture without a size", picture.path)
    return reading.images.size(picture.path)

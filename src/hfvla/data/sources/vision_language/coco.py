"""COCO: captions, and instances as questions for boxes.

    {"images": [{"id", "file_name", "width", "height"}], "annotations": [{"image_id", "id", "caption"}]}
    {"images": [...], "categories": [{"id", "name"}],
     "annotations": [{"image_id", "id", "bbox": [x, y, w, h], "category_id", "iscrowd", "segmentation"}]}

A crowd has a run-length mask (`{"counts", "size"}`) in place of polygons; its box is kept, marked as a crowd, and is
no part of an answer.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any

from hfvla.data.samples.chat import Box, ChatSample, text_turn
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.vision_language.boxes import box_from_xywh, sized_picture
from hfvla.data.sources.vision_language.json_stream import iterate_json
from hfvla.data.sources.vision_language.reading import Reading, field_of, record_id, spelled, text_of
from hfvla.data.sources.vision_language.records import Taken
from hfvla.data.sources.vision_language.splits import image_group, split_of_path
from hfvla.data.sources.vision_language.store import Store

__all__ = ["load_images", "read_captions", "read_instances"]


def load_images(head: Any, store: Store) -> dict[str, str]:
    """Put the pictures of a COCO file into a store and return its categories by id."""
    categories: dict[str, str] = {}
    for part in iterate_json(head.path):
        if part.number is None or not isinstance(part.value, Mapping):
            continue
        if part.section == "images":
            facts = [part.value.get(key) for key in ("file_name", "width", "height")]
            store.put(record_id(part.value, "id"), json.dumps(facts))
        elif part.section == "categories":
            categories[record_id(part.value, "id")] = str(part.value.get("name"))
    store.sort()
    return categories


def _facts(store: Store, record: Mapping[str, Any]) -> tuple[str, int, int]:
    """Return file name, width and height of the picture that an annotation is of."""
    found = next(store.get(record_id(record, "image_id")), None)
    if found is None:
        raise UnusableError("annotation of a picture that the file does not list", repr(record.get("image_id")))
    name, width, height = json.loads(found)
    return text_of(name, "file_name"), width, height


def read_captions(taken: Taken, reading: Reading) -> Iterator[ChatSample]:
    """Yield a sample a caption; its references are all captions of the picture."""
    for head in taken.heads:
        split, name = split_of_path(head.name), reading.name(head.path)
        if not reading.wants_file(head.path, split):
            continue
        with Store() as images, Store() as captions:
            load_images(head, images)
            for part in iterate_json(head.path):
                if part.section == "annotations" and part.number is not None and isinstance(part.value, Mapping):
                    captions.put(record_id(part.value, "image_id"), json.dumps(part.value.get("caption")))
            captions.sort()
            for part in iterate_json(head.path):
                if part.section != "annotations" or part.number is None:
                    continue
                with reading.record(f"{name}:{part.number}", record_id(part.value, "id")):
                    caption = text_of(field_of(part.value, "caption"), "caption")
                    file_name, _, _ = _facts(images, part.value)
                    said = [json.loads(one) for one in captions.get(record_id(part.value, "image_id"))]
                    sample = ChatSample(
                        id=record_id(part.value, "id") or f"{name}:{part.number}",
                        turns=(
                            text_turn("user", reading.options.prompts.caption, images=1),
                            text_turn("assistant", caption),
                        ),
                        images=(reading.picture(file_name, head.path, split),),
                        references=spelled(said),
                        kind="caption",
                        source=taken.source,
                        split=split,
                        group=image_group(file_name, taken.source),
                    )
                    yield from reading.take(sample)


def read_instances(taken: Taken, reading: Reading) -> Iterator[ChatSample]:
    """Yield a sample a picture and category: where is it? Boxes that cannot be used are counted one by one."""
    for head in taken.heads:
        split, name = split_of_path(head.name), reading.name(head.path)
        if not reading.wants_file(head.path, split):
            continue
        with Store() as images, Store() as boxes:
            categories = load_images(head, images)
            for part in iterate_json(head.path):
                if part.section == "annotations" and part.number is not None:
                    with reading.record(f"{name}:{part.number}", record_id(part.value, "id")):
                        key, value = _instance(part.value, images, categories, reading)
                        reading.once(name, record_id(part.value, "id"))
                        boxes.put(key, value)
            boxes.sort()
            for key, values in boxes.groups():
                image_id, label = json.loads(key)
                where = f"{name} picture {image_id}"
                try:
                    yield from _located(taken, reading, where, head, split, label, [json.loads(one) for one in values])
                except UnusableError as problem:
                    for _ in values:  # the census counts boxes
                        reading.census.reject(where, image_id, problem)


def _instance(record: Any, images: Store, categories: Mapping[str, str], reading: Reading) -> tuple[str, str]:
    category = record_id(record, "category_id")
    if category not in categories:
        raise UnusableError("box of an unknown category", f"category_id {field_of(record, 'category_id')!r}")
    file_name, width, height = _facts(images, record)
    crowd = bool(record.get("iscrowd"))
    box = box_from_xywh(field_of(record, "bbox"), (width, height), categories[category], crowd=crowd)
    if crowd:
        reading.notes["crowds (boxes marked, no part of answers)"] += 1
    value = [file_name, width, height, list(box.xyxy), crowd]
    return json.dumps([record_id(record, "image_id"), categories[category]]), json.dumps(value)


def _located(
    taken: Taken, reading: Reading, where: str, head: Any, split: str, label: str, values: list[list[Any]]
) -> Iterator[ChatSample]:
    file_name, width, height = values[0][:3]
    boxes = tuple(Box(0, label, tuple(value[3]), (width, height), value[4]) for value in values)
    answers = sorted((box for box in boxes if not box.crowd), key=lambda box: box.xyxy)
    if not answers:
        reading.notes["pictures with a crowd of a category alone (left out)"] += 1
        return
    picture = reading.picture(file_name, head.path, split)
    sized_picture(reading, picture, (width, height))
    sample = ChatSample(
        id=f"{image_group(file_name)}/{label}",
        turns=(
            text_turn("user", reading.options.prompts.locate.format(label=label), images=1),
            text_turn("assistant", "; ".join(reading.box_words(box) for box in answers)),
        ),
        images=(picture,),
        boxes=boxes,
        kind="locate",
        source=taken.source,
        split=split,
        group=image_group(file_name, taken.source),
        details={"category": label},
    )
    yield from reading.take(sample)

"""Small public sets as their makers publish them: official keys and folders, pictures of plain colours."""

import json
from pathlib import Path

from PIL import Image

from hfvla.data.samples.chat import ChatSample
from hfvla.data.sources.vision_language import VisionLanguageOptions
from hfvla.data.sources.vision_language.build import build_vision_language

SHARED = next(
    (root / "shared" / "data" for root in Path(__file__).resolve().parents if (root / "shared" / "data").is_dir()),
    None,
)
"""Excerpts of real sets beside the checkout, None where there are none."""


def picture(path, size=(8, 6), colour=(200, 10, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)
    return path


def write(path, value):
    """Write JSON, or one object a line where the name says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(one) + "\n" for one in value) if path.suffix == ".jsonl" else json.dumps(value)
    path.write_text(text, encoding="utf-8")
    return path


def read(path, **options):
    """Return the samples of a source and its census."""
    options.setdefault("cache_dir", str(Path(path).parent / f".cache-{Path(path).name}"))
    options.setdefault("split", "all")
    data = build_vision_language(VisionLanguageOptions(path=str(path), **options), seed=0)
    return [ChatSample.from_row(row) for row in data.dataset], data.census


def said(sample):
    """Return a conversation as (role, text) pairs; a picture is <image>."""
    return [
        (turn.role, "".join("<image>" if part.type == "image" else part.text for part in turn.content))
        for turn in sample.turns
    ]


def coco_images(*numbers, size=(8, 6), year="2017", split="train"):
    name = "{:012d}.jpg" if year == "2017" else f"COCO_{split}2014_{{:012d}}.jpg"
    return [
        {"id": number, "file_name": name.format(number), "width": size[0], "height": size[1], "license": 1}
        for number in numbers
    ]


def write_coco(root, numbers=(9, 25), split="train"):
    """Write pictures, captions and instances of COCO 2017 and return their folder."""
    for number in numbers:
        picture(root / f"{split}2017" / f"{number:012d}.jpg")
    head = {"info": {"year": 2017}, "licenses": [{"id": 1}], "images": coco_images(*numbers)}
    captions = [
        {"image_id": number, "id": 100 * number + place, "caption": f"caption {place} of {number}. "}
        for number in numbers
        for place in range(2)
    ]
    write(root / "annotations" / f"captions_{split}2017.json", {**head, "annotations": captions})
    boxes = [
        {"id": 1, "image_id": numbers[0], "category_id": 18, "bbox": [1.0, 1.0, 4.0, 3.0], "iscrowd": 0, "area": 12.0,
         "segmentation": [[1, 1, 5, 1, 5, 4]]},
        {"id": 2, "image_id": numbers[0], "category_id": 18, "bbox": [0.0, 2.0, 2.0, 3.0], "iscrowd": 0, "area": 6.0,
         "segmentation": [[0, 2, 2, 2, 2, 5]]},
        {"id": 3, "image_id": numbers[0], "category_id": 18, "bbox": [0.0, 0.0, 8.0, 6.0], "iscrowd": 1, "area": 40.0,
         "segmentation": {"counts": [10, 38], "size": [6, 8]}},
        {"id": 4, "image_id": numbers[1], "category_id": 1, "bbox": [2.0, 2.0, 2.0, 2.0], "iscrowd": 1, "area": 4.0,
         "segmentation": {"counts": [10, 38], "size": [6, 8]}},
    ]  # fmt: skip
    categories = [{"supercategory": "person", "id": 1, "name": "person"}, {"id": 18, "name": "dog"}]
    instances = {**head, "annotations": boxes, "categories": categories}
    write(root / "annotations" / f"instances_{split}2017.json", instances)
    return root

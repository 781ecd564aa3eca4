"""Generated scenes as files in the format of GeoText-1652."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfvla.worlds.drone.builder import DroneImage, DroneOptions, draw_images, write_images

__all__ = ["GeoTextFiles", "boxed_records", "caption_list_record", "write_geotext"]


@dataclass(frozen=True)
class GeoTextFiles:
    """What `write_geotext` wrote.

    Attributes:
        train: one record a caption, with sentences and boxes.
        test: one record an image, with all its captions.
        test_boxes: the test images in the format of `train`: held-out buildings with boxes, which the published test
            file does not have.
    """

    train: Path
    test: Path
    test_boxes: Path


def boxed_records(image: DroneImage, folder: str) -> list[dict[str, Any]]:
    """Return an image's records as the train JSON has them; `folder` is where images lie, relative to the root."""
    return [
        {
            "image_id": image.image_id,
            "image": f"{folder}/{image.image_id}",
            "caption": wording.caption,
            "sentences": [sentence for sentence, _ in wording.slots],
            "bboxes": [None if box is None else list(box) for _, box in wording.slots],
        }
        for wording in image.wordings
    ]


def caption_list_record(image: DroneImage, folder: str) -> dict[str, Any]:
    """Return an image's record as the test JSON has it."""
    captions = [wording.caption for wording in image.wordings]
    return {"image_id": image.image_id, "image": f"{folder}/{image.image_id}", "caption": captions}


def write_geotext(
    folder: str | Path, options: DroneOptions | None = None, *, test_buildings: int = 50, seed: int = 0
) -> GeoTextFiles:
    """Write train.json, test.json, test_boxes.json and their images (train, test/query) into a folder.

    The rows that the `geotext` reader makes of train.json and test_boxes.json are those of `build_drone`, up to
    where images lie.

    Args:
        folder: data root.
        options: of the training part; its `split` and `folder` are not looked at.
        test_buildings: number of held-out buildings.
        seed: of both parts, unless the options have their own.

    Raises:
        DataError: the folder cannot be written.
    """
    root = Path(folder).expanduser().absolute()
    options = options or DroneOptions()
    seed = options.seed if options.seed is not None else seed
    train = draw_images(options.model_copy(update={"split": "train"}), seed)
    test = draw_images(options.model_copy(update={"split": "test", "buildings": test_buildings}), seed)
    write_images(train, options.image_size, root / "train", keep=False)
    write_images(test, options.image_size, root / "test" / "query", keep=False)
    boxed = [record for image in test for record in boxed_records(image, "test/query")]
    return GeoTextFiles(
        train=_write_json(
            root / "train.json", [record for image in train for record in boxed_records(image, "train")]
        ),
        test=_write_json(root / "test.json", [caption_list_record(image, "test/query") for image in test]),
        test_boxes=_write_json(root / "test_boxes.json", boxed),
    )


def _write_json(path: Path, records: Sequence[dict[str, Any]]) -> Path:
    path.write_text(json.dumps(records, indent=1) + "\n", encoding="utf-8")
    return path

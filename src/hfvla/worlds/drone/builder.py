"""Builds data sets of generated drone scenes; pictures are drawn once and kept on disk."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from hfvla.data.samples.retrieval import ImageText, build_image_text_dataset
from hfvla.errors import DataError
from hfvla.family import SourceData
from hfvla.paths import UserPath
from hfvla.worlds.drone.conditions import Conditions
from hfvla.worlds.drone.holdout import BUILDINGS_PER_SPLIT, Split
from hfvla.worlds.drone.picture import draw_picture, scene_boxes
from hfvla.worlds.drone.scene import Building, View, draw_buildings, draw_view
from hfvla.worlds.drone.wording import Wording, describe
from hfvla.worlds.versions import source_version

__all__ = ["DroneImage", "DroneOptions", "build_drone", "count_drone", "draw_images", "write_images"]

logger = logging.getLogger(__name__)

_JPEG_QUALITY = 92


class DroneOptions(BaseModel):
    """What a recipe may say about generated drone scenes.

    Attributes:
        buildings: number of buildings.
        split: "train", or "test" with other buildings and combinations that train never has.
        views: pictures a building; of three or more the last is from the ground, the one before by satellite.
        captions: captions a picture; each is a row.
        image_size: pixels a side.
        conditions: "plain", from the north in steady light; or "varied": any heading, light and season, things in
            other colours, clouds, and several buildings alike in colour (`conditions.py`).
        folder: where pictures are kept; by default beside the hub's cache. Each set of options has its own subfolder.
        seed: overrides the run's seed.
    """

    model_config = ConfigDict(extra="forbid")

    buildings: int = Field(default=400, ge=1, le=BUILDINGS_PER_SPLIT)
    split: Split = "train"
    views: int = Field(default=4, ge=1, le=99)
    captions: int = Field(default=3, ge=1, le=20)
    image_size: int = Field(default=64, ge=32, le=1024)
    conditions: Conditions = "plain"
    folder: UserPath | None = None
    seed: int | None = Field(default=None, ge=0)


@dataclass(frozen=True)
class DroneImage:
    """One picture with its captions; nothing is drawn yet.

    Attributes:
        building: what it shows.
        view: from where.
        image_id: "building/file name".
        wordings: one a caption.
    """

    building: Building
    view: View
    image_id: str
    wordings: tuple[Wording, ...]


def _file_name(building: Building, view: View, index: int) -> str:
    """Names as GeoText-1652 has them: image-NN from a drone, the building's number by satellite, N from the ground."""
    if view.platform == "drone":
        return f"image-{index + 1:02d}.jpeg"
    return f"{building.name}.jpg" if view.platform == "satellite" else "1.jpg"


def draw_images(options: DroneOptions, seed: int) -> list[DroneImage]:
    """Draw the facts and captions of all pictures, building by building; nothing is rendered.

    Args:
        options: see `DroneOptions`; its own seed is not looked at here.
        seed: of the data set.
    """
    images = []
    for building in draw_buildings(options.buildings, options.split, seed, options.conditions):
        for index in range(options.views):
            view = draw_view(building, index, options.views, options.conditions)
            image_id = f"{building.name}/{_file_name(building, view, index)}"
            boxes = scene_boxes(building, view)
            wordings = [describe(building, boxes, f"{image_id}/{number}", view) for number in range(options.captions)]
            images.append(DroneImage(building, view, image_id, tuple(wordings)))
    return images


def _image_folder(options: DroneOptions, seed: int) -> Path:
    """Folder of the pictures of these options; the number of buildings and captions does not matter to it."""
    drawn = {"split": options.split, "seed": seed, "version": source_version(__file__)}
    drawn |= {name: getattr(options, name) for name in ("image_size", "views", "conditions")}
    key = hashlib.sha256(json.dumps(drawn, sort_keys=True).encode()).hexdigest()[:12]
    if options.folder is None:
        from huggingface_hub.constants import HF_HOME

        root = Path(HF_HOME) / "hfvla" / "drone"
    else:
        root = Path(options.folder)
    return root.expanduser().absolute() / f"{options.split}-{seed}-{key}"


def write_images(images: Sequence[DroneImage], image_size: int, folder: Path, *, keep: bool = True) -> int:
    """Write pictures into a folder, and return how many were drawn.

    Args:
        images: their facts.
        image_size: pixels a side.
        folder: where they are to lie, one subfolder a building.
        keep: leave pictures that are there already; only where the folder tells the options they were drawn with.

    Raises:
        DataError: the folder cannot be written.
    """
    from tqdm.auto import tqdm

    try:
        missing = [image for image in images if not (keep and (folder / image.image_id).exists())]
        for image in tqdm(missing, desc="draw scenes", leave=False, disable=None):
            path = folder / image.image_id
            path.parent.mkdir(parents=True, exist_ok=True)
            # Under another name first: a picture that is there is whole, also with several processes at work.
            unfinished = path.with_name(f".{path.name}.{os.getpid()}")
            pixels = draw_picture(image.building, image.view, image_size)
            Image.fromarray(pixels).save(unfinished, format="JPEG", quality=_JPEG_QUALITY, subsampling=0)
            unfinished.replace(path)
    except OSError as error:
        raise DataError(
            "generated pictures cannot be written",
            where=str(folder),
            got=error.strerror or str(error),
            fix="Name another folder in the source's options, or make room.",
        ) from error
    return len(missing)


def _samples(images: Sequence[DroneImage], folder: Path) -> Iterator[ImageText]:
    for image in images:
        building = image.building
        facts = {name: getattr(building, name) for name in ("roof", "shape", "mark", "ground", "road")}
        facts["objects"] = ",".join(f"{one.kind}@{one.slot}" for one in building.surroundings)
        for number, wording in enumerate(image.wordings):
            boxed = [(text, box) for text, box in wording.slots if text is not None and box is not None]
            yield ImageText(
                id=f"{image.image_id}#{number}",
                image=str(folder / image.image_id),
                image_id=image.image_id,
                caption=wording.caption,
                sentences=tuple(text for text, _ in boxed),
                boxes=tuple(box for _, box in boxed),
                platform=image.view.platform,
                source="drone",
                details=facts,
            )


def count_drone(options: DroneOptions) -> int:
    """Return how many rows `build_drone` will yield, without generating them."""
    return options.buildings * options.views * options.captions


def build_drone(options: DroneOptions, *, seed: int = 0) -> SourceData:
    """Generate captioned pictures, drawing those that are not on disk yet.

    Args:
        options: see `DroneOptions`.
        seed: seed of the run, unless the options have their own.

    Returns:
        `SourceData`; its census has "buildings", "images", "drawn" (pictures not found on disk), "folder",
        "platforms" (rows by platform), "boxes" and "slots_without_box".

    Raises:
        DataError: the folder cannot be written.
    """
    seed = options.seed if options.seed is not None else seed
    folder = _image_folder(options, seed)
    images = draw_images(options, seed)
    drawn = write_images(images, options.image_size, folder)
    samples = list(_samples(images, folder))
    boxes = sum(len(sample.boxes) for sample in samples)
    slots = sum(len(wording.slots) for image in images for wording in image.wordings)
    census = {
        "found": len(samples),
        "usable": len(samples),
        "rejected": {},
        "buildings": options.buildings,
        "images": len(images),
        "drawn": drawn,
        "folder": str(folder),
        "platforms": dict(sorted(Counter(sample.platform for sample in samples).items())),
        "boxes": boxes,
        "slots_without_box": slots - boxes,
    }
    logger.info(
        "generated drone scenes (%s): %d captions of %d pictures (%d drawn now) of %d buildings in %s",
        options.split,
        len(samples),
        len(images),
        drawn,
        options.buildings,
        folder,
    )
    return SourceData(build_image_text_dataset(samples), census)

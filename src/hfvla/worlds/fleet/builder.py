"""Builds datasets of generated tasks: lazily, deterministically, cached by `datasets`."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterator
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from hfvla.data.rows.columns import column
from hfvla.data.samples.robots import RobotTask, normalise_task
from hfvla.data.sources.rows import robot_task_features
from hfvla.family import SourceData
from hfvla.worlds.fleet.grammar import write_scene_task, write_task
from hfvla.worlds.fleet.kinds import Kinds
from hfvla.worlds.fleet.scene import encode_png, render_scene
from hfvla.worlds.fleet.situations import draw_scene_situation, draw_situation
from hfvla.worlds.fleet.templates import SCENE_TEMPLATES, TEMPLATES
from hfvla.worlds.fleet.texts import write_caption, write_dialogue, write_plan, write_reasoning
from hfvla.worlds.versions import source_version

__all__ = ["FleetOptions", "build_fleet", "count_fleet", "generate_task"]

logger = logging.getLogger(__name__)


class FleetOptions(BaseModel):
    """What a recipe may say about generated tasks.

    Attributes:
        size: number of tasks.
        split: "train", or "test" with templates and words that train never uses.
        images: draw the environment of each task; without, no task needs a picture.
        image_size: pixels a side.
        scene_only_fraction: share of tasks whose place only the picture tells; ignored without images.
        kinds: "all"; "seen", without the kinds of places and actions that are held out (`kinds.py`); or "unseen",
            those alone. Train on the seen, score both: what carries over to tasks of another kind?
        seed: overrides the run's seed.
    """

    model_config = ConfigDict(extra="forbid")

    size: int = Field(default=2000, ge=1)
    split: Literal["train", "test"] = "train"
    images: bool = True
    image_size: int = Field(default=96, ge=16, le=1024)
    scene_only_fraction: float = Field(default=0.2, ge=0.0, le=1.0)
    kinds: Kinds = "all"
    seed: int | None = None


def generate_task(index: int, options: FleetOptions, seed: int) -> RobotTask:
    """Generate one task; a function of (seed, split, index) and the options, never of the other tasks.

    The picture's seed does not depend on the task, so equal environments and indices give equal pixels.

    Args:
        index: number of the task, from 0.
        options: see `FleetOptions`; its own seed is not looked at here.
        seed: seed of the data set.
    """
    generator = random.Random(f"fleet/{seed}/{options.split}/{index}")
    test = options.split == "test"
    scene_only = options.images and generator.random() < options.scene_only_fraction
    item = (draw_scene_situation if scene_only else draw_situation)(generator, options.kinds)
    sentence = (write_scene_task if scene_only else write_task)(item, generator, test)
    caption = write_caption(item, generator) if options.images else ""
    picture_seed = seed * 1_000_003 + index * 2 + test
    key = item.environment.key
    pool, prefix = (SCENE_TEMPLATES, "s") if scene_only else (TEMPLATES, "t")
    return RobotTask(
        id=f"fleet-{options.split}-{seed}-{index}",
        task=sentence.text,
        robots=item.robots,
        reasoning=write_reasoning(item, sentence, options.images),
        plan=write_plan(item, sentence, generator),
        image=encode_png(render_scene(key, picture_seed, options.image_size)) if options.images else None,
        caption=caption,
        dialogue=write_dialogue(item, caption, options.images, generator, test),
        needs_scene=scene_only,
        source="fleet",
        group=normalise_task(sentence.text) + (f"@{key}" if scene_only else ""),
        details={
            "environment": key,
            "zone": item.environment.zone,
            "action": item.action.key,
            "focus": item.facts.focus,
            "vantage": item.facts.vantage,
            "convention": item.clause.name,
            "template": f"{prefix}{pool.index(sentence.template)}",
            "unseen": "|".join(sentence.unseen),
        },
    )


def _rows(indices: list[int], options: dict[str, Any], seed: int, version: str) -> Iterator[dict[str, Any]]:
    """Rows for `Dataset.from_generator`; `version` is only there to be part of its cache key."""
    settings = FleetOptions(**options)
    for index in indices:
        yield generate_task(index, settings, seed).to_row()


def count_fleet(options: FleetOptions) -> int:
    """Return how many rows `build_fleet` will yield, without generating them."""
    return options.size


def build_fleet(options: FleetOptions, *, seed: int = 0) -> SourceData:
    """Generate tasks into an Arrow-backed dataset, reused from the `datasets` cache when nothing changed.

    Args:
        options: see `FleetOptions`.
        seed: seed of the run, unless the options have their own.

    Returns:
        `SourceData`; its census has "label_sets" (count by robot set, primary first) and "scene_only".
    """
    from datasets import Dataset

    seed = options.seed if options.seed is not None else seed
    dataset = Dataset.from_generator(
        _rows,
        features=robot_task_features(),
        gen_kwargs={
            "indices": list(range(options.size)),
            "options": options.model_dump(exclude={"seed"}),
            "seed": seed,
            "version": source_version(__file__),
        },
    )
    label_sets = Counter(", ".join(robots) for robots in column(dataset, "robots"))
    census = {
        "found": len(dataset),
        "usable": len(dataset),
        "rejected": {},
        "label_sets": dict(label_sets.most_common()),
        "scene_only": sum(column(dataset, "needs_scene")),
    }
    logger.info(
        "generated fleet tasks (%s): %d, of which %d need the picture; robot sets: %s",
        options.split,
        len(dataset),
        census["scene_only"],
        ", ".join(f"{name} {count}" for name, count in label_sets.most_common()),
    )
    return SourceData(dataset, census)

"""Drawn traffic lights: a dark picture with one lamp on, in noise."""

import numpy as np
from datasets import Dataset
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from hfvla.family import SourceData

COLOURS = np.array([[230, 40, 30], [240, 170, 20], [40, 210, 90]])


class LightOptions(BaseModel):
    """What a recipe may say: `{source: lights, size: 400}`."""

    model_config = ConfigDict(extra="forbid")
    size: int = Field(400, ge=1, description="pictures")
    seed: int | None = Field(None, description="of the drawing; the run's own when not given")
    noise: int = Field(60, ge=0, description="standard deviation of a pixel's noise, of 255")


def build_lights(options: LightOptions, *, seed: int) -> SourceData:
    """Draw pictures [24, 24, 3]; `group` is what a split must not cross."""
    seed = seed if options.seed is None else options.seed
    rng = np.random.default_rng(seed)
    rows = []
    for index in range(options.size):
        lamp, column = int(rng.integers(3)), int(rng.integers(4, 16))
        picture = 40 + options.noise * rng.standard_normal((24, 24, 3))
        picture[2 + 7 * lamp : 8 + 7 * lamp, column : column + 6] += COLOURS[lamp]
        image = Image.fromarray(picture.clip(0, 255).astype(np.uint8))
        rows.append({"id": f"light-{seed}-{index}", "group": f"light-{seed}-{index}", "image": image, "lamp": lamp})
    return SourceData(Dataset.from_list(rows), {"found": options.size, "usable": options.size, "rejected": {}})

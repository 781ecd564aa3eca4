"""Generator of dashcam clips with known facts, as real mp4 files, and questions on them in Vietnamese and English.

    from hfvla.worlds.road import RoadOptions, build_road
    data = build_road(RoadOptions(size=400), seed=0)

`holdout` holds the values that are asked about and what only one split uses, `clip` draws the facts, `scenery`,
`sprites`, `font` and `frames` the pictures, `questions` and `wording` the questions, `challenge` writes files in the
format of the road-video challenge.
"""

from hfvla.worlds.road.builder import RoadOptions, build_road, count_road
from hfvla.worlds.road.clip import Clip, Station, draw_clip
from hfvla.worlds.road.frames import ClipFrames
from hfvla.worlds.road.questions import KINDS, MOMENT_KINDS

__all__ = [
    "KINDS",
    "MOMENT_KINDS",
    "Clip",
    "ClipFrames",
    "RoadOptions",
    "Station",
    "build_road",
    "count_road",
    "draw_clip",
]

"""Generator of drone pictures of buildings from above, with captions, sentences, boxes and several views a building.

    from hfvla.worlds.drone import DroneOptions, build_drone
    data = build_drone(DroneOptions(buildings=400), seed=0)

`holdout` holds the values that scenes are made of and what only the test split has, `scene` draws the facts,
`outlines` and `picture` the pictures and boxes, `wording` the captions, `geotext` writes files in the format of
GeoText-1652.
"""

from hfvla.worlds.drone.builder import DroneOptions, build_drone, count_drone
from hfvla.worlds.drone.geotext import GeoTextFiles, write_geotext
from hfvla.worlds.drone.picture import BUILDING, draw_picture, scene_boxes
from hfvla.worlds.drone.scene import Building, View, draw_buildings, draw_view

__all__ = [
    "BUILDING",
    "Building",
    "DroneOptions",
    "GeoTextFiles",
    "View",
    "build_drone",
    "count_drone",
    "draw_buildings",
    "draw_picture",
    "draw_view",
    "scene_boxes",
    "write_geotext",
]

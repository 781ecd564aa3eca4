"""Generator of small pictures of coloured shapes, with questions and answers whose truth is known.

    from hfvla.worlds.shapes import ShapesOptions, build_shapes
    data = build_shapes(ShapesOptions(size=400), seed=0)

`scene` draws which shapes lie where and keeps some pairs of colour and shape for the test split, `drawing` paints
them, `questions` asks.
"""

from hfvla.worlds.shapes.builder import ShapesOptions, build_shapes, count_shapes
from hfvla.worlds.shapes.drawing import draw
from hfvla.worlds.shapes.questions import KINDS, ask
from hfvla.worlds.shapes.scene import COLOURS, SHAPES, Scene, Thing, held_out_pairs, make_scene

__all__ = [
    "COLOURS",
    "KINDS",
    "SHAPES",
    "Scene",
    "ShapesOptions",
    "Thing",
    "ask",
    "build_shapes",
    "count_shapes",
    "draw",
    "held_out_pairs",
    "make_scene",
]

"""Generator of robot-selection tasks with known facts: a grammar of words, an explicit rule, pictures of places.

    from hfvla.worlds.fleet import FleetOptions, build_fleet
    data = build_fleet(FleetOptions(size=2000), seed=0)

`rule` holds the conventions that decide, `places_*` and `actions` the vocabulary, `holdout` what only the test split
may use, `scene` the pictures, `texts` the chain of thought, plan, caption and dialogue, `glossary` the meaning of
every word.
"""

from hfvla.worlds.fleet.builder import FleetOptions, build_fleet, generate_task
from hfvla.worlds.fleet.glossary import capability_text, glossary
from hfvla.worlds.fleet.rule import decide, explain
from hfvla.worlds.fleet.scene import render_scene

__all__ = [
    "FleetOptions",
    "build_fleet",
    "capability_text",
    "decide",
    "explain",
    "generate_task",
    "glossary",
    "render_scene",
]

"""The meaning of the vocabulary in plain sentences, and the robots' abilities in words.

This is text about words, not tasks: it covers held-out phrases too, as a dictionary would.
"""

from __future__ import annotations

from functools import cache

from hfvla.data.samples.robots import ROBOTS
from hfvla.worlds.fleet import pools
from hfvla.worlds.fleet.actions import ACTIONS
from hfvla.worlds.fleet.facts import Environment
from hfvla.worlds.fleet.inflect import is_plural, with_article
from hfvla.worlds.fleet.places import environments

__all__ = ["ABILITIES", "ZONE_WORDS", "capability_text", "define_place", "glossary"]

ZONE_WORDS: dict[str, str] = {
    "tall": "open air, high above the ground",
    "wide": "outdoors, wider than one can see",
    "rough": "outdoors on rough, uneven ground",
    "stairs": "steep steps over several floors",
    "underground": "dark, uneven ground below the earth",
    "sand": "dry, sandy, long flat distances",
    "paved": "smooth, paved and flat",
    "field": "flat farmland with rows of plants",
    "orchard": "level ground between rows of trees or vines",
    "pasture": "open grassland with animals",
    "growing house": "narrow paths among plants and people",
    "wild garden": "an overgrown garden used by people",
    "compound": "open, level, fenced outdoor ground",
    "building": "indoors on level floors",
    "workplace": "indoors, built for people's hands",
    "crowd": "level, full of people on foot",
    "refit": "indoors, bare and level, under work",
    "warehouse": "indoors on a smooth, level floor",
    "water": "below the surface of the water",
    "water and air": "in the water, partly above the surface",
    "bank": "a soft bank at the water's edge",
}
"""What a zone is like, in words for assessments and definitions."""

_FOCUS_WORDS = {
    "living": "concerns living plants or animals on a farm",
    "system": "belongs to how a whole field works",
    "soil": "is measured in the soil itself",
    "contact": "is looked at close to the ground between the plants",
    "growth": "shows when a whole field is seen at once",
    "equipment": "is a fitting in rooms made for people",
    "passage": "is part of a level indoor way",
}
ABILITIES: tuple[tuple[str, str], ...] = (
    ("Which robot can dive?", "The Underwater Robot works below the surface; the others stay dry."),
    ("Which robot can fly?", "The Drone flies and sees things from above."),
    ("Which robot has hands?", "The Humanoid has hands and uses tools made for people."),
    ("Which robot climbs stairs?", "The Robot with Legs climbs stairs, and the Humanoid can manage them slowly."),
    ("Which robot carries the heaviest load?", "The Robot with Wheels carries heavy loads, on flat ground."),
    ("Which robot is best on rough ground?", "The Robot with Legs walks over rocks, roots and rubble."),
    ("Which robot opens doors?", "The Humanoid opens doors and turns handles."),
    ("Which robot is fastest over a long road?", "The Robot with Wheels rolls fast along flat roads."),
    ("Can the Drone carry a heavy crate?", "No, the Drone lifts only light things."),
    ("Can the Robot with Wheels climb steps?", "No, it needs flat ground."),
    ("Can the Underwater Robot inspect a roof?", "No, it works only in water."),
    ("Who should talk to people and help them?", "The Humanoid deals with people."),
    ("Who sees a wide area quickly?", "The Drone, since it looks from high above."),
    ("What limits the Drone?", "Small payload, short battery life and bad weather."),
    ("What limits the Humanoid?", "It walks slowly, can lose its balance and uses much power."),
    ("What limits the Robot with Legs?", "It has no real hands and cannot reach high places."),
    ("What limits the Robot with Wheels?", "Steps, rubble and steep slopes stop it."),
    ("What limits the Underwater Robot?", "It leaves the water for nothing, and signals are weak down there."),
    ("When do two robots share a task?", "When both suit it equally, such as air and ground views of rough land."),
    ("Which robot moves through a crowd?", "The Robot with Legs steps nimbly among people."),
)
"""Questions about the fleet and their answers."""


def define_place(name: str, place: Environment) -> str:
    """One sentence on what a place name means and what the ground is like there."""
    verb = "are" if is_plural(name) else "is"
    subject = with_article(name, "a")
    return f"{subject[0].upper()}{subject[1:]} {verb} {place.gloss}: {ZONE_WORDS[place.zone]}."


def _thing(part: str, focus: str, place: Environment) -> str:
    subject = part[0].upper() + part[1:]
    if focus:
        return f"{subject}: this {_FOCUS_WORDS[focus]}."
    return f"{subject}: found {place.at} {place.gloss}."


def _cargo(name: str, weight: str) -> str:
    text = with_article(name, "")
    return f"{text[0].upper()}{text[1:]}: {weight}."


@cache
def _glossary() -> tuple[str, ...]:
    lines: dict[str, None] = {}
    for place in environments().values():
        lines |= {define_place(name, place): None for name in place.names}
        lines |= {_thing(part, focus, place): None for focus, parts in place.parts.items() for part in parts}
        lines |= {f"{sign[0].upper()}{sign[1:]}: looked for {place.at} {place.gloss}.": None for sign in place.signs}
    lines |= {_cargo(name, "light enough to carry by hand"): None for name in pools.LIGHT}
    lines |= {_cargo(name, "a heavy load"): None for name in pools.HEAVY}
    for action in ACTIONS.values():
        lines |= {f"To {verb.lstrip('*')} something is a kind of {action.noun}.": None for verb in action.verbs}
    return tuple(lines)


def glossary() -> list[str]:
    """Return a definition sentence for every noun phrase and verb of the vocabulary, held-out ones included."""
    return list(_glossary())


def capability_text() -> dict[str, str]:
    """Return what each robot of the fleet can do, cannot do, and where it works."""
    drone, diver, humanoid, wheels, legs = ROBOTS
    return {
        drone: "Flies, is the fastest, watches and inspects from the air and brings light things. Carries little, is "
        "loud, depends on weather and battery. Works outdoors, in large halls and where nothing else gets to.",
        diver: "Dives, explores the deep, inspects and handles things under water. Works only in water, with weak "
        "radio links and limits of pressure. Suits seas, lakes, pools and flooded pipes.",
        humanoid: "Walks, has hands, uses tools, opens doors and deals with people in complex tasks. Slow, less "
        "stable, hungry for power. Works indoors and wherever people live, stairs included.",
        wheels: "Moves fast and steadily with a good payload and little energy. Needs flat ground and cannot climb. "
        "Works in halls, warehouses, on roads and level open land.",
        legs: "Walks rough ground with great stability, carries loads and inspects. Has hardly any hands and cannot "
        "reach high up. Works outdoors on uneven land, stairs, industrial sites and in rescues.",
    }

"""The rule that turns facts into robots: named conventions, tried in order; the first that applies decides.

The conventions come from the capability text of the fleet (who flies, dives, has hands, rolls, climbs) and from the
habits of the people who label such tasks: they name every robot that is equally suited, primary first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from hfvla.data.samples.robots import ROBOTS
from hfvla.worlds.fleet.facts import Facts

__all__ = ["CLAUSES", "Clause", "decide", "deciding_clause", "explain"]

DRONE, DIVER, HUMANOID, WHEELS, LEGS = ROBOTS
HEAVY_KG = 25.0
TALL_M = 15.0
FLAT = ("field", "open ground", "floor", "logistics floor", "unfinished floor", "paved", "sand")
LOOKING = ("observe", "explore")


@dataclass(frozen=True)
class Clause:
    """One convention.

    Attributes:
        name: unique, for censuses and tests.
        applies: predicate over facts.
        robots: the set it gives, primary first.
        because: the convention in words, for the justification step of a chain.
    """

    name: str
    applies: Callable[[Facts], bool]
    robots: tuple[str, ...]
    because: str


def _looking(facts: Facts) -> bool:
    return facts.activity in LOOKING


CLAUSES: tuple[Clause, ...] = (
    Clause("below_water", lambda f: f.medium == "water" or f.vantage == "below", (DIVER,), "work below the surface"),
    Clause("aerial_view", lambda f: f.vantage == "above", (DRONE,), "a view from above is asked for"),
    Clause(
        "above_and_below_water",
        lambda f: f.medium == "water and air" and _looking(f),
        (DRONE, DIVER),
        "the structure stands both above and below water",
    ),
    Clause(
        "water_bank",
        lambda f: f.medium == "bank" and _looking(f),
        (LEGS, DRONE, DIVER),
        "a bank is seen on foot, from the air and from the water",
    ),
    Clause(
        "hands_on_the_way", lambda f: f.hands and f.walking, (HUMANOID, LEGS), "hands are needed from place to place"
    ),
    Clause("hands", lambda f: f.hands, (HUMANOID,), "hands and tools are needed"),
    Clause("climb", lambda f: f.terrain == "stairs" or f.activity == "climb", (LEGS,), "steps or a steep way up"),
    Clause(
        "tall_or_wide",
        lambda f: f.height_m >= TALL_M or f.wide,
        (DRONE,),
        "too high or too wide for a view from the ground",
    ),
    Clause("underground", lambda f: f.terrain == "underground", (LEGS,), "uneven ground below the earth"),
    Clause(
        "rough_look",
        lambda f: f.terrain == "rough" and _looking(f),
        (DRONE, LEGS),
        "rough land is seen from the air and on foot",
    ),
    Clause("rough_contact", lambda f: f.terrain == "rough", (LEGS,), "contact or a load on rough ground"),
    Clause(
        "heavy_load", lambda f: f.payload_kg >= HEAVY_KG and f.terrain in FLAT, (WHEELS,), "a heavy load on the flat"
    ),
    Clause("sand_or_road", lambda f: f.terrain in ("sand", "paved"), (WHEELS,), "a long flat way"),
    Clause("field_machine", lambda f: f.activity == "fieldwork", (WHEELS,), "mechanised work along rows"),
    Clause("ground_contact", lambda f: f.focus == "contact", (LEGS,), "a close look at the ground between plants"),
    Clause("soil", lambda f: f.focus == "soil", (LEGS, WHEELS), "probes must touch level soil"),
    Clause("field_growth", lambda f: f.focus == "growth", (DRONE,), "the whole field at once"),
    Clause(
        "field_living", lambda f: f.focus == "living", (DRONE, LEGS), "plants or animals from the air and close by"
    ),
    Clause(
        "open_ground",
        lambda f: f.terrain in ("field", "open ground") and _looking(f),
        (DRONE, LEGS, WHEELS),
        "open level land suits air and ground alike",
    ),
    Clause("field_transport", lambda f: f.terrain in ("field", "open ground"), (WHEELS,), "transport over level land"),
    Clause(
        "wild_garden",
        lambda f: f.terrain == "soft ground",
        (DRONE, LEGS, HUMANOID),
        "a garden of people, seen from air and ground",
    ),
    Clause("crowd_transport", lambda f: f.people == "crowd", (LEGS,), "agile steps among passers-by"),
    Clause(
        "unfinished_floor",
        lambda f: f.terrain == "unfinished floor",
        (LEGS, WHEELS, HUMANOID),
        "a level indoor shell with doors",
    ),
    Clause(
        "warehouse_look",
        lambda f: f.terrain == "logistics floor" and _looking(f),
        (WHEELS, LEGS),
        "level aisles, rolled or walked",
    ),
    Clause(
        "warehouse_transport", lambda f: f.terrain == "logistics floor", (WHEELS,), "a smooth floor made for wheels"
    ),
    Clause(
        "human_space_equipment",
        lambda f: f.focus == "equipment",
        (LEGS, HUMANOID),
        "fittings in rooms built for people",
    ),
    Clause("indoor_passage", lambda f: f.terrain == "floor", (LEGS, WHEELS), "a level indoor way"),
)
"""Every convention, in the order they are tried."""


def deciding_clause(facts: Facts) -> Clause:
    """Return the first clause that applies.

    Raises:
        ValueError: no clause covers these facts (a gap in the rule).
    """
    for clause in CLAUSES:
        if clause.applies(facts):
            return clause
    raise ValueError(f"no clause covers {facts}")


def decide(facts: Facts) -> tuple[str, ...]:
    """Return the robots for these facts, primary first."""
    return deciding_clause(facts).robots


def _reason(robot: str, facts: Facts, suitable: bool) -> str:
    water = facts.medium != "ground"
    if robot == DRONE:
        if suitable:
            return "sees from above"
        if facts.medium == "water" or facts.vantage == "below":
            return "cannot dive"
        return "cannot handle this" if facts.hands or facts.payload_kg else "ground contact needed"
    if robot == DIVER:
        return "works under water" if suitable else "view from above" if water else "no water"
    if robot == HUMANOID:
        if suitable:
            return "hands and tools" if facts.hands or facts.indoor else "works among people"
        return "cannot dive" if facts.medium == "water" else "no hands needed"
    if robot == WHEELS:
        if suitable:
            return "carries heavy loads" if facts.payload_kg >= HEAVY_KG else "rolls on flat ground"
        return "ground not flat" if facts.terrain not in FLAT else "other skills needed"
    if suitable:
        return "climbs and walks anything" if facts.terrain in ("rough", "stairs", "underground") else "steady on foot"
    return "out of reach on foot" if water or facts.height_m or facts.vantage else "others do better"


def explain(facts: Facts) -> dict[str, tuple[bool, str]]:
    """Return the verdict on every robot of the fleet: robot -> (suitable, short reason)."""
    chosen = decide(facts)
    return {robot: (robot in chosen, _reason(robot, facts, robot in chosen)) for robot in ROBOTS}

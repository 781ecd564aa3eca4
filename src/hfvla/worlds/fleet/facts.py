"""The latent facts behind a generated task, and the types of the vocabulary that states them."""

from __future__ import annotations

from dataclasses import dataclass, replace

__all__ = ["ZONES", "Action", "Environment", "Facts", "Move", "facts_of", "phrases"]


def phrases(text: str) -> tuple[str, ...]:
    """Split a vocabulary string at semicolons; empty pieces are left out."""
    return tuple(" ".join(piece.split()) for piece in text.split(";") if piece.strip())


@dataclass(frozen=True)
class Environment:
    """A kind of place.

    Attributes:
        key: unique name.
        zone: key of `ZONES`, which holds its physical facts.
        scene: scene family that `render_scene` draws.
        at: preposition of standing there, e.g. "on".
        through: preposition of moving there, e.g. "across".
        gloss: what the words of `names` mean, completing "... is".
        names: noun phrases; a leading "~" marks a plural or mass noun (no "a").
        parts: things found there, by focus; the focus "" holds for any look at the place.
        signs: what one looks for there.
        jobs: complete verb phrases by action key ("handle", "serve", "pick", "fieldwork").
    """

    key: str
    zone: str
    scene: str
    at: str
    through: str
    gloss: str
    names: tuple[str, ...]
    parts: dict[str, tuple[str, ...]]
    signs: tuple[str, ...]
    jobs: dict[str, tuple[str, ...]]


@dataclass(frozen=True)
class Action:
    """A kind of work.

    Attributes:
        key: unique name.
        activity: what the rule sees: "observe", "explore", "take", "place", "carry", "reach", "climb", "hands" or
            "fieldwork".
        noun: the work as a noun, e.g. "inspection".
        verbs: verb phrases in base form that take an object; "*" in front marks one without a passive.
        frames: how verb, object and place combine (see `grammar`).
    """

    key: str
    activity: str
    noun: str
    verbs: tuple[str, ...]
    frames: tuple[str, ...]


@dataclass(frozen=True)
class Facts:
    """All that `decide` may look at. Text and picture must make them known; robots appear nowhere here.

    Attributes:
        medium: "ground", "water" (below the surface), "water and air" (a structure in both) or "bank".
        terrain: "none", "rough", "stairs", "underground", "sand", "paved", "field", "open ground", "floor", "logistics
            floor" or "unfinished floor".
        indoor: under a roof, among people's rooms.
        height_m: how far above ground the work is, metres.
        wide: too wide to see from one place on the ground.
        people: "none", "staff" or "crowd".
        activity: see `Action`.
        vantage: "above" or "below" when the text asks for that view, else "".
        focus: what kind of thing is looked at: "living", "system", "soil", "contact", "growth", "equipment",
            "passage" or "".
        payload_kg: what must be carried, kilograms.
        hands: fingers, tools or doors are needed.
        walking: the work of the hands goes from place to place: people are served, rows are picked.
    """

    medium: str = "ground"
    terrain: str = "none"
    indoor: bool = False
    height_m: float = 0.0
    wide: bool = False
    people: str = "none"
    activity: str = "observe"
    vantage: str = ""
    focus: str = ""
    payload_kg: float = 0.0
    hands: bool = False
    walking: bool = False


@dataclass(frozen=True)
class Move:
    """One thing that can be asked in a zone: an action, with a focus and a vantage."""

    action: str
    focus: str = ""
    vantage: str = ""


ZONES: dict[str, Facts] = {
    "tall": Facts(height_m=40.0),
    "wide": Facts(wide=True, terrain="open ground"),
    "rough": Facts(terrain="rough"),
    "stairs": Facts(terrain="stairs", height_m=8.0),
    "underground": Facts(terrain="underground"),
    "sand": Facts(terrain="sand"),
    "paved": Facts(terrain="paved"),
    "field": Facts(terrain="field"),
    "orchard": Facts(terrain="field"),
    "pasture": Facts(terrain="field"),
    "growing house": Facts(terrain="floor", indoor=True, people="staff"),
    "wild garden": Facts(terrain="soft ground", people="staff"),
    "compound": Facts(terrain="open ground"),
    "building": Facts(terrain="floor", indoor=True, people="staff"),
    "workplace": Facts(terrain="floor", indoor=True, people="staff"),
    "crowd": Facts(terrain="floor", people="crowd"),
    "refit": Facts(terrain="unfinished floor", indoor=True),
    "warehouse": Facts(terrain="logistics floor", indoor=True),
    "water": Facts(medium="water"),
    "water and air": Facts(medium="water and air"),
    "bank": Facts(medium="bank", terrain="rough"),
}
"""Physical facts of a zone; what is asked there is added by `facts_of`."""

_DEFAULT_FOCUS = {"growing house": "equipment", "workplace": "equipment"}
_PAYLOAD_KG = {"carry": 4.0, "haul": 90.0, "deliver": 4.0, "airlift": 2.0}


def facts_of(environment: Environment, action: Action, move: Move) -> Facts:
    """Combine the facts of a place with what is asked there."""
    return replace(
        ZONES[environment.zone],
        activity=action.activity,
        vantage=move.vantage,
        focus=move.focus or _DEFAULT_FOCUS.get(environment.zone, ""),
        payload_kg=_PAYLOAD_KG.get(action.key, 0.0),
        hands=action.activity == "hands",
        walking=action.key in ("serve", "pick"),
    )

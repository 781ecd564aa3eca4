"""The texts that go with a task: chain of thought, plan, caption and dialogue, all from its facts."""

from __future__ import annotations

import random

from hfvla.data.reasoning import write_chain
from hfvla.data.samples.robots import ROBOTS, Subtask, Turn
from hfvla.worlds.fleet.glossary import ABILITIES, ZONE_WORDS, define_place
from hfvla.worlds.fleet.grammar import Sentence
from hfvla.worlds.fleet.holdout import held_out, plain
from hfvla.worlds.fleet.rule import explain
from hfvla.worlds.fleet.situations import Situation

__all__ = ["CAPTIONS", "write_caption", "write_dialogue", "write_plan", "write_reasoning"]

DRONE, DIVER, HUMANOID, WHEELS, LEGS = ROBOTS

CAPTIONS: dict[str, str] = {
    "mountain": "Rocky mountains with boulders; Steep stony slopes below a ridge; A rugged mountain landscape",
    "forest": "A dense forest; Many trees standing close together; Woodland with thick undergrowth",
    "desert": "A desert with sand dunes; Wide yellow sand under the sun; Dry sandy hills",
    "crops": "Long rows of plants on a field; Farmland with straight rows; A field of crops up to the horizon",
    "pasture": "Animals grazing on a green meadow; A fenced pasture with livestock; "
    "Grassland with a fence and animals",
    "garden": "A garden overgrown with bushes and flowers; A grown-over garden with a bench; "
    "Thick shrubs in front of a wall",
    "compound": "A fenced yard with low buildings; Open ground behind a wire fence; Flat buildings inside a fence",
    "ice": "A frozen lake with cracks and holes; A flat sheet of ice; Ice on a lake with a far shore",
    "tower": "A tall structure against the sky; Something very high rising into the sky; "
    "A high structure seen from below",
    "road": "A straight paved road with cars; Asphalt running to the horizon; A road with a dashed centre line",
    "plain": "A very wide open landscape with a river; Endless grassland under a big sky; A vast plain with birds",
    "skyline": "A city with many buildings; The skyline of a large town; A city seen from far away",
    "flood": "Houses standing in brown water; A flooded village; Land covered by flood water",
    "snow": "Wide snow and ice with blue crevasses; A glacier landscape; A white field of snow below white hills",
    "corridor": "A long indoor corridor with doors; A hallway with lamps on the ceiling; "
    "Doors on both sides of a passage",
    "warehouse": "A warehouse aisle between tall shelves; Shelves full of boxes; A hall with racks and boxes",
    "workplace": "A room with a workbench, shelves and a stool; A counter with many small objects; "
    "A worktop with drawers",
    "crowd": "Many people in front of shops; A dense crowd of people; A place packed with people on foot",
    "refit": "A bare concrete hall with a ladder; An unfinished room with hanging cables; "
    "An empty shell with paint buckets",
    "greenhouse": "A glass house with plants on tables; Tables of green plants under glass; "
    "A greenhouse with a middle path",
    "stairs": "A staircase with a handrail; Steps leading up; A flight of stairs along a wall",
    "cave": "A dark rocky passage; The inside of a cave; A dim tunnel with rocks on the floor",
    "rubble": "A broken building and heaps of rubble; Debris in front of a ruined wall; "
    "Bricks and beams of a collapsed house",
    "underwater": "An underwater scene with fish; Corals and fish below the surface; "
    "The ground of the sea with light from above",
    "sea_structure": "A platform on legs in the sea; A steel structure standing in the water; "
    "A structure at sea, half above water",
    "riverbank": "The bank of a river with trees; Water beside a muddy bank; Reeds at the edge of a river",
}
_LIGHT_WORDS = ("", "", ", in a simple drawing", ", seen from eye level", ", drawn in flat colours")

_STEPS: dict[str, dict[str, tuple[str, ...]]] = {
    DRONE: {
        "look": ("Fly over {where} for an overview", "Photograph {what} from above", "Scan {where} from the air"),
        "move": ("Fly {what} to its goal", "Watch the way from the air"),
        "report": ("Send the aerial pictures to the operator", "Mark findings on the aerial map"),
    },
    DIVER: {
        "look": ("Dive to {where} and look closely", "Scan {what} under water", "Film {what} below the surface"),
        "go": ("Dive along {where}", "Swim on to the goal"),
        "contact": ("Dive to the spot", "Hold still and {verb} {what}"),
        "report": ("Surface and send the recordings", "Mark findings on the underwater map"),
    },
    HUMANOID: {
        "look": ("Open doors and covers to reach {what}", "Look at {what} up close and use tools if needed"),
        "move": ("Pick up {what} and open doors on the way", "Load and unload {what} by hand"),
        "hands": ("Take the right tools", "Do the work by hand: {verb}", "Put things back in order"),
        "report": ("Tell the people there what was done", "Write down what was found"),
    },
    WHEELS: {
        "look": ("Drive along {where} with sensors on", "Roll past {what} and record it"),
        "move": ("Load {what}", "Drive across {where}", "Unload at the goal"),
        "work": ("Drive to the first row", "Do the work row by row: {verb}", "Return to the yard"),
        "go": ("Plan a flat route", "Drive across {where}"),
        "contact": ("Drive to the spot", "Stop and {verb} {what}"),
        "report": ("Return and upload the data", "Drive back and confirm the job"),
    },
    LEGS: {
        "look": ("Walk through {where} and look closely", "Inspect {what} from the ground", "Check {what} on foot"),
        "move": ("Carry {what} over {where}", "Find a safe footing across {where}", "Hand over at the goal"),
        "go": ("Find a safe footing across {where}", "Walk on to the goal"),
        "contact": ("Walk to the spot", "Stop and {verb} {what}"),
        "hands": ("Bring what is needed from place to place", "Carry things along"),
        "report": ("Walk back and report", "Send readings taken on the ground"),
    },
}
_KINDS = {
    "carry": "move",
    "reach": "go",
    "climb": "go",
    "take": "contact",
    "place": "contact",
    "hands": "hands",
    "fieldwork": "work",
}


def _target(item: Situation, sentence: Sentence) -> str:
    if item.action.activity in ("hands", "fieldwork"):
        return sentence.verb
    verb = item.action.key.replace("_", " ") if item.action.key not in ("fly_over", "soil_sample") else sentence.verb
    return f"{verb} {' '.join(sentence.target.split()[:7])}"


def _setting(item: Situation, sentence: Sentence, with_picture: bool) -> str:
    """Where it is, as far as text or picture tell."""
    words = ZONE_WORDS[item.environment.zone]
    if sentence.place:
        return f"{' '.join(sentence.place.split()[:4])}, {words}"
    return f"in the picture, {words}" if with_picture else "no place named"


def write_reasoning(item: Situation, sentence: Sentence, with_picture: bool) -> str:
    """Write the chain of thought from the facts; at most about 80 words.

    Args:
        item: the situation behind the task.
        sentence: the task as written.
        with_picture: the sample has a picture, so that an unnamed place can be known.
    """
    view = {"above": ", view from above wanted", "below": ", view below the surface wanted"}.get(
        item.facts.vantage, ""
    )
    setting = _setting(item, sentence, with_picture) + view
    return write_chain(_target(item, sentence), setting, explain(item.facts), item.clause.because, item.robots)


def write_plan(item: Situation, sentence: Sentence, generator: random.Random) -> tuple[Subtask, ...]:
    """Write two to four subtasks for the chosen robots; equal orders run in parallel, orders start at 1."""
    kind = _KINDS.get(item.action.activity, "look")
    words = {
        "what": sentence.target or "what is needed",
        "where": sentence.place or "the area",
        "verb": sentence.verb,
    }

    def step(robot: str, wanted: str, order: int, index: int | None = None) -> Subtask:
        pool = _STEPS[robot].get(wanted) or _STEPS[robot]["look"]
        text = pool[index % len(pool)] if index is not None else generator.choice(pool)
        return Subtask(text.format(**words), robot, order)

    robots = item.robots
    if len(robots) == 1:
        pool = _STEPS[robots[0]].get(kind) or _STEPS[robots[0]]["look"]
        plan = [step(robots[0], kind, order + 1, order) for order in range(min(2, len(pool)))]
        return (*plan, step(robots[0], "report", len(plan) + 1)) if generator.random() < 0.6 else tuple(plan)
    plan = [step(robots[0], kind, 1)] + [step(robot, kind, 2) for robot in robots[1:]]
    if generator.random() < 0.5:
        plan.append(step(robots[0], "report", 3))
    return tuple(plan)


def write_caption(item: Situation, generator: random.Random) -> str:
    """Say what the picture shows: neither the task nor a robot."""
    return f"{generator.choice(CAPTIONS[item.environment.scene].split('; '))}{generator.choice(_LIGHT_WORDS)}."


def _scene_turn(item: Situation, caption: str, generator: random.Random) -> Turn:
    zone = item.environment.zone
    wet = item.facts.medium != "ground" or item.environment.scene in ("flood", "plain")
    return generator.choice(
        (
            Turn("What does the picture show?", caption),
            Turn("What is the ground like here?", f"{ZONE_WORDS[zone][0].upper()}{ZONE_WORDS[zone][1:]}."),
            Turn("Is this place indoors?", "Yes, it is indoors." if item.facts.indoor else "No, it is not a room."),
            Turn("Is there water in the picture?", "Yes, there is water." if wet else "No open water can be seen."),
        )
    )


def write_dialogue(
    item: Situation, caption: str, with_picture: bool, generator: random.Random, test: bool
) -> tuple[Turn, ...]:
    """Write one or two turns: about the picture, the fleet, or the meaning of a word; never about the task."""
    turns = [_scene_turn(item, caption, generator)] if with_picture and generator.random() < 0.6 else []
    if generator.random() < 0.5:
        turns.append(Turn(*generator.choice(ABILITIES)))
    elif not turns or generator.random() < 0.7:
        names = [name for name in item.environment.names if test or plain(name) not in held_out()]
        name = generator.choice(names)
        turns.append(Turn(f"What does '{plain(name)}' mean?", define_place(name, item.environment)))
    return tuple(turns[:2])

"""The written chain of thought: its four-step format, a writer, a tolerant parser and a keyword-based builder.

A chain reads::

    Step 1: Task Analysis: ...
    Step 2: Environment Assessment: ...
    Step 3: Robot Capability Matching: Drone: yes, sees from above; Underwater Robot: no, no water; ...
    Step 4: Decision Justification: ... Decision: Drone, Robot with Legs.

Step 3 has one clause for every robot of the fleet, in fleet order. A chain is a training target; `build_chain` looks
at the gold set and must not be used to score anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from hfvla.data.samples.robots import ROBOTS
from hfvla.errors import DataError, did_you_mean

__all__ = [
    "STEP_TITLES",
    "Reasoning",
    "build_chain",
    "find_keywords",
    "graft_chain",
    "parse_reasoning",
    "verdict_spans",
    "write_chain",
]

STEP_TITLES: tuple[str, str, str, str] = (
    "Task Analysis",
    "Environment Assessment",
    "Robot Capability Matching",
    "Decision Justification",
)

_STEP = re.compile(rf"(?:\bStep\s*\d+\s*[:.)-]\s*)?\b({'|'.join(STEP_TITLES)})\s*:", re.IGNORECASE)
_DECISION = re.compile(r"\bDecision\s*:", re.IGNORECASE)

ACTION_WORDS: dict[str, str] = {
    "inspect": r"inspect\w*|check\w*|examin\w*|assess\w*|evaluat\w*|investigat\w*|verif\w*",
    "survey": r"survey\w*|map(?:s|ped|ping)?|photograph\w*|film\w*|footage|imag(?:es?|ing)",
    "monitor": r"monitor\w*|track(?:s|ed|ing)?|watch\w*|surveil\w*|patrol\w*|guard\w*|observ\w*|count\w*",
    "transport": r"transport\w*|carr(?:y|ies|ied|ying)|haul\w*|mov(?:e|es|ed|ing)|bring\w*|tow(?:s|ed|ing)?",
    "deliver": r"deliver\w*|suppl(?:y|ies|ying)|hand(?:s|ed|ing)? (?:out|over)|drop(?:s|ped|ping)? off|distribut\w*",
    "navigate": r"navigat\w*|travers\w*|travel\w*|cross(?:es|ed|ing)?|driv(?:e|es|ing)|explor\w*|reach\w*",
    "search": r"search\w*|locat(?:e|es|ed|ing)|find(?:s|ing)?|seek\w*|look(?:s|ing)? for",
    "rescue": r"rescu\w*|surviv\w*|evacuat\w*|emergenc\w*",
    "climb": r"climb\w*|ascend\w*|scal(?:e|es|ing)|descend\w*",
    "fly": r"fl(?:y|ies|ying)|hover\w*|aerial\w*",
    "dive": r"div(?:e|es|ing)|swim\w*|submerg\w*",
    "sample": r"sampl\w*|collect\w*|gather\w*|retriev\w*",
    "manipulate": r"manipulat\w*|open(?:s|ed|ing)?|operat\w*|assembl\w*|repair\w*|turn(?:s|ed|ing)?|pick(?:s|ed|ing)?|"
    r"cook\w*|clean\w*|serv(?:e|es|ed|ing)|tighten\w*|install\w*",
    "cultivate": r"plant(?:s|ed|ing)? (?:seeds?|rows?|trees?)|sow\w*|harvest\w*|spray\w*|weed(?:s|ed|ing)?|plough\w*",
}
"""What a task asks for -> pattern, always matched as whole words."""

ENVIRONMENT_WORDS: dict[str, str] = {
    "underwater": r"underwater|under water|undersea|subsea|submerged|sunken|seabed|sea ?floor|ocean floor|deep[- ]sea|"
    r"reefs?|coral|shipwrecks?|wrecks?|hulls?|sea|ocean|marine|pools?|waterline",
    "aerial": r"aerial|from above|from the air|from the sky|overhead|bird'?s[- ]eye|rooftops?|roofs?|sky|air|"
    r"high[- ]rise|towers?|skyscrapers?|power lines?|facades?|turbines?|fly|flying|hover\w*|uav",
    "rough terrain": r"rough|rugged|uneven|rocky|rocks?|mountain\w*|hills?|hillsides?|steep|slopes?|forest\w*|jungle|"
    r"volcan\w*|rubble|debris|collapsed|ravines?|canyons?|quarr(?:y|ies)|glaciers?|cliffs?|trails?|wooded|planet|moon",
    "stairs": r"stairs?|staircases?|stairwells?|steps|ladders?",
    "underground": r"underground|mines?|tunnels?|caves?|caverns?|sewers?|shafts?",
    "farmland": r"farm\w*|crops?|fields?|orchards?|vineyards?|pastures?|livestock|cattle|irrigation|soil|"
    r"agricultur\w*|harvest|plants?|seedlings?|greenhouses?|weeds?",
    "sand": r"desert|sand|sandy|dunes?|beach\w*|arid",
    "road": r"roads?|highways?|streets?|motorways?|runways?|traffic|pavement|railways?",
    "people": r"crowd\w*|pedestrians?|people|patients?|visitors?|guests?|customers?|campus|mall|market|students?",
    "warehouse": r"warehouses?|aisles?|pallets?|logistics|depot|factor(?:y|ies)|industrial",
    "indoor": r"indoors?|inside|rooms?|office|hospital|hallways?|corridors?|kitchen|laborator(?:y|ies)|lab|hotel",
    "outdoor": r"outdoors?|outside|city|urban|site|area|region|coast\w*|park|garden|river\w*|bridge|perimeter|bunker|"
    r"dam",
}
"""Where a task takes place -> pattern, most telling first; always matched as whole words."""

_REASONS: dict[str, tuple[tuple[str, str, str], ...]] = {
    "Drone": (
        ("aerial", "sees from above", "no view from above needed"),
        ("rough terrain", "overflies obstacles", "payload or contact needed"),
        ("farmland", "covers wide fields", "contact with the ground needed"),
        ("underwater", "watches from the air", "cannot dive"),
        ("", "covers ground fast", "flying does not help"),
    ),
    "Underwater Robot": (("underwater", "works below the surface", "stays above water"), ("", "dives", "no water")),
    "Humanoid": (
        ("people", "works among people", "no handling needed"),
        ("indoor", "uses doors and tools", "no hands needed"),
        ("", "has hands", "no hands needed"),
    ),
    "Robot with Wheels": (
        ("rough terrain", "carries loads", "ground too rough"),
        ("stairs", "moves loads on the flat", "cannot climb steps"),
        ("underwater", "drives along the shore", "no solid ground"),
        ("", "fast on flat ground", "not the best ground"),
    ),
    "Robot with Legs": (
        ("rough terrain", "walks rough ground", "not agile enough"),
        ("stairs", "climbs steps", "steps not in reach"),
        ("underwater", "walks the bank", "no solid ground"),
        ("", "steady on any ground", "out of reach on foot"),
    ),
}


@dataclass(frozen=True)
class Reasoning:
    """A parsed chain; anything missing in the text is simply absent here.

    Attributes:
        steps: text by step title, for the titles that occur.
        verdicts: robot -> True for yes, False for no, for robots judged in step 3.
        decision: robots named after "Decision:", in the order of the text, each once.
    """

    steps: dict[str, str] = field(default_factory=dict)
    verdicts: dict[str, bool] = field(default_factory=dict)
    decision: tuple[str, ...] = ()


def _name_pattern(robots: Sequence[str]) -> str:
    """Alternation of robot names, longest first, so that "Drone XL" is never read as "Drone"."""
    names = sorted(robots, key=len, reverse=True)
    return r"(?<!\w)(" + "|".join(re.escape(name) for name in names) + r")(?!\w)"


def _canonical(robots: Sequence[str]) -> dict[str, str]:
    return {name.lower(): name for name in robots}


def _step_spans(text: str) -> dict[str, tuple[int, int]]:
    """Character span of each step's body; the first occurrence of a title counts."""
    marks = list(_STEP.finditer(text))
    titles = {title.lower(): title for title in STEP_TITLES}
    spans: dict[str, tuple[int, int]] = {}
    for mark, following in zip(marks, [*marks, None][1:], strict=True):
        end = following.start() if following else len(text)
        spans.setdefault(titles[mark[1].lower()], (mark.end(), end))
    return spans


def verdict_spans(text: str, robots: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Return the character span of the word "yes" or "no" of each robot's verdict.

    Looks in step 3, or in the whole text when there is no step 3; the first verdict of a robot counts.
    """
    if not robots:
        return {}
    start, end = _step_spans(text).get(STEP_TITLES[2], (0, len(text)))
    canonical = _canonical(robots)
    pattern = re.compile(_name_pattern(robots) + r"\s*:\s*(yes|no)\b", re.IGNORECASE)
    spans: dict[str, tuple[int, int]] = {}
    for match in pattern.finditer(text, start, end):
        spans.setdefault(canonical[match[1].lower()], match.span(2))
    return spans


def parse_reasoning(text: str, robots: Sequence[str] = ROBOTS) -> Reasoning:
    """Read a chain back; missing or garbled parts are left out, nothing is guessed.

    Args:
        text (`str`): a chain, possibly cut off or with text around it.
        robots (sequence of `str`): names of the fleet.
    """
    steps = {title: text[start:end].strip() for title, (start, end) in _step_spans(text).items()}
    verdicts = {robot: text[a:b].lower() == "yes" for robot, (a, b) in verdict_spans(text, robots).items()}
    marks = list(_DECISION.finditer(text))
    decision: dict[str, None] = {}
    if marks and robots:
        line = text[marks[-1].end() :].lstrip().partition("\n")[0]
        canonical = _canonical(robots)
        for match in re.finditer(_name_pattern(robots), line, re.IGNORECASE):
            decision.setdefault(canonical[match[1].lower()])
    return Reasoning(steps, verdicts, tuple(decision))


def graft_chain(own: str, other: str) -> str | None:
    """Return a chain with the first two steps of one and the last two of another; None where a step is missing.

    The first two are about the task and where it is, the last two about robots.
    """
    titles = [{title: body for title, body in parse_reasoning(chain).steps.items() if body} for chain in (own, other)]
    bodies = [titles[index // 2].get(title) for index, title in enumerate(STEP_TITLES)]
    if None in bodies:
        return None
    steps = zip(STEP_TITLES, bodies, strict=True)
    return "\n".join(f"Step {number}: {title}: {body}" for number, (title, body) in enumerate(steps, 1))


def write_chain(
    analysis: str,
    environment: str,
    verdicts: Mapping[str, tuple[bool, str]],
    justification: str,
    robots: Sequence[str],
) -> str:
    """Join the parts of a chain in the format above.

    Args:
        analysis: step 1 without its heading.
        environment: step 2 without its heading.
        verdicts: robot -> (suitable, short reason), in fleet order.
        justification: step 4 without heading and decision.
        robots: the decision, primary first.

    Raises:
        DataError: a decided robot has no positive verdict, or a positive verdict is not in the decision.
    """
    suitable = {robot for robot, (yes, _) in verdicts.items() if yes}
    if suitable != set(robots):
        raise DataError("chain contradicts itself", got=sorted(suitable), expected=f"yes for exactly {sorted(robots)}")
    matching = "; ".join(f"{robot}: {'yes' if yes else 'no'}, {reason}" for robot, (yes, reason) in verdicts.items())
    bodies = (analysis, environment, matching, f"{_sentence(justification)} Decision: {', '.join(robots)}")
    return "\n".join(
        f"Step {number}: {title}: {_sentence(body)}"
        for number, (title, body) in enumerate(zip(STEP_TITLES, bodies, strict=True), 1)
    )


def _sentence(text: str) -> str:
    text = text.strip()
    return text if text.endswith((".", "!", "?")) else f"{text}."


def find_keywords(task: str, table: Mapping[str, str]) -> list[str]:
    """Return the keys of `table` whose pattern occurs in `task` as whole words, in table order."""
    return [key for key, pattern in table.items() if re.search(rf"(?<![\w-])(?:{pattern})(?!\w)", task, re.IGNORECASE)]


def _reason(robot: str, suitable: bool, places: Sequence[str]) -> str:
    for place, yes, no in _REASONS.get(robot, (("", "suits this task", "suits it less"),)):
        if not place or place in places:
            return yes if suitable else no
    return "suits this task" if suitable else "suits it less"


def build_chain(task: str, robots: Sequence[str], fleet: Sequence[str] = ROBOTS) -> str:
    """Write a chain for a record that has none, from keywords of the task and the gold set (a training target only).

    Args:
        task (`str`): task text.
        robots (sequence of `str`): gold set, primary first.
        fleet (sequence of `str`): all robots, in the order of the verdicts.

    Raises:
        DataError: the gold set is empty or names a robot outside the fleet.
    """
    if not robots:
        raise DataError(
            "cannot write a chain without a gold robot", where=f"task {task!r}", expected="one or more robots"
        )
    for robot in robots:
        if robot not in fleet:
            raise DataError(
                "robot is not in the fleet", where=f"task {task!r}", got=robot, fix=did_you_mean(robot, fleet)
            )
    actions = find_keywords(task, ACTION_WORDS)[:2] or ["general work"]
    places = find_keywords(task, ENVIRONMENT_WORDS)[:3]
    verdicts = {robot: (robot in robots, _reason(robot, robot in robots, places)) for robot in fleet}
    justification = "One robot fits best" if len(robots) == 1 else f"{len(robots)} robots fit equally well"
    where = f"{', '.join(places)} setting" if places else "no special setting named"
    return write_chain(f"the task is to {' and '.join(actions)}", where, verdicts, justification, robots)

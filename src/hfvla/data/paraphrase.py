"""A task in other words: whole-word synonyms and polite frames that never change what is asked for.

Drawn from a seed alone, so that a row says the same in any batch, on any process, and after a resume.
"""

from __future__ import annotations

import random
import re

__all__ = ["FRAMES", "SYNONYMS", "paraphrase"]

SYNONYMS: tuple[tuple[str, ...], ...] = (
    ("inspect", "examine", "check"),
    ("inspecting", "examining", "checking"),
    ("inspection", "examination"),
    ("photograph", "take pictures of"),
    ("carry", "transport", "bring"),
    ("carrying", "transporting", "bringing"),
    ("deliver", "hand over"),
    ("search", "comb"),
    ("searching", "combing"),
    ("find", "locate"),
    ("finding", "locating"),
    ("repair", "fix"),
    ("repairing", "fixing"),
    ("monitor", "keep an eye on", "watch"),
    ("measure", "gauge"),
    ("collect", "gather"),
    ("collecting", "gathering"),
    ("big", "large"),
    ("small", "little"),
    ("quickly", "fast", "without delay"),
    ("near", "close to"),
    ("beside", "next to"),
    ("damaged", "broken"),
    ("begin", "start"),
    ("people", "persons"),
)
"""Words of one meaning and one form; none of them says where, how high or under what, which decides about a robot."""

FRAMES: tuple[str, ...] = ("Please {task}", "The task: {task}", "We need you to {task}", "{task}, please")
"""What may stand around a task that begins with a verb."""

_OTHERS = {word: tuple(other for other in group if other != word) for group in SYNONYMS for word in group}
_WORD = re.compile(r"\b(?:" + "|".join(sorted(map(re.escape, _OTHERS), key=len, reverse=True)) + r")\b", re.IGNORECASE)
_FRAMED = 0.5  # of the tasks that are put in other words


def paraphrase(task: str, seed: int, share: float) -> str:
    """Return a task in other words, or as it is.

    Args:
        task: e.g. "Inspect the damaged roof.".
        seed: of this row in this epoch.
        share: of the rows that are put in other words; in such a row each known word changes half of the time.
    """
    draw = random.Random(seed)
    if draw.random() >= share:
        return task

    def other(match: re.Match[str]) -> str:
        word = match[0]
        if draw.random() < 0.5:
            return word
        chosen = draw.choice(_OTHERS[word.lower()])
        return chosen[:1].upper() + chosen[1:] if word[:1].isupper() else chosen

    told = _WORD.sub(other, task)
    if draw.random() < _FRAMED and _begins_with_a_verb(task):
        frame = draw.choice(FRAMES)
        bare = told[:1].lower() + told[1:] if not frame.startswith("{") else told
        end = told[-1] if told[-1:] in ".!?" else ""
        told = frame.format(task=bare.rstrip(".!?")) + end
    return told


def _begins_with_a_verb(task: str) -> bool:
    """Tell whether a task begins with one of the known verbs, so that a frame around it reads well."""
    first = re.match(r"\w+", task)
    return first is not None and first[0].lower() in _VERBS


_VERBS = frozenset(
    {"inspect", "examine", "check", "photograph", "carry", "transport", "bring", "deliver", "search", "find", "locate"}
    | {"repair", "fix", "monitor", "watch", "measure", "collect", "gather", "survey", "map", "film", "clean", "guard"}
)

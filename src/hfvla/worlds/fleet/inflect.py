"""The little English morphology that templates need: articles, gerunds, participles."""

from __future__ import annotations

import re
from functools import cache

from hfvla.worlds.fleet.actions import ACTIONS, JOBS
from hfvla.worlds.fleet.facts import phrases
from hfvla.worlds.fleet.places import environments

__all__ = ["gerund", "is_plural", "participle", "plural", "with_article"]

_DOUBLED = frozenset(
    phrases(
        "map; scan; plan; run; get; put; dig; cut; trim; mop; plug; ship; step; drop; shut; set; sit; chop; stir; "
        "strip; top; wrap; swap; zip; spot; bag; drag; log; patrol; transfer; tag; pin; scrub; fit; clap; hem; rub; "
        "rig; control; lug"
    )
)
_IRREGULAR = {
    "take": "taken",
    "bring": "brought",
    "find": "found",
    "keep": "kept",
    "make": "made",
    "run": "run",
    "put": "put",
    "set": "set",
    "send": "sent",
    "fly": "flown",
    "go": "gone",
    "get": "got",
    "overfly": "overflown",
    "sweep": "swept",
    "draw": "drawn",
    "build": "built",
    "overlook": "overlooked",
    "lay": "laid",
    "hold": "held",
}


_MASS = frozenset(phrases("land; traffic; ice; debris; terrain; tundra; sand; water; tarmac; farmland; ocean"))
_HEAD_ENDS = re.compile(
    r" (?:of|on|in|with|at|by|along|below|beneath|under|across|above|inside|during|full|beside|around|without|between|"
    r"to|being|before|from|until|for|after)\b.*"
)


def is_plural(name: str) -> bool:
    """True for a noun phrase that takes no "a": marked "~", or with a plural or mass noun as its head."""
    if name.startswith("~"):
        return True
    head = _HEAD_ENDS.sub("", name).rsplit(" ", 1)[-1].lower()
    return head in _MASS or (head.endswith("s") and not head.endswith(("ss", "us", "is", "'s")))


def plural(name: str) -> str:
    """The plural of a noun phrase ("dune field" -> "~dune fields"); one with a phrase after its head stays."""
    if is_plural(name) or _HEAD_ENDS.search(name) or "'s" in name:
        return name
    if name.endswith("y") and name[-2] not in "aeou":
        return f"~{name[:-1]}ies"
    return f"~{name}{'es' if name.endswith(('s', 'x', 'ch', 'sh')) else 's'}"


def with_article(name: str, article: str) -> str:
    """Put an article before a noun phrase; "a" becomes "an" or, before plural and mass nouns, nothing."""
    bare = name.lstrip("~")
    if article == "a" and is_plural(name):
        return bare
    if article == "a":
        vowel = bare[0].lower() in "aeio" or (bare[0].lower() == "u" and not bare.lower().startswith(("uni", "use")))
        return f"{'an' if vowel else 'a'} {bare}"
    return f"{article} {bare}".strip()


def _ing(verb: str) -> str:
    if verb in _DOUBLED:
        return f"{verb}{verb[-1]}ing"
    if verb.endswith("ie"):
        return f"{verb[:-2]}ying"
    if verb.endswith("e") and not verb.endswith(("ee", "oe", "ye")):
        return f"{verb[:-1]}ing"
    return f"{verb}ing"


def _ed(verb: str) -> str:
    head, dash, last = verb.rpartition("-")
    if last in _IRREGULAR:
        return head + dash + _IRREGULAR[last]
    if verb in _DOUBLED:
        return f"{verb}{verb[-1]}ed"
    if verb.endswith("e"):
        return f"{verb}d"
    if verb.endswith("y") and verb[-2] not in "aeou":
        return f"{verb[:-1]}ied"
    return f"{verb}ed"


@cache
def _verb_heads() -> frozenset[str]:
    """First words of all verb phrases, to find the second verb in "pick up and carry"."""
    every = [verb for action in ACTIONS.values() for verb in action.verbs]
    every += [job for jobs in JOBS.values() for job in jobs]
    every += [job for place in environments().values() for jobs in place.jobs.values() for job in jobs]
    return frozenset(phrase.lstrip("*").split()[0] for phrase in every) | {"stack", "return", "weigh", "grill"}


def _inflect(phrase: str, change: object) -> str:
    words = phrase.split()
    start = 1 if words[0].endswith("ly") and len(words) > 1 else 0
    words[start] = change(words[start])  # type: ignore[operator]
    for index in range(start + 2, len(words)):
        if words[index - 1] == "and" and words[index] in _verb_heads():
            words[index] = change(words[index])  # type: ignore[operator]
    return " ".join(words)


def gerund(phrase: str) -> str:
    """Turn "take a look at" into "taking a look at"; an adverb in front stays."""
    return _inflect(phrase, _ing)


def participle(phrase: str) -> str:
    """Turn "look over" into "looked over" and "pick up" into "picked up"."""
    return _inflect(phrase, _ed)

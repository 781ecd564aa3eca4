"""Questions about a clip: what is asked, what is true, what else is offered, and in which order.

The asked station, the wrong choices and their order are drawn apart from the answer, so that question and choices say
nothing about it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, get_args

from hfvla.data.samples.video import VideoQuestion
from hfvla.worlds.road.clip import Clip, Station
from hfvla.worlds.road.holdout import LANES, LIGHTS, LIMITS, PLACES, ROADSIDES, SIDES, SPLITS, WEATHERS, Split
from hfvla.worlds.road.wording import QUESTIONS, WHEN, word

__all__ = ["KINDS", "MOMENT_KINDS", "QUESTIONS_PER_CLIP", "Kind", "ask"]

Kind = Literal["light", "limit", "side", "town", "weather", "roadside", "lanes", "oncoming", "first", "last", "order"]
MOMENT_KINDS = ("light", "limit", "side", "town")
"""Kinds that only the right moment of the clip answers."""

KINDS: tuple[Kind, ...] = get_args(Kind)
_WEIGHTS: dict[str, float] = {
    "light": 5, "limit": 3, "side": 3, "town": 2, "weather": 1.5, "roadside": 1.5, "lanes": 1, "oncoming": 1.5,
    "first": 1, "last": 0.5, "order": 1.5,
}  # fmt: skip
QUESTIONS_PER_CLIP = 4
_CHOICES = 4


@dataclass(frozen=True)
class _Asked:
    """What is asked: the truth, all values it might have had, and the moments that show it (shares of the clip)."""

    answer: str
    values: tuple[str, ...]
    support: tuple[float, ...]
    station: Station | None = None


def ask(
    clip: Clip,
    split: Split,
    kinds: tuple[str, ...],
    languages: tuple[str, ...],
    seconds: float,
    video: str,
    group: str,
    extra_support: int = 0,
) -> list[VideoQuestion]:
    """Ask `QUESTIONS_PER_CLIP` different questions about a clip.

    Args:
        clip: its facts.
        split: whose town names are offered.
        kinds: what may be asked, of `KINDS`.
        languages: to ask in, each as likely.
        seconds: length of the clip.
        video: path of its file.
        group: what must not cross a split.
        extra_support: support frames of other stations beside the one that a question needs.
    """
    generator = random.Random(f"questions/{clip.texture}/{clip.name}")
    slots = [(kind, number) for kind in kinds for number in range(len(clip.stations) if kind in MOMENT_KINDS else 1)]
    weights = [_WEIGHTS[kind] / (len(clip.stations) if kind in MOMENT_KINDS else 1) for kind, _ in slots]
    questions = []
    for number in range(QUESTIONS_PER_CLIP):
        if not slots:  # few kinds, each asked already
            break
        place = generator.choices(range(len(slots)), weights)[0]
        kind, station = slots.pop(place)
        weights.pop(place)
        asked = _facts(clip, split, kind, station, generator)
        language = generator.choice(languages)
        choices = _choices(asked, generator)
        questions.append(
            VideoQuestion(
                id=f"{clip.name}_{number}",
                question=_sentence(kind, language, asked, generator),
                choices=tuple(word(choice, language) for choice in choices),
                answer=choices.index(asked.answer),
                video=video,
                support_frames=tuple(
                    round(share * seconds, 6) for share in _shown(clip, asked, extra_support, number)
                ),
                duration=seconds,
                kind=kind,
                language=language,
                source="road",
                group=group,
                details=_details(clip, kind, station),
            )
        )
    return questions


def _shown(clip: Clip, asked: _Asked, extra: int, number: int) -> tuple[float, ...]:
    """Return the moments to show; drawn apart, so that the question is the same whatever is shown with it."""
    others = [station.support for station in clip.stations if station.support not in asked.support]
    drawn = random.Random(f"support/{clip.name}/{number}").sample(others, min(extra, len(others)))
    return tuple(sorted((*asked.support, *drawn)))


def _facts(clip: Clip, split: Split, kind: str, number: int, generator: random.Random) -> _Asked:
    station = clip.stations[number]
    moment = (station.support,)
    ends = (clip.stations[0].support, clip.stations[-1].support)
    # A fact of the whole clip shows at every moment; the one given is any.
    anywhere = (generator.choice(clip.stations).support,)
    vehicles = tuple(sorted(each.vehicle for each in clip.stations))
    counts = tuple(str(count + 1) for count in range(len(clip.stations)))
    place = generator.randrange(len(clip.stations))
    return {
        "light": _Asked(station.light, LIGHTS, moment, station),
        "limit": _Asked(station.limit, LIMITS, moment, station),
        "side": _Asked(station.side, SIDES, moment, station),
        "town": _Asked(station.town, SPLITS[split].towns, moment, station),
        "weather": _Asked(clip.weather, WEATHERS, anywhere),
        "roadside": _Asked(clip.roadside, ROADSIDES, anywhere),
        "lanes": _Asked(str(clip.lanes), tuple(map(str, LANES)), anywhere),
        "oncoming": _Asked(str(sum(each.oncoming for each in clip.stations)), counts, ends),
        "first": _Asked(clip.stations[0].vehicle, vehicles, ends[:1]),
        "last": _Asked(clip.stations[-1].vehicle, vehicles, ends[1:]),
        "order": _Asked(PLACES[place], PLACES, tuple(each.support for each in clip.stations), clip.stations[place]),
    }[kind]


def _choices(asked: _Asked, generator: random.Random) -> list[str]:
    """Return the answer among wrong choices, each place as likely."""
    others = [value for value in asked.values if value != asked.answer]
    choices = [asked.answer, *generator.sample(others, min(_CHOICES - 1, len(others)))]
    generator.shuffle(choices)
    return choices


def _sentence(kind: str, language: str, asked: _Asked, generator: random.Random) -> str:
    template = generator.choice(QUESTIONS[kind][language])
    who = WHEN[language][asked.station.vehicle] if asked.station else ""
    sentence = template.format(who=who)
    return sentence[0].upper() + sentence[1:]


def _details(clip: Clip, kind: str, station: int) -> dict[str, str]:
    return {
        "needs_moment": str(int(kind in MOMENT_KINDS)),
        "needs_text": str(int(kind == "town")),
        "scene": f"{clip.weather}/{clip.roadside}",
        "station": str(station) if kind in MOMENT_KINDS else "",
    }

"""What was drawn at each validation of a run, as the report shows it: how the figures changed while it trained."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

__all__ = ["StageFigures", "read_validations"]

_MOST_STEPS = 12
_MOST_BYTES = 400_000


class StageFigures(NamedTuple):
    """The figures of a stage.

    Attributes:
        stage: its name.
        steps: optimizer steps, each with titles and SVGs of what was drawn there.
        left_out: validations between them that are not shown.
    """

    stage: str
    steps: list[tuple[int, list[tuple[str, str]]]]
    left_out: int


def read_validations(plots: Path, stages: Sequence[str]) -> list[StageFigures]:
    """Return the figures of `<plots>/<stage>/step-N/`; of many validations, twelve alike apart, the last among them.

    Args:
        plots: folder.
        stages: names, in order.
    """
    found = []
    for stage in stages:
        folders = [(int(path.name[5:]), path) for path in (plots / stage).glob("step-*") if path.name[5:].isdigit()]
        folders.sort()
        every = -(-len(folders) // _MOST_STEPS) or 1
        shown = [place for number, place in enumerate(reversed(folders)) if number % every == 0][::-1]
        steps = [(step, drawn) for step, path in shown if (drawn := _drawn(path))]
        if steps:
            found.append(StageFigures(stage, steps, len(folders) - len(steps)))
    return found


def _drawn(folder: Path) -> list[tuple[str, str]]:
    """Return titles and SVGs of a folder; what is not one of ours is passed over."""
    found = []
    for path in sorted(folder.glob("*.svg")):
        text = path.read_text("utf-8", errors="replace") if path.stat().st_size < _MOST_BYTES else ""
        if text.startswith('<svg class="chart"') and "<script" not in text:
            label = re.search(r'aria-label="([^"]*)"', text)
            found.append((html.unescape(label[1]) if label else path.stem, text))
    return found

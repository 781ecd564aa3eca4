"""The fixed columns of a stage's log lines, and numbers as they stand in them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hfvla.recipe import Stage
from hfvla.training.stage.phases import entry_rates, loss_terms

__all__ = ["Column", "clock", "fitting", "heading", "line", "stage_columns"]

_GAP = 2
_MAX_NAME = 16


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: heading.
        key: of the log line; "step" is the step of how many.
        width: in characters.
        show: a number as text.
        style: rich's, e.g. "bold".
        rank: the columns with the highest go first where the terminal is too narrow; 0 stays.
    """

    name: str
    key: str
    width: int
    show: Callable[[float], str]
    style: str = ""
    rank: int = 0


def _loss(value: float) -> str:
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.3g}"


def _rate(value: float) -> str:
    return f"{value:.1e}" if value else "0"


def _norm(value: float) -> str:
    return f"{value:.3f}" if 0.001 <= abs(value) < 1000 else f"{value:.2g}"


def _speed(value: float) -> str:
    return f"{value:,.1f}"


def _memory(value: float) -> str:
    return f"{value:.1f} GB"


def _short(name: str) -> str:
    return name if len(name) <= _MAX_NAME else f"{name[: _MAX_NAME - 1]}…"


def stage_columns(stage: Stage, learning_rate: float, max_steps: int) -> list[Column]:
    """Return the columns of a stage: step, loss, each term, rates, norm of the gradient, samples/s, memory.

    Args:
        stage: the stage; one term alone is the loss and has no column of its own.
        learning_rate: of entries that the stage gives none.
        max_steps: of the stage, for the width.
    """
    digits = len(f"{max_steps:,}")
    columns = [
        Column("step", "step", max(2 * digits + 1, 7), lambda step: f"{step:,.0f}/{max_steps:,}"),
        Column("loss", "loss", 8, _loss, "bold"),
    ]
    terms = loss_terms(stage)
    for rank, name in enumerate(terms if len(terms) > 1 else (), start=1):
        columns.append(
            Column(_short(name), f"{stage.name}/loss_{name}", max(8, len(_short(name))), _loss, rank=10 + rank)
        )
    rates = entry_rates(stage, learning_rate)
    if len(set(rates.values())) > 1:
        for rank, entry in enumerate(rates):
            key, title = f"{stage.name}/learning_rate_{entry}", _short(f"lr {entry}")
            columns.append(Column(title, key, max(8, len(title)), _rate, "cyan", rank=5 if not rank else 100 + rank))
    else:
        columns.append(Column("lr", "learning_rate", 8, _rate, "cyan", rank=2))
    columns += [
        Column("grad norm", "grad_norm", 9, _norm, rank=4),
        Column("samples/s", f"{stage.name}/samples_per_second", 9, _speed, "green", rank=1),
        Column("memory", f"{stage.name}/peak_memory_gb", 8, _memory, "green", rank=3),
    ]
    return columns


def fitting(columns: Sequence[Column], width: int) -> tuple[list[Column], int]:
    """Return the columns that fit into so many characters, and how many were left out."""
    kept = list(columns)
    while sum(column.width + _GAP for column in kept) > width:
        last = max(kept, key=lambda column: column.rank)
        if not last.rank:
            break
        kept.remove(last)
    return kept, len(columns) - len(kept)


def heading(columns: Sequence[Column]) -> str:
    """Return the line above the numbers."""
    return (" " * _GAP).join(f"{column.name:>{column.width}}" for column in columns)


def line(columns: Sequence[Column], logs: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return a log line as pieces of (text, style); what the line does not have is a dash."""
    pieces = []
    for number, column in enumerate(columns):
        value = logs.get(column.key)
        known = isinstance(value, int | float) and math.isfinite(value)
        text = column.show(float(value)) if known and value is not None else "-" if value is None else str(value)
        style = column.style if known or value is None else "bold red"
        pieces.append((f"{'' if not number else ' ' * _GAP}{text:>{column.width}}", style))
    return pieces


def clock(seconds: float | None) -> str:
    """Return a duration as a clock shows it: 0:42, 1:02:03, 2 d 03:10."""
    if seconds is None or not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(max(seconds, 0.0)), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    if days:
        return f"{days} d {hours:02}:{minutes:02}"
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"

"""What the judges of hostile input share: a limit of time, an outcome, and silence of the log."""

from __future__ import annotations

import logging
import signal
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["LOST", "HangError", "check_outcomes", "limited", "quiet"]

LOST = ("traceback", "hang", "silent", "unreadable")
"""Verdicts that must never be."""


class HangError(BaseException):
    """It took longer than any input may; no `except Exception` takes it for damage."""


@contextmanager
def limited(seconds: float) -> Iterator[None]:
    """End the work with `HangError` when it takes longer."""

    def stop(*_: object) -> None:
        raise HangError

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


@contextmanager
def quiet() -> Iterator[None]:
    """Log nothing: hostile input is worth thousands of lines."""
    logging.disable(logging.CRITICAL)
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)


def check_outcomes(outcomes: Iterable[Any]) -> None:
    """Fail where an outcome must never be, naming the first five with the seed to see each again."""
    found = list(outcomes)
    bad = [one for one in found if one.bad]
    assert not bad, f"{len(bad)} of {len(found)}\n" + "\n".join(map(str, bad[:5]))

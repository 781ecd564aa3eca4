"""A time limit for one question, which ends Python code between two operations where the platform allows it."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["DeadlineError", "can_interrupt", "deadline"]


class DeadlineError(Exception):
    """The time given to a question is over."""


def can_interrupt() -> bool:
    """Tell whether a deadline can end the work: timers exist (not on Windows), and this is the main thread."""
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Raise `DeadlineError` in the body after `seconds`; an operation of torch or a decoder that runs then ends first.

    Where that is not possible (see `can_interrupt`) the body runs to its end, and the caller compares the time.

    Args:
        seconds: above 0; None for no limit.
    """
    if seconds is None or not can_interrupt():
        yield
        return

    def over(number: int, frame: Any) -> None:
        raise DeadlineError(f"{seconds:g} s are over")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)

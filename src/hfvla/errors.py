"""Errors a user sees: one line that says what, where, got, expected and how to fix it."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = [
    "CheckpointError",
    "DataError",
    "HfvlaError",
    "MissingExtraError",
    "OutOfMemoryError",
    "PredictionError",
    "RecipeError",
    "TrainingError",
    "did_you_mean",
]


_MOST_SHOWN = 600  # letters of a value; what is longer hides what is wrong with it


def _shortened(text: str) -> str:
    """Return a text that a person can read in a line: not too long, and letters that turn or hide it written out."""
    text = text if len(text) <= _MOST_SHOWN else f"{text[: _MOST_SHOWN - 30]}...{text[-27:]}"
    return "".join(letter if letter.isprintable() or letter == "\n" else ascii(letter)[1:-1] for letter in text)


class HfvlaError(Exception):
    """Base of every error that the command line prints without a traceback (exit code 2).

    Args:
        what (`str`): the problem, one clause.
        where (`str`, *optional*): file:line, stage, or sample it was found in.
        got (*optional*): the offending value.
        expected (*optional*): what would have been accepted.
        fix (`str`, *optional*): what to do about it.
    """

    def __init__(
        self,
        what: str,
        *,
        where: str | None = None,
        got: object = None,
        expected: object = None,
        fix: str | None = None,
    ) -> None:
        self.what, self.where, self.got, self.expected, self.fix = what, where, got, expected, fix
        super().__init__(self._message())

    def _message(self) -> str:
        message = f"{_visible(self.where)}: {self.what}" if self.where else self.what
        if self.got is not None:
            message += f"; got {_shortened(repr(self.got))}"
        if self.expected is not None:
            message += f"; expected {self.expected}"
        if self.fix:
            message += f"{'' if message.endswith(('.', '?')) else '.'} {_shortened(self.fix)}"
        return message


def _visible(text: str) -> str:
    """Return a place on one line: a line break or a control character in a path is shown as an escape."""
    text = str(text)
    return text if text.isprintable() else "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)


class DataError(HfvlaError):
    """A data source or a sample cannot be used."""


class CheckpointError(HfvlaError):
    """A checkpoint cannot be loaded, carried over or saved as asked."""


class PredictionError(HfvlaError):
    """What a model computed is no answer: numbers that are not finite."""


class OutOfMemoryError(HfvlaError):
    """A GPU has too little memory for what is asked of it."""


class TrainingError(HfvlaError):
    """Training cannot go on, for what its numbers have become."""


class MissingExtraError(HfvlaError):
    """A feature needs an optional package that is not installed."""

    def __init__(self, package: str, extra: str, needed_for: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(
            f"{needed_for} needs the package '{package}'", fix=f'Install it with: pip install "hfvla[{extra}]"'
        )


class RecipeError(HfvlaError):
    """A recipe cannot be run; carries every problem found in it at once.

    Args:
        problems (`str` or an iterable of `str`): one complete line each, with its file:line.
    """

    def __init__(self, problems: str | Iterable[str], **details: object) -> None:
        self.problems = [problems] if isinstance(problems, str) else list(problems)
        head = self.problems[0] if len(self.problems) == 1 else f"{len(self.problems)} problems in the recipe:"
        super().__init__(head, **details)  # type: ignore[arg-type]

    def _message(self) -> str:
        if len(self.problems) == 1:
            return super()._message()
        return "\n".join([self.what, *(f"  - {problem}" for problem in self.problems)])


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return " Did you mean 'x'?" for the nearest known name, or the list of known names."""
    known, name = list(known), str(name)
    lowered = {candidate.lower(): candidate for candidate in known}
    nearest = difflib.get_close_matches(name.lower(), list(lowered), n=1, cutoff=0.6)
    if nearest:
        return f"Did you mean '{lowered[nearest[0]]}'?"
    return f"Known: {', '.join(known)}." if known else "Nothing is known here."

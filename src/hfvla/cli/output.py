"""How a command ends: JSON or tables on stdout, logs and one clear message on stderr, and its exit code."""

from __future__ import annotations

import contextlib
import dataclasses
import gc
import json
import logging
import math
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO

import typer

from hfvla.errors import HfvlaError, RecipeError
from hfvla.noise import without_warnings

__all__ = [
    "INTERRUPTED",
    "USER_ERROR",
    "chosen_device",
    "configure_logging",
    "importing",
    "is_main_process",
    "run_command",
    "to_json",
]

USER_ERROR = 2
INTERRUPTED = 130
_MAX_LINE = 2000  # of an error: a path may have thousands of letters
LOG_LEVELS = ("DEBUG", "INFO", "WARNING", "ERROR", "CRITICAL")


def _rank() -> int:
    text = os.environ.get("RANK") or os.environ.get("LOCAL_RANK") or "0"
    return int(text) if text.lstrip("-").isdigit() else 0


def is_main_process() -> bool:
    """Return whether this is the process that prints (`RANK`, else `LOCAL_RANK`, is 0 or not set)."""
    return _rank() <= 0


class _StderrHandler(logging.StreamHandler):
    """Writes to what `sys.stderr` is now, also after it has been replaced."""

    def __init__(self) -> None:
        logging.Handler.__init__(self)

    @property
    def stream(self) -> TextIO:
        return sys.stderr

    @stream.setter
    def stream(self, value: TextIO) -> None:
        """Ignore a stream set from outside: there is only one."""


def _wanted() -> str:
    return os.environ.get("HFVLA_LOG_LEVEL", "").upper()


def configure_logging() -> None:
    """Send hfvla's log to stderr: INFO on the main process, errors only on others; HFVLA_LOG_LEVEL says otherwise."""
    logger = logging.getLogger("hfvla")
    if not any(isinstance(handler, _StderrHandler) for handler in logger.handlers):
        handler = _StderrHandler()
        handler.addFilter(lambda record: bool(_wanted()) or not getattr(record, "detail", False))
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"))
        logger.addHandler(handler)
        logger.propagate = False
    wanted = _wanted()
    if wanted and wanted not in LOG_LEVELS:
        raise HfvlaError("no such log level", where="HFVLA_LOG_LEVEL", got=wanted, expected=", ".join(LOG_LEVELS))
    logger.setLevel(wanted or ("INFO" if is_main_process() else "ERROR"))


@contextlib.contextmanager
def importing() -> Iterator[None]:
    """Import much without searching for circles of garbage meanwhile, and never again in what is there at the end.

    What torch and transformers make as they are imported stays; Python looks through all of it time and again, which
    is a third of what the imports take.
    """
    was = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was:
            gc.freeze()
            gc.enable()


def run_command(work: Callable[[], Any], show: Callable[[Any], None], as_json: bool) -> None:
    """Do the work of a command and print its result once, on the main process.

    Args:
        work: returns the result; whatever it prints goes to stderr when `as_json`, so that stdout is pure JSON.
        show: prints the result for people.
        as_json: print the result as one JSON document in its place.

    Raises:
        typer.Exit: 2 after an `HfvlaError`, 130 after an interrupt.
    """
    try:
        configure_logging()
        with without_warnings(), contextlib.redirect_stdout(sys.stderr) if as_json else contextlib.nullcontext():
            result = work()
    except HfvlaError as error:
        _report(error, as_json)
        raise typer.Exit(USER_ERROR) from error
    except KeyboardInterrupt as error:
        if is_main_process():
            typer.echo("interrupted", err=True)
        raise typer.Exit(INTERRUPTED) from error
    if not is_main_process():
        return
    if as_json:
        typer.echo(to_json(result))
    else:
        show(result)


def _report(error: HfvlaError, as_json: bool) -> None:
    if not is_main_process():
        # Every process fails on a bad recipe; one that fails alone must still be heard.
        typer.echo(f"[rank {_rank()}] error: {_legible(str(error).splitlines()[0])}", err=True)
        return
    typer.secho("error: ", fg="red", bold=True, nl=False, err=True)
    typer.echo(_legible(str(error)), err=True)
    if as_json:
        details: dict[str, Any] = {"type": type(error).__name__, "message": str(error)}
        if isinstance(error, RecipeError):
            details["problems"] = error.problems
        typer.echo(to_json({"error": details}))


def _legible(text: str) -> str:
    """Return an error as a terminal may show it: no control characters, and no line of thousands of letters."""
    lines = []
    for line in text.split("\n"):
        seen = "".join(c if c.isprintable() or c == "\t" else repr(c)[1:-1] for c in line)
        lines.append(seen if len(seen) <= _MAX_LINE else f"{seen[:_MAX_LINE]}... ({len(seen)} characters)")
    return "\n".join(lines)


def to_json(value: Any) -> str:
    """Return strict JSON: dataclasses and models as mappings, arrays as lists, NaN and infinities as null."""
    shown_as = (getattr(sys.stdout, "encoding", None) or "utf-8").lower().replace("-", "")
    return json.dumps(_plain(value), indent=2, ensure_ascii=not shown_as.startswith("utf"), allow_nan=False)


def _plain(value: Any) -> Any:
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Path):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(part) for part in value]
    if hasattr(value, "model_dump"):
        return _plain(value.model_dump(mode="json", by_alias=True))
    if hasattr(value, "tolist"):  # numpy and torch
        return _plain(value.tolist())
    raise TypeError(f"cannot write {type(value).__name__} as JSON")


def chosen_device(name: str | None) -> str:
    """Return the torch device that was asked for, else a GPU if there is one.

    Raises:
        HfvlaError: no such device here.
    """
    from hfvla.nn.devices import checked_device

    return checked_device(name)

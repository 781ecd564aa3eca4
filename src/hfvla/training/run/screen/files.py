"""`<out>/logs/run.log` and `<out>/logs/log_history.jsonl`: what a run says, to be read and tailed while it goes."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TextIO

from hfvla.evaluation.report_data import plain_json

__all__ = ["HISTORY", "RUN_LOG", "HistoryFile", "run_log"]

RUN_LOG = "run.log"
HISTORY = "log_history.jsonl"

_FORMAT = logging.Formatter("%(asctime)s %(levelname)s %(message)s", datefmt="%Y-%m-%d %H:%M:%S")


class _Onward(logging.Handler):
    """Hands records on to whoever would have had them without the file.

    Args:
        logger: whose parents they are.
        level: below which they had none.
    """

    def __init__(self, logger: logging.Logger, level: int) -> None:
        super().__init__(level)
        self._logger = logger

    def emit(self, record: logging.LogRecord) -> None:
        """Hand one record on."""
        if self._logger.parent is not None:
            self._logger.parent.callHandlers(record)


@contextmanager
def run_log(folder: Path) -> Iterator[logging.Handler]:
    """Write what hfvla logs to `folder/run.log`, from INFO on, below what an earlier process of the run wrote there.

    Others (a script's own logging, standard error) hear as much as before, and no more.

    Args:
        folder: `<out>/logs`; created.
    """
    folder.mkdir(parents=True, exist_ok=True)
    logger = logging.getLogger("hfvla")
    file = logging.FileHandler(folder / RUN_LOG, encoding="utf-8", errors="backslashreplace")
    file.setLevel(logging.INFO)
    file.setFormatter(_FORMAT)
    level, heard, propagate = logger.level, logger.getEffectiveLevel(), logger.propagate
    own = [(handler, handler.level) for handler in logger.handlers]
    onward = None
    if heard > logging.INFO:
        for handler, least in own:
            handler.setLevel(max(least, heard))
        if propagate:
            onward = _Onward(logger, heard)
            logger.addHandler(onward)
            logger.propagate = False
        logger.setLevel(logging.INFO)
    logger.addHandler(file)
    try:
        yield file
    finally:
        logger.removeHandler(file)
        file.close()
        if heard > logging.INFO:
            logger.setLevel(level)
            for handler, least in own:
                handler.setLevel(least)
            if onward is not None:
                logger.removeHandler(onward)
                logger.propagate = propagate


class HistoryFile:
    """Every log line of every stage as one JSON object a line, written as it comes.

    Args:
        path: the file; a run that goes on writes below what is there.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._file: TextIO | None = None

    def begin(self, stage: str, step: int) -> None:
        """Begin or go on with a stage; lines of steps that will be done again are taken out."""
        self.close()
        if self.path.is_file():
            kept = [text for text in self.path.read_text("utf-8").splitlines() if not _after(text, stage, step)]
            temporary = self.path.with_name(f".{self.path.name}.tmp")
            temporary.write_text("".join(f"{text}\n" for text in kept), encoding="utf-8")
            temporary.replace(self.path)
        self._opened()

    def _opened(self) -> TextIO:
        if self._file is None:
            self._file = self.path.open("a", encoding="utf-8", errors="backslashreplace")
        return self._file

    def add(self, stage: str, step: int, logs: Mapping[str, Any]) -> None:
        """Write one line: the time, the stage, the step and what was logged."""
        file = self._opened()
        now = datetime.now(UTC).isoformat(timespec="seconds")
        entry = {"time": now, "stage": stage, "step": step, **{key: logs[key] for key in logs if key != "step"}}
        file.write(json.dumps(plain_json(entry), ensure_ascii=False, allow_nan=False) + "\n")
        file.flush()

    def close(self) -> None:
        """Close the file."""
        if self._file is not None:
            self._file.close()
            self._file = None


def _after(text: str, stage: str, step: int) -> bool:
    """Tell whether a line is of a later step of the stage, or torn."""
    try:
        entry = json.loads(text)
    except ValueError:
        return True
    return entry.get("stage") == stage and entry.get("step", 0) > step

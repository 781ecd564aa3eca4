"""The screen of a run: what its stages, evaluations and messages tell it, it shows, and writes to the log files."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from rich.text import Text

from hfvla.noise import without_noise
from hfvla.recipe import Stage
from hfvla.training.run.screen.columns import Column, clock, fitting, heading, line, stage_columns
from hfvla.training.run.screen.files import HISTORY, HistoryFile, run_log
from hfvla.training.run.screen.progress import Part, Progress
from hfvla.training.run.screen.views import Status, View, build_view

__all__ = ["RunScreen", "run_screen"]

logger = logging.getLogger(__name__)


class RunScreen:
    """Shows one run, on the process that writes; on others it shows and writes nothing.

    Args:
        name: of the run.
        folder: `<out>/logs`, or None for a process that writes nothing.
        moving: whether a bar may be drawn.
        file: handler of run.log, for the lines that are no log messages.
    """

    def __init__(
        self, name: str, folder: Path | None, moving: bool = True, file: logging.Handler | None = None
    ) -> None:
        self.name, self.progress, self.began = name, Progress([]), time.perf_counter()
        self.history = HistoryFile(folder / HISTORY) if folder is not None else None
        self._file = file
        self._part = self._detail = self._best = ""
        self._columns: Sequence[Column] = ()
        self._shown: Sequence[Column] = ()
        quiet = logging.getLogger("hfvla").getEffectiveLevel() > logging.WARNING
        self.view: View | None = None
        if folder is not None and not quiet:
            self.view = build_view(self.status, moving)

    def status(self) -> Status:
        """Return what the bar says now."""
        return Status(
            self.name,
            self.progress.share(),
            time.perf_counter() - self.began,
            self.progress.seconds_left(),
            self._part,
            self._detail,
            self._best,
        )

    def plan(self, parts: Sequence[Part]) -> None:
        """Say what the run will do."""
        self.progress = Progress(list(parts))

    def begin(self, kind: str, name: str) -> None:
        """Go on to a stage or an evaluation."""
        self.progress.begin(kind, name)
        same = [part.name for part in self.progress.parts if part.kind == kind]
        self._part = f"{kind} {name} ({same.index(name) + 1} of {len(same)})"
        self._detail = self._best = ""
        self.update()

    def skip(self, stage: str) -> None:
        """Go past a stage that an earlier process finished."""
        self.progress.skip("stage", stage)

    def doing(self, detail: str, done: float | None = None, best: str | None = None) -> None:
        """Say what is done now.

        Args:
            detail: "step 40/200".
            done: samples of the current part that are done.
            best: the best score so far.
        """
        self._detail = detail
        if best is not None:
            self._best = best
        if done is not None:
            self.progress.advance(done)
        self.update()

    def batches(self, label: str | None, done: int, total: int) -> None:
        """Follow the batches of an evaluation (`Processes.progress`)."""
        self._detail = f"{label or 'batch'} {done}/{total}"
        self.update()

    def update(self) -> None:
        """Draw the status."""
        if self.view is not None:
            self.view.update()

    def say(self, text: Text | str, plain: str | None = None) -> None:
        """Show a line that stays, and write it to run.log.

        Args:
            text: the line.
            plain: what run.log has in its place.
        """
        text = Text(text) if isinstance(text, str) else text
        if self.view is not None:
            self.view.line(text)
        if self._file is not None:
            written = text.plain if plain is None else plain
            self._file.handle(logging.LogRecord(__name__, logging.INFO, __file__, 0, written, None, None))

    def table(self, stage: Stage, learning_rate: float, max_steps: int) -> None:
        """Begin the table of a stage's log lines with its headings; a narrow terminal gets fewer columns."""
        self._columns = stage_columns(stage, learning_rate, max_steps)
        width = self.view.width if self.view is not None else 0
        self._shown, missing = fitting(self._columns, width) if width else (self._columns, 0)
        if missing:
            self.say(Text(f"{missing} more columns are in logs/{HISTORY}: the terminal is narrow", "dim"))
        self.say(Text(heading(self._shown), "bold underline"), heading(self._columns))

    def numbers(self, stage: str, step: int, logs: Mapping[str, Any]) -> None:
        """Show a log line in its columns."""
        logs = {**logs, "step": step}
        pieces = line(self._shown, logs)
        self.say(Text.assemble(*pieces), "".join(text for text, _ in line(self._columns, logs)))

    def close(self) -> None:
        """Take the bar away and close the files."""
        if self.view is not None:
            self.view.close()
            self.view = None
        if self.history is not None:
            self.history.close()


@contextmanager
def run_screen(name: str, output_dir: Path | None, moving: bool = True) -> Iterator[RunScreen]:
    """Show a run from here on, quietly, with its log files; what ends it is written to run.log.

    Args:
        name: of the run.
        output_dir: run folder; None on a process that writes nothing.
        moving: whether a bar may be drawn.
    """
    with without_noise():
        if output_dir is None:
            yield RunScreen(name, None)
            return
        with run_log(output_dir / "logs") as file:
            screen = RunScreen(name, output_dir / "logs", moving, file)
            try:
                yield screen
            except BaseException as error:
                what = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
                file.handle(logging.LogRecord(__name__, logging.ERROR, __file__, 0, f"ended: {what}", None, None))
                raise
            finally:
                screen.close()
                spent = clock(time.perf_counter() - screen.began)
                file.handle(logging.LogRecord(__name__, logging.INFO, __file__, 0, f"after {spent}", None, None))

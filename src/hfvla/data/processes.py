"""Several processes that do one job: each takes its share of the parts, and all of them get the whole.

Two ways to wait for each other. A collective (`Processes.gather`) is for work that all do at the same time: whoever
waits in it longer than `ddp_timeout` is stopped. A `Meeting` is for what one process does alone while the others have
nothing to do, however long it takes: they look into a folder.
"""

from __future__ import annotations

import shutil
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar

from hfvla.errors import HfvlaError

__all__ = ["COLLECTIVE_TIMEOUT", "Meeting", "Processes"]

COLLECTIVE_TIMEOUT = timedelta(seconds=1800)
"""How long one process may wait in a collective for the others where no `ddp_timeout` says it: TrainingArguments'."""

_FOLDER = ".meeting-"
_LOOK_EVERY_S = 0.2
_LEAVE_WITHIN_S = 60.0  # for the others to see the last word before the folder goes

Part = TypeVar("Part")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Processes:
    """This process among those that do a job together; the same code runs on all of them, on the same parts.

    Attributes:
        index: number of this process.
        count: how many there are; with one, nothing waits and nothing is sent.
        progress: told the label, how many parts of this process are done, and of how many; else there is a bar.
    """

    index: int = 0
    count: int = 1
    progress: Callable[[str | None, int, int], None] | None = field(default=None, compare=False, repr=False)

    @classmethod
    def current(cls) -> Processes:
        """Return this process among those of torch's process group; one alone where there is none."""
        import torch.distributed as dist

        if not (dist.is_available() and dist.is_initialized()):
            return cls()
        return cls(dist.get_rank(), dist.get_world_size())

    @property
    def is_main(self) -> bool:
        """Whether this is the one that writes."""
        return self.index == 0

    def gather(self, value: Result) -> list[Result]:
        """Return every process's value, in their order, on every process; all must call it."""
        if self.count == 1:
            return [value]
        import torch.distributed as dist

        found: list[Any] = [None] * self.count
        dist.all_gather_object(found, value)
        return found

    def share(self, work: Callable[[Part], Result], parts: Sequence[Part], label: str | None = None) -> list[Result]:
        """Return the result of every part, in their order, on every process; each works on every `count`-th part.

        A part is worked on as it would be by one process alone: cut where one would cut (the batches of a set), the
        results are the same bits.

        Args:
            work: of one part.
            parts: the same on every process.
            label: of a progress bar.

        Raises:
            HfvlaError: another process failed; on that one, what it failed with.
        """
        if self.count == 1:
            return [work(part) for part in self._shown(parts, label)]
        own = parts[self.index :: self.count]
        gathered = self.gather_done(lambda: [work(part) for part in self._shown(own, label)])
        results: list[Any] = [None] * len(parts)
        for number, found in enumerate(gathered):
            results[number :: self.count] = found
        return results

    def _shown(self, parts: Sequence[Part], label: str | None) -> Iterator[Part]:
        if self.progress is None:
            if label is not None:
                from tqdm.auto import tqdm

                parts = tqdm(parts, desc=label, leave=False, disable=None)
            yield from parts
            return
        for done, part in enumerate(parts):
            self.progress(label, done, len(parts))
            yield part

    def gather_done(self, work: Callable[[], Result]) -> list[Result]:
        """Do this process's work, and return what `gather` gives of the results; one that fails stops all.

        Raises:
            HfvlaError: another process failed; on that one, what it failed with.
        """
        if self.count == 1:
            return [work()]
        found, failure = None, None
        try:
            found = work()
        except Exception as error:
            failure = error
        gathered = self.gather((found, None if failure is None else f"{type(failure).__name__}: {failure}"))
        if failure is not None:
            raise failure
        for number, (_, problem) in enumerate(gathered):
            if problem is not None:
                raise HfvlaError(f"process {number} failed: {problem}")
        return [part for part, _ in gathered]  # type: ignore[misc]


class Meeting:
    """A folder in which processes tell each other what is done; on several machines it must be a shared one.

    Args:
        folder: the run's folder.
        processes: who meets; all must build it at the same time.
    """

    def __init__(self, folder: str | Path, processes: Processes) -> None:
        self.processes = processes
        token = processes.gather(uuid.uuid4().hex[:12])[0]
        self.folder = Path(folder) / f"{_FOLDER}{token}"
        if processes.count > 1:
            if processes.is_main:
                for old in Path(folder).glob(f"{_FOLDER}*"):  # of a run that was killed
                    shutil.rmtree(old, ignore_errors=True)
            processes.gather(None)
            self.folder.mkdir(parents=True, exist_ok=True)

    @contextmanager
    def announced(self, name: str) -> Iterator[None]:
        """Do something that others wait for; they go on when it is done, and stop when it fails."""
        try:
            yield
        except BaseException as error:
            self._write(f"{name}.failed", f"{type(error).__name__}: {error}")
            raise
        self._write(f"{name}.done", "")

    def wait(self, name: str) -> None:
        """Wait for what another process announces.

        Raises:
            HfvlaError: it failed there.
        """
        while not (self.folder / f"{name}.done").exists():
            failed = self.folder / f"{name}.failed"
            if failed.exists():
                raise HfvlaError(f"another process failed: {failed.read_text(encoding='utf-8')}")
            time.sleep(_LOOK_EVERY_S)

    def alone(self, name: str, work: Callable[[], None]) -> None:
        """Let the first process do something; the others wait for it."""
        if self.processes.is_main:
            with self.announced(name):
                work()
        else:
            self.wait(name)

    def close(self) -> None:
        """Leave; the first process removes the folder when all have left, and not where it leaves with an error."""
        if self.processes.count == 1:
            return
        self._write(f"left-{self.processes.index}", "")
        if not self.processes.is_main or sys.exc_info()[0] is not None:
            return
        until = time.monotonic() + _LEAVE_WITHIN_S
        others = [self.folder / f"left-{number}" for number in range(self.processes.count)]
        while not all(path.exists() for path in others) and time.monotonic() < until:
            time.sleep(_LOOK_EVERY_S)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _write(self, name: str, text: str) -> None:
        if self.processes.count == 1:
            return
        unfinished = self.folder / f"{name}.part-{self.processes.index}"
        unfinished.write_text(text, encoding="utf-8")
        unfinished.replace(self.folder / name)

"""Finding files and folders under a root: links are followed, nothing is read twice, what is passed over is named."""

from __future__ import annotations

import errno
import logging
import os
import re
import stat
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["FoundPaths", "find_files", "find_folders", "named_paths", "natural_key"]

logger = logging.getLogger(__name__)

Names = Callable[[str], bool]


@dataclass
class FoundPaths:
    """What a walk came by.

    Attributes:
        paths: those that were looked for, in the natural order of their names.
        lost: those that have the name and are of no use (a dead link, a pipe), each with its reason.
        passed: links and folders that were not followed, each with its reason.
        hidden: how many hidden ones have such a name; macOS leaves "._a.hdf5" beside "a.hdf5".
    """

    paths: list[Path] = field(default_factory=list)
    lost: list[tuple[Path, str]] = field(default_factory=list)
    passed: list[tuple[Path, str]] = field(default_factory=list)
    hidden: int = 0

    def log(self, root: Path) -> None:
        """Say what was passed over."""
        for path, reason in self.passed:
            logger.warning("%s: %s is passed over: %s", root, path, reason)
        if self.hidden:
            logger.info("%s: %d hidden files are passed over", root, self.hidden)

    def census(self) -> dict[str, object]:
        """Return counts for a census, with the first of each named; empty where nothing was passed over."""
        found: dict[str, object] = {"hidden": self.hidden} if self.hidden else {}
        if self.passed:
            path, reason = self.passed[0]
            found["passed_over"] = {"count": len(self.passed), "first": f"{path}: {reason}"}
        return found


def natural_key(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts "part_2" before "part_10"."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def find_files(root: Path, wanted: Names) -> FoundPaths:
    """Find the regular files of some names at or below a folder."""
    return _Walk(wanted, files=True).over(root)


def find_folders(root: Path, wanted: Names) -> FoundPaths:
    """Find the folders of some names at or below a folder; what lies in one of them is not looked at."""
    return _Walk(wanted, files=False).over(root)


def named_paths(root: Path, paths: Iterable[Path]) -> list[tuple[str, Path]]:
    """Return (name, path), by name; a name is the root's and the way from there, with forward slashes."""
    return sorted(("/".join([root.name, *path.relative_to(root).parts]), path) for path in paths)


class _Walk:
    """Real folders first, then linked ones, each folder and file once: a loop of links ends, and nothing counts twice.

    A link may lead anywhere, as a data root may link to another disk.
    """

    def __init__(self, wanted: Names, *, files: bool) -> None:
        self._wanted, self._files = wanted, files
        self._found = FoundPaths()
        self._seen: set[tuple[int, int]] = set()
        self._links: list[os.DirEntry[str]] = []

    def over(self, root: Path) -> FoundPaths:
        if not self._files and self._wanted(root.name):
            self._found.paths.append(root)
            return self._found
        status = os.stat(root)
        self._seen.add((status.st_dev, status.st_ino))
        pending = [str(root)]
        while pending or self._links:
            if pending:
                self._look_into(pending.pop(), pending)
            else:
                self._take(self._links.pop(0), pending)
        self._found.paths.sort(key=lambda path: [natural_key(part) for part in path.parts])
        return self._found

    def _look_into(self, folder: str, pending: list[str]) -> None:
        try:
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            self._found.passed.append((Path(folder), error.strerror or str(error)))
            return
        for entry in entries:
            if entry.name.startswith("."):
                self._found.hidden += self._wanted(entry.name.lstrip("._"))
            elif entry.is_symlink():
                self._links.append(entry)
            else:
                self._take(entry, pending)

    def _take(self, entry: os.DirEntry[str], pending: list[str]) -> None:
        path, wanted = Path(entry.path), self._wanted(entry.name)
        try:
            status = os.stat(entry.path)
        except OSError as error:
            dead = error.errno == errno.ENOENT
            reason = "a link to nothing" if dead else error.strerror or str(error)
            (self._found.lost if wanted else self._found.passed).append((path, reason))
            return
        folder, key = stat.S_ISDIR(status.st_mode), (status.st_dev, status.st_ino)
        once = folder or (self._files and wanted and entry.is_symlink())
        if once and key in self._seen:
            self._found.passed.append((path, "a link to what is read already"))
            return
        if folder and (self._files or not wanted):
            pending.append(entry.path)
        elif folder != self._files and wanted:
            if self._files and not stat.S_ISREG(status.st_mode):
                self._found.lost.append((path, "not a regular file"))
                return
            self._found.paths.append(path)
        else:
            return
        self._seen.add(key)

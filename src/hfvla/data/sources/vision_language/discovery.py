"""What lies at a path: files to be told by their content, folders of pictures, and what is passed over."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from pathlib import Path

from hfvla.data.sources.vision_language.image_files import PICTURE_SUFFIXES
from hfvla.data.walking import natural_key
from hfvla.errors import DataError

__all__ = ["Found", "discover"]

_SIDECARS = (".txt", ".caption", ".json")
_FETCHED = re.compile(r"\d+_\d{1,10}")  # a picture as the script of Conceptual Captions names it
_COMMON_SIDECARS = 0.5  # share of a folder's pictures that have a text beside them


@dataclass
class Found:
    """What a walk came by.

    Attributes:
        root: folder that names are relative to.
        files: all that are no pictures, in natural order.
        pictures: folders that hold pictures.
        captioned: of these, the ones whose pictures have texts of the same names beside them.
        passed: links and folders that are not followed, and files of no use, each with its reason.
        hidden: number of hidden files and folders.
    """

    root: Path
    files: list[Path] = field(default_factory=list)
    pictures: list[Path] = field(default_factory=list)
    captioned: list[Path] = field(default_factory=list)
    passed: list[tuple[Path, str]] = field(default_factory=list)
    hidden: int = 0


def discover(path: Path, *, follow_links: bool) -> Found:
    """Walk a folder, each folder once; of a file, the folder beside is walked for pictures alone.

    Raises:
        DataError: nothing is there.
    """
    path = Path(os.path.normpath(path.expanduser().absolute()))
    if path.is_dir():
        return _Walk(path, follow_links).done()
    if not path.is_file():
        raise DataError("no such file or folder", where=str(path), fix="Check the path.")
    found = _Walk(path.parent, follow_links).done()
    if not found.pictures and path.parent.parent != path.parent:
        # "annotations/captions_val2017.json" has its pictures in "val2017", beside the folder.
        beside = Found(path.parent.parent)
        for entry in sorted(os.scandir(beside.root), key=lambda entry: entry.name):
            if entry.is_dir() and not entry.name.startswith(".") and entry.path != str(path.parent):
                beside.pictures += _Walk(Path(entry.path), follow_links).done().pictures
        found = beside if beside.pictures else found
    found.files, found.captioned, found.passed, found.hidden = [path], [], [], 0
    return found


class _Walk:
    def __init__(self, root: Path, follow_links: bool) -> None:
        self._follow, self._top = follow_links, os.path.realpath(root)
        self._found = Found(root)
        self._seen: set[tuple[int, int]] = set()
        self._pending = [str(root)]

    def done(self) -> Found:
        while self._pending:
            self._look_into(self._pending.pop())
        self._found.files.sort(key=lambda file: [natural_key(part) for part in file.parts])
        self._found.pictures.sort()
        self._found.captioned.sort()
        return self._found

    def _look_into(self, folder: str) -> None:
        try:
            status = os.stat(folder)
            if (status.st_dev, status.st_ino) in self._seen:
                self._found.passed.append((Path(folder), "a link to what is read already"))
                return
            self._seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            self._found.passed.append((Path(folder), error.strerror or str(error)))
            return
        files = []
        for entry in entries:
            if entry.name.startswith("."):
                self._found.hidden += 1
            elif entry.is_symlink() and self._refused(entry.path):
                continue
            elif entry.is_dir():
                self._pending.append(entry.path)
            else:
                files.append(entry)
        self._sort_out(Path(folder), files)

    def _refused(self, path: str) -> bool:
        real = os.path.realpath(path)
        if not os.path.exists(real):
            self._found.passed.append((Path(path), "a link to nothing"))
        elif not self._follow and real != self._top and not real.startswith(self._top.rstrip(os.sep) + os.sep):
            reason = f"a link that leads out of the data root, to {real} (follow_links: true takes it)"
            self._found.passed.append((Path(path), reason))
        else:
            return False
        return True

    def _sort_out(self, folder: Path, files: list[os.DirEntry[str]]) -> None:
        pictures, others = set(), []
        for entry in files:
            stem, suffix = os.path.splitext(entry.name)
            if suffix.casefold() in PICTURE_SUFFIXES or _FETCHED.fullmatch(entry.name):
                pictures.add(stem)
            else:
                others.append((entry, stem, suffix.casefold()))
        if pictures:
            self._found.pictures.append(folder)
        texts = sum(stem in pictures and suffix in (".txt", ".caption") for _, stem, suffix in others)
        captioned = bool(pictures) and texts >= _COMMON_SIDECARS * len(pictures)
        if captioned:
            self._found.captioned.append(folder)
        for entry, stem, suffix in others:
            if captioned and suffix in _SIDECARS and stem in pictures:
                continue
            if not stat.S_ISREG(entry.stat().st_mode):
                self._found.passed.append((folder / entry.name, "not a regular file"))
            else:
                self._found.files.append(folder / entry.name)

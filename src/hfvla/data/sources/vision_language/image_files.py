"""Finding the pictures that records name: below a root, never outside of it, each looked at once."""

from __future__ import annotations

import os
import re
import stat
from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from functools import lru_cache
from pathlib import Path

from PIL import Image

from hfvla.data.pictures import check_picture, load_picture, picture_size
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.inside import inside_root
from hfvla.data.sources.vision_language.splits import split_of_path, usual_split
from hfvla.errors import DataError

__all__ = ["PICTURE_SUFFIXES", "ImageFiles", "check_bytes"]

PICTURE_SUFFIXES = frozenset(
    f".{suffix}"
    for suffix in ("jpg", "jpeg", "jpe", "png", "webp", "avif", "tif", "tiff", "bmp", "dib", "gif", "jp2", "j2k")
    + ("ppm", "pgm", "pbm", "pnm")
)
_REMEMBERED = 1 << 16
_DISTINCT_LETTERS = 8
_PLAIN = re.compile(r"[A-Za-z0-9_.][\w.\- /]{0,200}", re.ASCII)


def check_bytes(data: bytes, where: str, level: str) -> None:
    """Look at an encoded picture that is in memory.

    Raises:
        UnusableError: no picture, or a damaged one.
    """
    if not data:
        raise UnusableError("picture without bytes", where)
    _look(data, where, level)


def _look(source: str | bytes, where: str, level: str) -> None:
    try:
        if level == "decode":
            load_picture(source, where)
        elif level == "header":
            check_picture(source, where)
    except DataError as error:
        bomb = isinstance(error.__cause__, Image.DecompressionBombError)  # Pillow has a limit of its own
        raise UnusableError("picture is too large" if bomb else error.what, f"{where}: {error.got}") from error


class ImageFiles:
    """Finds pictures by the paths and names that records have.

    Args:
        root: folder that paths are relative to, and that no picture may lie outside of.
        folders: below it, those that hold pictures.
        level: how far a picture is looked at; see `VisionLanguageOptions.check_images`.
        follow_links: take pictures behind links that lead out of the root.
    """

    def __init__(
        self, root: Path, folders: Sequence[Path], level: str = "header", *, follow_links: bool = False
    ) -> None:
        self.root = Path(os.path.normpath(root.expanduser().absolute()))
        self.folders, self.level, self.follow_links = list(folders), level, follow_links
        self._top = os.path.realpath(self.root)
        self._ranked: dict[tuple[str, str], list[tuple[str, int]]] = {}
        self._below: dict[Path, tuple[str, str, str | None]] = {}
        self._checked: OrderedDict[str, UnusableError | None] = OrderedDict()
        self._real = lru_cache(maxsize=4096)(os.path.realpath)

    def find(self, names: str | Iterable[str], beside: Path, split: str = "", kind: str = "picture") -> str:
        """Return the path of a picture, or of another file that is not looked into.

        A path is looked for below the folder of the file that names it, then below the root, then in each folder of
        pictures: first those near to that file, of them those whose name has the split's.

        Args:
            names: path or file name; several where a set has spelled it in several ways.
            beside: file whose record it is.
            split: official split of the record.
            kind: "picture", or what the file is called in its place.

        Raises:
            UnusableError: no path, one that leaves the root, a missing picture, or one that cannot be read.
        """
        given = [names] if isinstance(names, str) else list(names)
        told = usual_split(split) if split else ""
        for name in given:
            found = self._find(name, beside, told)
            if found:
                if kind == "picture":
                    self._check(found)
                return found
        raise UnusableError(f"annotation without its {kind}", given[0] if given else "no name")

    def _find(self, name: str, beside: Path, split: str) -> str:
        for path in self._direct(name, beside):
            if self._is_there(path):
                return path
        parts = name.replace("\\", "/").split("/")
        if ".." in parts:
            return ""
        # "2.jpg" may be anybody's: of a path with folders the last one must agree, and short names must lie near.
        tails = ["/".join(parts[start:]) for start in range(max(len(parts) - 1, 1))]
        short = len(parts) == 1 and len(os.path.splitext(name)[0]) < _DISTINCT_LETTERS
        near = short and beside.is_relative_to(self.root)
        for folder, shared in self._ranks(beside, split):
            if near and shared < len(beside.parent.parts) - 1:
                break
            for tail in tails:
                path = os.path.join(folder, tail)
                if self._is_there(path):
                    return path
        return ""

    def _direct(self, name: str, beside: Path) -> Iterator[str]:
        """Yield where a path may lie: seen from the folder of the file that names it, and from the root."""
        root, folder, below = self._places(beside)
        if isinstance(name, str) and _PLAIN.fullmatch(name) and ".." not in name:
            if below is not None:
                yield f"{folder}/{name}"
            yield f"{root}/{name}"
            return
        if below is not None and isinstance(name, str) and not os.path.isabs(name):
            yield str(inside_root(self.root, os.path.join(below, name), "image"))
            if ".." in name:
                return
        yield str(inside_root(self.root, name, "image"))

    def _places(self, beside: Path) -> tuple[str, str, str | None]:
        """Return the root, the folder of a file, and its way from the root, None where it is not below."""
        found = self._below.get(beside)  # by the file, whose hash is known; its folder would be made and hashed anew
        if found is None:
            folder = beside.parent
            below = folder != self.root and folder.is_relative_to(self.root)
            way = str(folder.relative_to(self.root)) if below else None
            found = self._below[beside] = str(self.root), str(folder), way
        return found

    def _ranks(self, beside: Path, split: str) -> list[tuple[str, int]]:
        """Return the folders of pictures, the likeliest first, each with how much of its path it shares."""
        key = (str(beside.parent), split)
        if key not in self._ranked:
            rows = []
            for folder in self.folders:
                shared = len(Path(os.path.commonpath([folder, beside.parent])).parts)
                told = split_of_path(str(folder.relative_to(self.root)))
                rows.append((-shared, bool(split and told and told != split), str(folder)))
            self._ranked[key] = [(folder, -shared) for shared, _, folder in sorted(rows)]
        return self._ranked[key]

    def _is_there(self, path: str) -> bool:
        """Tell whether a file is there; one behind a link out of the root counts as unusable."""
        try:
            status = os.lstat(path)
            linked = stat.S_ISLNK(status.st_mode)
            if linked:
                status = os.stat(path)
        except (OSError, ValueError):
            return False
        if not stat.S_ISREG(status.st_mode):
            return False
        if not self.follow_links:
            real = os.path.realpath(path) if linked else self._real(os.path.dirname(path))
            if real != self._top and not real.startswith(self._top.rstrip(os.sep) + os.sep):
                raise UnusableError(
                    "link that leads out of the data root", f"{path} -> {real} (follow_links: true takes it)"
                )
        return True

    def _check(self, path: str) -> None:
        if self.level == "exists":
            return
        if path not in self._checked:
            try:
                _look(path, path, self.level)
                self._checked[path] = None
            except UnusableError as problem:
                self._checked[path] = problem
            while len(self._checked) > _REMEMBERED:
                self._checked.popitem(last=False)
        before = self._checked[path]
        if before is not None:
            raise UnusableError(before.reason, before.detail)

    def size(self, path: str) -> tuple[int, int]:
        """Return width and height of a picture as displayed.

        Raises:
            UnusableError: it cannot be read.
        """
        try:
            return picture_size(path, path)
        except DataError as error:
            raise UnusableError("picture cannot be read", f"{path}: {error.got or error.what}") from error

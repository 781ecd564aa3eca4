"""The pictures of a folder and its subfolders, by name."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from hfvla.data.walking import find_files
from hfvla.errors import DataError

__all__ = ["Picture", "list_pictures"]

_SUFFIXES = (".jpeg", ".jpg", ".png", ".webp", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class Picture:
    """One picture of a gallery.

    Attributes:
        id: its path inside the gallery, with forward slashes.
        path: of the file.
    """

    id: str
    path: str


def list_pictures(folder: str | Path) -> list[Picture]:
    """List the pictures of a folder and its subfolders, in the order of their ids; hidden ones are left out.

    Links are followed. What has a picture's name and is none (a link to nothing, a pipe) is listed too, so that it is
    counted when it cannot be read.

    Raises:
        DataError: no such folder, or no picture in it.
    """
    root = Path(folder).expanduser()
    if not os.path.isdir(root):
        raise DataError("no such folder", where="gallery", got=str(root), expected="a folder of pictures")
    walk = find_files(root, lambda name: name.lower().endswith(_SUFFIXES))
    walk.log(root)
    paths = [*walk.paths, *(path for path, _ in walk.lost)]
    found = [Picture(path.relative_to(root).as_posix(), str(path)) for path in paths]
    if not found:
        raise DataError("no picture in the gallery", where=str(root), expected=f"files *{', *'.join(_SUFFIXES)}")
    return sorted(found, key=lambda picture: picture.id)

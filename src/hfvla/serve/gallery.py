"""The pictures of a folder and its subfolders, by name."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

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

    Raises:
        DataError: no such folder, or no picture in it.
    """
    root = Path(folder).expanduser()
    if not root.is_dir():
        raise DataError("no such folder", where="gallery", got=str(root), expected="a folder of pictures")
    found = []
    for path in root.rglob("*"):
        inside = path.relative_to(root)
        hidden = any(part.startswith(".") for part in inside.parts)
        if not hidden and path.suffix.lower() in _SUFFIXES and path.is_file():
            found.append(Picture(inside.as_posix(), str(path)))
    if not found:
        raise DataError("no picture in the gallery", where=str(root), expected=f"files *{', *'.join(_SUFFIXES)}")
    return sorted(found, key=lambda picture: picture.id)

"""A sheet of found pictures: each with its place, score and id, below the text that was asked."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont, ImageOps

from hfvla.data.pictures import load_picture
from hfvla.errors import DataError
from hfvla.outputs import claim_file

__all__ = ["claim_sheet", "draw_sheet", "save_sheet"]

_TILE, _GAP, _LINE = 224, 12, 18
_COLUMNS = 5
_INK, _PAPER, _FRAME = (31, 41, 51), (255, 255, 255), (217, 222, 229)


def draw_sheet(title: str, pictures: Sequence[tuple[str, str]], columns: int = _COLUMNS) -> Image.Image:
    """Draw pictures in rows, each with a caption below.

    Args:
        title: above all of them.
        pictures: (file, caption) each, at least one.
        columns: pictures a row, at most.

    Raises:
        DataError: a picture cannot be read.
    """
    columns = min(columns, len(pictures))
    rows = -(-len(pictures) // columns)
    width = columns * (_TILE + _GAP) + _GAP
    lines = textwrap.wrap(title, max(20, width // 8)) or [""]
    head = _GAP + len(lines) * _LINE
    sheet = Image.new("RGB", (width, head + rows * (_TILE + 2 * _LINE + _GAP) + _GAP), _PAPER)
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(13)
    for number, line in enumerate(lines):
        pen.text((_GAP, _GAP + number * _LINE), line, fill=_INK, font=font)
    for number, (path, caption) in enumerate(pictures):
        left = _GAP + number % columns * (_TILE + _GAP)
        top = head + _GAP + number // columns * (_TILE + 2 * _LINE + _GAP)
        shown = _opened(path)
        sheet.paste(shown, (left + (_TILE - shown.width) // 2, top + (_TILE - shown.height) // 2))
        pen.rectangle((left - 1, top - 1, left + _TILE, top + _TILE), outline=_FRAME)
        pen.text((left, top + _TILE + 3), textwrap.shorten(caption, 34, placeholder="..."), fill=_INK, font=font)
    return sheet


def claim_sheet(path: str | Path, overwrite: bool = False) -> None:
    """Check that a sheet can be written, before the search whose result it shows.

    Raises:
        DataError: no such format, a file that is there and may not be replaced, or it cannot be written.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in Image.registered_extensions() or Image.registered_extensions()[suffix] not in Image.SAVE:
        raise DataError("no such format of pictures", where=str(path), got=suffix, expected="for example .png or .jpg")
    claim_file(path, overwrite, "--sheet", error=DataError)


def save_sheet(sheet: Image.Image, path: str | Path) -> None:
    """Write a sheet; the suffix says in which format.

    Raises:
        DataError: no such format, or the file cannot be written.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        sheet.save(path)
    except (OSError, ValueError) as error:
        raise DataError("the contact sheet cannot be written", where=str(path), got=str(error)) from error


def _opened(path: str) -> Image.Image:
    return ImageOps.contain(load_picture(path, path), (_TILE, _TILE))

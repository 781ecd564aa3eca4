"""The one way to read a picture: RGB as a viewer shows it, or an error that names it.

Every reader and processor comes through here, so that a picture is the same in training, evaluation and prediction:

- kinds: `PICTURE_KINDS` and no other (a PostScript file would be run); of an animation or a multi-page file the first
  picture; at most `MAX_PIXELS`;
- orientation: turned and mirrored as its EXIF or XMP entry says, so boxes and questions refer to what is displayed;
- colours: grey, palette and CMYK become RGB; colour profiles are not applied;
- transparency: laid on white, so that colours hidden under it do not show;
- depth: 16 bits a channel are scaled to 8 (65535 becomes 255); floats within 0..1 are scaled by 255. Other floats, and
  32-bit integers, tell no range and are refused: nobody can know what is white.
"""

from __future__ import annotations

import base64
import io
import os
import stat
import struct
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, UnidentifiedImageError

from hfvla.errors import DataError

__all__ = [
    "MAX_PIXELS",
    "PICTURE_ERRORS",
    "PICTURE_KINDS",
    "check_picture",
    "data_uri",
    "load_picture",
    "picture_size",
    "read_picture",
]

MAX_PIXELS = 1 << 27
"""Of one picture: 134 megapixels, 403 MB as RGB. A few kilobytes of PNG can unfold to gigabytes."""

PICTURE_KINDS = ("JPEG", "PNG", "WEBP", "AVIF", "TIFF", "BMP", "DIB", "GIF", "JPEG2000", "PPM")
"""Formats by Pillow's names (JPEG takes in MPO, as phones write it); AVIF where Pillow has it."""

PICTURE_ERRORS: tuple[type[BaseException], ...] = (
    OSError,
    SyntaxError,
    ValueError,
    RuntimeError,
    TypeError,
    LookupError,
    ArithmeticError,
    AttributeError,
    EOFError,
    MemoryError,
    struct.error,
    zlib.error,
    Image.DecompressionBombError,
    Warning,  # where warnings are made errors
)
"""All that Pillow raises on damaged files: its decoders share no base class."""

_THUMBNAIL_PIXELS = 256
_UNREADABLE = "picture cannot be read"
_WITHOUT_RANGE = "picture whose values tell no range"
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_THEIR_SIDE = (5, 6, 7, 8)
_EXIF_ORIENTATION = 0x0112


def load_picture(source: Any, where: str = "picture", *, draft_side: int | None = None) -> Image.Image:
    """Decode a whole picture by the rules of this module.

    Args:
        source: path, encoded bytes, or a PIL image.
        where: names the picture in errors.
        draft_side: a JPEG may be decoded at a smaller scale, with sides of at least as many pixels, which is faster.

    Returns:
        `PIL.Image.Image` in RGB; nothing of the file stays open.

    Raises:
        DataError: missing, no regular file, of another kind, too large, truncated or damaged, or values that tell no
            range.
    """
    try:
        if isinstance(source, Image.Image):
            return _as_rgb(source, where)
        with _opened(source, where) as picture:
            if draft_side is not None:
                picture.draft("RGB", (draft_side, draft_side))
            return _as_rgb(picture, where)
    except PICTURE_ERRORS as error:
        raise _unreadable(error, where) from error


def read_picture(source: str | os.PathLike[str] | bytes | Image.Image, where: str) -> np.ndarray:
    """Decode a whole picture as [H, W, 3] uint8 RGB; see `load_picture`.

    Raises:
        DataError: see `load_picture`.
    """
    return np.asarray(load_picture(source, where))


def check_picture(source: str | os.PathLike[str] | bytes, where: str) -> None:
    """Look at a picture as far as its header; pixels are decoded only where they must tell a range.

    Raises:
        DataError: see `load_picture`; damage behind the header shows when the picture is read.
    """
    try:
        with _opened(source, where) as picture:
            if picture.mode in ("F", "I"):
                _as_rgb(picture, where)
    except PICTURE_ERRORS as error:
        raise _unreadable(error, where) from error


def picture_size(source: str | os.PathLike[str] | bytes, where: str) -> tuple[int, int]:
    """Return width and height of a picture as it is displayed, from its header.

    Raises:
        DataError: see `check_picture`.
    """
    try:
        with _opened(source, where) as picture:
            width, height = picture.size
            return (height, width) if _orientation(picture) in _ON_THEIR_SIDE else (width, height)
    except PICTURE_ERRORS as error:
        raise _unreadable(error, where) from error


@lru_cache(maxsize=1)
def _kinds() -> tuple[str, ...]:
    Image.init()
    return tuple(kind for kind in PICTURE_KINDS if kind in Image.OPEN)


def _opened(source: Any, where: str) -> Image.Image:
    if isinstance(source, bytes):
        picture = Image.open(io.BytesIO(source), formats=_kinds())
    else:
        if not stat.S_ISREG(os.stat(source).st_mode):  # a pipe would wait for ever, a device never end
            raise DataError(_UNREADABLE, where=where, got="not a regular file", expected="a picture file")
        picture = Image.open(Path(source), formats=_kinds())
    if picture.width * picture.height > MAX_PIXELS:
        got = f"{picture.width} x {picture.height} pixels"
        picture.close()
        raise DataError(
            "picture is too large",
            where=where,
            got=got,
            expected=f"at most {MAX_PIXELS / 1e6:.0f} megapixels",
            fix="Scale it down.",
        )
    return picture


def _as_rgb(picture: Image.Image, where: str) -> Image.Image:
    kind = picture.format  # a converted picture no longer knows it
    picture.load()
    turn = _TURNS.get(_orientation(picture))
    if picture.mode.startswith("I;16") or (picture.mode == "I" and kind in ("PNG", "PPM")):
        picture = _from_sixteen_bits(picture)
    elif picture.mode == "F":
        picture = _from_floats(picture, where)
    elif picture.mode == "I":
        raise DataError(
            _WITHOUT_RANGE, where=where, got="32-bit integers", expected="8 or 16 bits a channel", fix="Convert it."
        )
    elif picture.has_transparency_data:
        shown = picture.convert("RGBA")
        picture = Image.alpha_composite(Image.new("RGBA", shown.size, "white"), shown)
    if (
        picture.mode != "RGB" or kind is None
    ):  # a file's own picture need not be copied; the caller's must not be given
        picture = picture.convert("RGB")
    return picture if turn is None else picture.transpose(turn)


def _orientation(picture: Image.Image) -> int:
    """Return what EXIF or XMP says, 1 (upright) where they say nothing that can be read, as viewers take it."""
    try:
        found = picture.getexif().get(_EXIF_ORIENTATION, 1)
    except PICTURE_ERRORS:
        return 1
    return found if isinstance(found, int) else 1


def _from_sixteen_bits(picture: Image.Image) -> Image.Image:
    values = np.asarray(picture).astype(np.int64)
    scaled = ((values.clip(0, 65535) * 255 + 32767) // 65535).astype(np.uint8)
    hidden = picture.info.get("transparency")
    if isinstance(hidden, int):
        scaled[values == hidden] = 255
    return Image.fromarray(scaled)


def _from_floats(picture: Image.Image, where: str) -> Image.Image:
    values = np.asarray(picture)
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if not (low >= 0.0 and high <= 1.0):  # NaN is neither
        raise DataError(
            _WITHOUT_RANGE,
            where=where,
            got=f"floats from {low:g} to {high:g}",
            expected="floats within 0..1",
            fix="Scale the values, or save 8 or 16 bits a channel.",
        )
    return Image.fromarray(np.rint(values * 255.0).astype(np.uint8))


def _unreadable(error: BaseException, where: str) -> DataError:
    if isinstance(error, UnidentifiedImageError):
        got = f"no picture of a kind that is read ({', '.join(_kinds())})"
    else:
        got = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return DataError(_UNREADABLE, where=where, got=got)


def data_uri(pixels: np.ndarray) -> str:
    """Return a small JPEG of a picture, [H, W, 3] uint8, as a data URI of at most 256 pixels a side."""
    picture = Image.fromarray(pixels)
    picture.thumbnail((_THUMBNAIL_PIXELS, _THUMBNAIL_PIXELS))
    buffer = io.BytesIO()
    picture.save(buffer, format="JPEG", quality=80)
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

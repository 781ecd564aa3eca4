"""MessagePack with arrays and JPEG pictures, and nothing else: no pickle, no object, no type from the wire.

An array travels as extension type 1: a MessagePack list of its type, shape and bytes. The type must be one of
`DTYPES`, and the bytes must be exactly as many as type and shape say. A JPEG picture is extension type 2; its size is
read from its header, and all of a message's are summed, before one is decoded.
"""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hfvla.data.pictures import PICTURE_ERRORS
from hfvla.errors import MissingExtraError
from hfvla.serve.policy.errors import ProtocolError

__all__ = ["DTYPES", "Jpeg", "load_msgpack", "pack", "short", "unpack"]

DTYPES = ("|b1", "|u1", "<i4", "<i8", "<f4", "<f8")
"""Types of arrays that travel, as NumPy writes them; little-endian on every machine."""

_ARRAY, _JPEG = 1, 2
_MAX_DIMENSIONS = 4
_MAX_PIXELS = 16_000_000
_MAX_PICTURES = 64
_MAX_SCANS = 64  # of a progressive JPEG: each is a pass over all pixels, and takes a few bytes
_MAX_ITEMS = 10_000  # of a list or mapping: numbers travel as arrays
_MAX_ALL_ITEMS = 20_000  # of all of them together: an empty mapping is one byte on the wire and 64 in memory
_MAX_TYPE_LETTERS = 32


class Jpeg:
    """A picture to be sent as JPEG.

    Args:
        picture: [H, W, 3] uint8 RGB.
        quality: 1 to 100; the pictures a policy was trained on were hardly below 90.
    """

    def __init__(self, picture: np.ndarray, quality: int) -> None:
        self.picture, self.quality = picture, quality

    def encode(self) -> bytes:
        """Return the file's bytes."""
        from PIL import Image

        file = io.BytesIO()
        Image.fromarray(self.picture).save(file, format="JPEG", quality=self.quality)
        return file.getvalue()


def load_msgpack() -> Any:
    """Import MessagePack.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import msgpack
    except ImportError:
        raise MissingExtraError("msgpack", "serve", "a policy on another machine") from None
    return msgpack


def pack(message: Any) -> bytes:
    """Return a message of plain values, arrays of `DTYPES` and `Jpeg` pictures as bytes.

    Raises:
        ProtocolError: a value of another type.
    """
    msgpack = load_msgpack()

    def encode(value: Any) -> Any:
        if isinstance(value, Jpeg):
            return msgpack.ExtType(_JPEG, value.encode())
        if isinstance(value, np.generic):
            return value.item()
        if isinstance(value, np.ndarray):
            array = np.ascontiguousarray(value, dtype=value.dtype.newbyteorder("<"))
            if array.dtype.str not in DTYPES:
                raise ProtocolError("type of an array to send", got=array.dtype.str, expected=", ".join(DTYPES))
            return msgpack.ExtType(_ARRAY, msgpack.packb([array.dtype.str, list(value.shape), array.data.cast("B")
                                                          if array.size else b""]))  # fmt: skip
        raise ProtocolError("type of a value to send", got=type(value).__name__, expected="plain values and arrays")

    return msgpack.packb(message, default=encode)


@dataclass(frozen=True)
class _Encoded:
    """A JPEG file whose size is known."""

    content: bytes


class _Counted:
    """The hooks of one message: they build its parts, and count them.

    Args:
        pictures: most JPEG pictures.
        pixels: most pixels of all of them.
    """

    def __init__(self, pictures: int, pixels: int) -> None:
        self.pictures, self.pixels, self.left = pictures, pixels, pixels
        self.items, self.seen = 0, 0

    def extension(self, code: int, content: bytes) -> Any:
        """Return an array, or a picture that is decoded later."""
        if code == _ARRAY:
            limits = {"max_array_len": _MAX_DIMENSIONS, "max_map_len": 0}
            return _array(load_msgpack().unpackb(content, **limits))
        if code != _JPEG:
            raise ProtocolError("extension type of a message", got=code, expected=f"{_ARRAY} or {_JPEG}")
        self.seen += 1
        if self.seen > self.pictures:
            raise ProtocolError("JPEG pictures in a message", got=self.seen, expected=f"at most {self.pictures}")
        self.left = _picture_size(content, self.left, self.pixels)
        return _Encoded(content)

    def list(self, items: list[Any]) -> list[Any]:
        """Count a list."""
        self._count(len(items))
        return items

    def mapping(self, pairs: Sequence[tuple[Any, Any]]) -> dict[Any, Any]:
        """Count a mapping."""
        self._count(len(pairs))
        return dict(pairs)

    def _count(self, items: int) -> None:
        self.items += items + 1
        if self.items > _MAX_ALL_ITEMS:
            expected = f"at most {_MAX_ALL_ITEMS}"
            raise ProtocolError("values in a message", got=f"{self.items} so far", expected=expected)


def unpack(data: bytes | str, *, pictures: int | None = None, pixels: int | None = None) -> dict[str, Any]:
    """Return the message in bytes from the wire; arrays and pictures are checked copies.

    Args:
        data: a message.
        pictures: most JPEG pictures in it; 64 when None.
        pixels: most pixels of all of them together; 16 million when None.

    Raises:
        ProtocolError: not MessagePack, not a mapping with a "type", an array or picture that is not what it says, or
            more than is allowed.
    """
    msgpack = load_msgpack()
    if isinstance(data, str):
        raise ProtocolError("message", got="text", expected="MessagePack bytes")
    hooks = _Counted(_MAX_PICTURES if pictures is None else pictures, _MAX_PIXELS if pixels is None else pixels)
    try:
        message = msgpack.unpackb(
            data, ext_hook=hooks.extension, list_hook=hooks.list, object_pairs_hook=hooks.mapping,
            max_array_len=_MAX_ITEMS, max_map_len=_MAX_ITEMS,
        )  # fmt: skip
    except ProtocolError:
        raise
    except Exception as error:  # msgpack has no common base for what bytes can do to it
        got = f"{len(data)} bytes: {type(error).__name__}: {error}"
        raise ProtocolError("message", got=got, expected="MessagePack") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ProtocolError("message", got=type(message).__name__, expected="a mapping with a 'type'")
    if len(message["type"]) > _MAX_TYPE_LETTERS:
        raise ProtocolError("type of a message", got=f"{len(message['type'])} letters", expected="a short word")
    try:
        return _decoded(message)  # all sizes are known by now, and are within the limits
    except RecursionError:
        raise ProtocolError("message", got="lists in lists in lists", expected="a flat one") from None


def _decoded(value: Any) -> Any:
    """Decode the pictures of a message."""
    if isinstance(value, _Encoded):
        return _picture(value.content)
    if isinstance(value, dict):
        return {key: _decoded(entry) for key, entry in value.items()}
    return [_decoded(entry) for entry in value] if isinstance(value, list) else value


def short(value: Any) -> Any:
    """Return a value that came from the wire, or where it is long the beginning of how it is written."""
    text = repr(value)
    return value if len(text) <= 100 else f"{text[:100]}..."


def _array(parts: Any) -> np.ndarray:
    if not isinstance(parts, list) or len(parts) != 3 or not isinstance(parts[2], bytes):
        raise ProtocolError("array in a message", got=type(parts).__name__, expected="[type, shape, bytes]")
    kind, shape, content = parts
    if kind not in DTYPES:
        raise ProtocolError("type of an array in a message", got=short(kind), expected=", ".join(DTYPES))
    sizes_ok = isinstance(shape, list) and len(shape) <= _MAX_DIMENSIONS
    if not sizes_ok or not all(type(size) is int and size >= 0 for size in shape):
        got, expected = short(shape), f"up to {_MAX_DIMENSIONS} sizes"
        raise ProtocolError("shape of an array in a message", got=got, expected=expected)
    wanted = math.prod(shape) * np.dtype(kind).itemsize
    if len(content) != wanted:
        raise ProtocolError(f"bytes of a {kind} array {shape}", got=len(content), expected=wanted)
    return np.frombuffer(content, dtype=kind).reshape(shape).copy()


def _picture_size(content: bytes, left: int, allowed: int) -> int:
    """Return how many pixels are left after a picture, by its header.

    Raises:
        ProtocolError: not a JPEG file, too many pixels, or too many scans.
    """
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as file:
            width, height = file.size
    except PICTURE_ERRORS as error:
        raise ProtocolError("JPEG picture in a message", got=str(error), expected="a whole JPEG file") from None
    if width * height > left:
        got = f"{width} x {height}" + ("" if left == allowed else f" after {allowed - left} pixels of others")
        raise ProtocolError("size of a JPEG picture", got=got, expected=f"at most {allowed} pixels")
    scans = content.count(b"\xff\xda")
    if scans > _MAX_SCANS:
        raise ProtocolError("scans of a JPEG picture", got=scans, expected=f"at most {_MAX_SCANS}")
    return left - width * height


def _picture(content: bytes) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as file:
            return np.array(file.convert("RGB"))
    except PICTURE_ERRORS as error:
        raise ProtocolError("JPEG picture in a message", got=str(error), expected="a whole JPEG file") from None

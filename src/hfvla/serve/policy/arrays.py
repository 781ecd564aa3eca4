"""MessagePack with arrays and JPEG pictures, and nothing else: no pickle, no object, no type from the wire.

An array travels as extension type 1: a MessagePack list of its type, shape and bytes. The type must be one of
`DTYPES`, and the bytes must be exactly as many as type and shape say. A JPEG picture is extension type 2.
"""

from __future__ import annotations

import io
import math
from typing import Any

import numpy as np

from hfvla.errors import MissingExtraError
from hfvla.serve.policy.errors import ProtocolError

__all__ = ["DTYPES", "Jpeg", "load_msgpack", "pack", "unpack"]

DTYPES = ("|b1", "|u1", "<i4", "<i8", "<f4", "<f8")
"""Types of arrays that travel, as NumPy writes them; little-endian on every machine."""

_ARRAY, _JPEG = 1, 2
_MAX_DIMENSIONS = 4
_MAX_PIXELS = 16_000_000
_MAX_ITEMS = 10_000  # of a list or mapping: numbers travel as arrays


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


def unpack(data: bytes | str) -> dict[str, Any]:
    """Return the message in bytes from the wire; arrays and pictures are checked copies.

    Raises:
        ProtocolError: not MessagePack, not a mapping with a "type", or an array or picture that is not what it says.
    """
    msgpack = load_msgpack()
    if isinstance(data, str):
        raise ProtocolError("message", got="text", expected="MessagePack bytes")

    def decode(code: int, content: bytes) -> Any:
        if code == _ARRAY:
            return _array(msgpack.unpackb(content, max_array_len=_MAX_DIMENSIONS, max_map_len=0))
        if code == _JPEG:
            return _picture(content)
        raise ProtocolError("extension type of a message", got=code, expected=f"{_ARRAY} or {_JPEG}")

    try:
        message = msgpack.unpackb(data, ext_hook=decode, max_array_len=_MAX_ITEMS, max_map_len=_MAX_ITEMS)
    except ProtocolError:
        raise
    except Exception as error:  # msgpack has no common base for what bytes can do to it
        got = f"{len(data)} bytes: {type(error).__name__}: {error}"
        raise ProtocolError("message", got=got, expected="MessagePack") from None
    if not isinstance(message, dict) or not isinstance(message.get("type"), str):
        raise ProtocolError("message", got=type(message).__name__, expected="a mapping with a 'type'")
    return message


def _array(parts: Any) -> np.ndarray:
    if not isinstance(parts, list) or len(parts) != 3 or not isinstance(parts[2], bytes):
        raise ProtocolError("array in a message", got=type(parts).__name__, expected="[type, shape, bytes]")
    kind, shape, content = parts
    if kind not in DTYPES:
        raise ProtocolError("type of an array in a message", got=kind, expected=", ".join(DTYPES))
    sizes_ok = isinstance(shape, list) and len(shape) <= _MAX_DIMENSIONS
    if not sizes_ok or not all(type(size) is int and size >= 0 for size in shape):
        raise ProtocolError("shape of an array in a message", got=shape, expected=f"up to {_MAX_DIMENSIONS} sizes")
    expected = math.prod(shape) * np.dtype(kind).itemsize
    if len(content) != expected:
        raise ProtocolError(f"bytes of a {kind} array {shape}", got=len(content), expected=expected)
    return np.frombuffer(content, dtype=kind).reshape(shape).copy()


def _picture(content: bytes) -> np.ndarray:
    from PIL import Image

    try:
        with Image.open(io.BytesIO(content), formats=["JPEG"]) as file:
            if file.width * file.height > _MAX_PIXELS:
                got = f"{file.width} x {file.height}"
                raise ProtocolError("size of a JPEG picture", got=got, expected=f"at most {_MAX_PIXELS} pixels")
            return np.array(file.convert("RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise ProtocolError("JPEG picture in a message", got=str(error), expected="a whole JPEG file") from None

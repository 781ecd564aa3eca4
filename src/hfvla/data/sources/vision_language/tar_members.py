"""The files of a tar by name, offset and size, a header at a time.

`tarfile` makes an object of a dozen fields of each header, which takes longer than all else done with a caption
and its picture. Formats: ustar, GNU and POSIX (pax), with long names. What it would refuse is refused here: a broken
checksum, an archive that is cut short.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator
from typing import IO, NamedTuple

__all__ = ["TarMember", "iterate_members"]

_BLOCK = 512
_REGULAR = (b"0", b"\0", b"7")
_LARGEST_NAME = 1 << 20


class TarMember(NamedTuple):
    """A regular file of an archive.

    Attributes:
        name: its path.
        offset: of its first byte.
        size: in bytes.
    """

    name: str
    offset: int
    size: int


def iterate_members(file: IO[bytes]) -> Iterator[TarMember]:
    """Yield the regular files of a tar in their order.

    Args:
        file: that can be sought in; its place may be changed between members.

    Raises:
        tarfile.ReadError: no tar, or one that is damaged or cut short.
    """
    whole = file.seek(0, 2)
    at, name, size = 0, "", None  # name and size as a header before the next one says
    while True:
        file.seek(at)
        block = file.read(_BLOCK)
        if at == whole or block.count(0) == _BLOCK:
            return
        if len(block) < _BLOCK or at > whole:
            raise tarfile.ReadError("unexpected end of data")
        if _octal(block[148:156]) != sum(block) - sum(block[148:156]) + 8 * 32:
            raise tarfile.ReadError(f"bad checksum at byte {at}")
        kind, length = block[156:157], _octal(block[124:136])
        length = length if size is None else size
        data, at = at + _BLOCK, at + _BLOCK * (1 + -(-length // _BLOCK))
        if data + length > whole:
            raise tarfile.ReadError("unexpected end of data")
        if kind in (b"L", b"x"):
            if length > _LARGEST_NAME:
                raise tarfile.ReadError(f"a name of {length} bytes")
            told = file.read(length)
            name, size = (_text(told), None) if kind == b"L" else _pax(told, name)
            continue
        if kind in (b"g", b"K"):
            continue
        if kind in _REGULAR:
            found = name or _own_name(block)
            if not found.endswith("/"):
                yield TarMember(found, data, length)
        name, size = "", None


def _own_name(block: bytes) -> str:
    name = _text(block[:100])
    prefix = _text(block[345:500]) if block[257:263] == b"ustar\0" else ""
    return f"{prefix}/{name}" if prefix else name


def _text(value: bytes) -> str:
    return value.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _octal(value: bytes) -> int:
    """Return a number of a header: octal digits, or GNU's binary form of large ones."""
    if value[0] & 0x80:
        return int.from_bytes(value, "big") & ((1 << (8 * len(value) - 1)) - 1)
    digits = value.strip(b"\0 ")
    try:
        return int(digits, 8) if digits else 0
    except ValueError as error:
        raise tarfile.ReadError(f"a header that is none: {value!r}") from error


def _pax(records: bytes, name: str) -> tuple[str, int | None]:
    """Return name and size that a POSIX header gives to the next file."""
    size = None
    while records:
        length, _, _ = records.partition(b" ")
        if not length.isdigit() or not 0 < int(length) <= len(records):
            raise tarfile.ReadError("a POSIX header that is none")
        key, _, value = records[len(length) + 1 : int(length) - 1].partition(b"=")
        if key == b"path":
            name = _text(value)
        elif key == b"size" and value.isdigit():
            size = int(value)
        records = records[int(length) :]
    return name, size

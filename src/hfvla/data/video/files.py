"""Is a file there, and whole? Asked before any decoder sees it, so that every backend gives the same answer."""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from hfvla.errors import DataError

__all__ = ["FileIdentity", "check_video_file", "truncated"]

_MP4_FIRST_BOXES = {b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp", b"moof"}
_MP4_NEEDED_BOXES = {b"moov", b"mdat", b"moof"}


@dataclass(frozen=True)
class FileIdentity:
    """A file's content as far as its folder entry tells: what caches are keyed by."""

    path: str
    modified_ns: int
    size: int


def truncated(where: str, got: str, expected: str) -> DataError:
    """Build the one error for a recording that was cut off."""
    return DataError(
        "the video is truncated", where=where, got=got, expected=expected, fix="Copy or record the file again."
    )


def check_video_file(path: str | os.PathLike[str]) -> FileIdentity:
    """Check that a file exists, holds bytes and, for MP4 and MOV, is as long as its boxes say.

    Raises:
        DataError: missing, a folder, unreadable, empty, or truncated.
    """
    where = os.fspath(path)
    try:
        status = os.stat(path)
    except (OSError, ValueError) as error:  # ValueError: a name that no file can have
        got = getattr(error, "strerror", None) or str(error)
        raise DataError("video file cannot be read", where=where[:4096], got=got, fix="Check the path.") from error
    if not stat.S_ISREG(status.st_mode):  # a pipe would wait for ever
        got = "a folder" if stat.S_ISDIR(status.st_mode) else "no regular file"
        raise DataError("not a video file", where=where, got=got, expected="a file", fix="Check the path.")
    if status.st_size == 0:
        raise DataError(
            "video file is empty", where=where, got="0 bytes", expected="a video", fix="Copy the file again."
        )
    try:
        with open(path, "rb") as file:
            _check_boxes(file, status.st_size, where)
    except OSError as error:
        raise DataError("video file cannot be read", where=where, got=error.strerror) from error
    return FileIdentity(os.path.abspath(path), status.st_mtime_ns, status.st_size)


def _boxes(file: BinaryIO, file_size: int) -> Iterator[tuple[bytes, int]]:
    """Yield (type, end) of the top-level boxes of an ISO base media file (ISO/IEC 14496-12, section 4.2)."""
    start = 0
    while start + 8 <= file_size:
        file.seek(start)
        head = file.read(16)
        size, kind = struct.unpack(">I4s", head[:8])
        if size == 1 and len(head) == 16:
            size = struct.unpack(">Q", head[8:])[0]
        elif size == 0:
            size = file_size - start
        if size < 8:
            return
        yield kind, start + size
        start += size


def _check_boxes(file: BinaryIO, file_size: int, where: str) -> None:
    kinds: set[bytes] = set()
    for kind, end in _boxes(file, file_size):
        if not kinds and kind not in _MP4_FIRST_BOXES:
            return  # another kind of container, or no video at all: the decoder says
        kinds.add(kind)
        if end > file_size and kind in _MP4_NEEDED_BOXES:
            raise truncated(where, f"{file_size} bytes", f"{end} bytes (box '{kind.decode()}')")
    if kinds and b"moov" not in kinds:
        raise truncated(where, "no 'moov' box", "the index that a recorder writes last")

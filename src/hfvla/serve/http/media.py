"""Pictures and clips out of requests: looked at before they are decoded, counted while they are held."""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hfvla.data.pictures import load_picture, picture_size
from hfvla.serve.http.errors import RequestError
from hfvla.serve.http.guard import Budget
from hfvla.serve.http.limits import HttpLimits

__all__ = ["Held", "Media", "from_base64"]

_DATA_URI = re.compile(r"data:[\w.+/-]*(;[\w=.+-]+)*;base64,", re.ASCII)
_MAX_SCANS = 64  # of a progressive JPEG: each is a pass over all pixels, and takes a few bytes
_DECODERS = max(2, min(8, (os.cpu_count() or 2) // 2))


def from_base64(text: str, where: str) -> bytes:
    """Return the bytes of a text in base64, or of a data URI.

    Raises:
        RequestError: it is neither; an address is not fetched.
    """
    if text[:5].lower() == "data:":
        match = _DATA_URI.match(text[:200])
        if match is None:
            raise RequestError(
                "a data URI in another form", where=where, got=text[:60], expected="data:...;base64,..."
            )
        text = text[match.end() :]
    elif "://" in text[:20]:
        raise RequestError("addresses are not fetched", where=where, got=text[:60], expected="base64, or a data URI")
    try:
        found = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise RequestError("not base64", where=where, got=f"{text[:40]!r}", expected="base64, or a data URI") from None
    if not found:
        raise RequestError("an empty file", where=where)
    return found


class Held:
    """What one request holds until it is answered: decoded pixels, and files of clips."""

    def __init__(self, budget: Budget) -> None:
        self._budget, self.pixels, self.pictures = budget, 0, 0
        self.files: list[Path] = []

    def release(self) -> None:
        """Give all of it back."""
        self._budget.give_back(self.pixels)
        self.pixels = 0
        for file in self.files:
            with contextlib.suppress(OSError):
                file.unlink()
        self.files.clear()


class Media:
    """Decodes pictures in threads of its own, so that the server answers meanwhile, and keeps clips in files.

    Args:
        limits: see there.
    """

    def __init__(self, limits: HttpLimits) -> None:
        self._limits = limits
        self._budget = Budget("pixels", limits.all_pixels)
        self._pool = ThreadPoolExecutor(_DECODERS, thread_name_prefix="hfvla-pictures")
        self._folder = tempfile.TemporaryDirectory(prefix="hfvla-serve-")

    def hold(self) -> Held:
        """Return an empty holder for one request."""
        return Held(self._budget)

    def close(self) -> None:
        """End the threads and delete the files."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._folder.cleanup()

    async def picture(self, content: bytes, where: str, held: Held) -> Any:
        """Return a picture as `hfvla.data.pictures` reads it.

        Raises:
            RequestError: too many or too large pictures in this request.
            BusyError: too large pictures in all of them.
            DataError: it cannot be read.
        """
        held.pictures += 1
        if held.pictures > self._limits.pictures:
            raise RequestError(
                "too many pictures", status=413, got=held.pictures, expected=f"at most {self._limits.pictures}"
            )
        loop = asyncio.get_running_loop()
        width, height = await loop.run_in_executor(self._pool, picture_size, content, where)
        if held.pixels + width * height > self._limits.pixels:
            before = f" after {held.pixels} pixels of others" if held.pixels else ""
            raise RequestError(
                "the picture is too large", status=413, where=where, got=f"{width} x {height} pixels{before}",
                expected=f"at most {self._limits.pixels} pixels", fix="Scale it down.",
            )  # fmt: skip
        if content[:2] == b"\xff\xd8" and content.count(b"\xff\xda") > _MAX_SCANS:
            raise RequestError("scans of a JPEG picture", where=where, expected=f"at most {_MAX_SCANS}")
        self._budget.take(width * height)
        held.pixels += width * height
        return await loop.run_in_executor(self._pool, load_picture, content, where)

    async def clip(self, content: bytes, held: Held) -> str:
        """Return the path of a file with a clip, which is deleted after the answer."""

        def write() -> Path:
            handle, name = tempfile.mkstemp(dir=self._folder.name, suffix=".clip")
            with os.fdopen(handle, "wb") as file:
                file.write(content)
            return Path(name)

        path = await asyncio.get_running_loop().run_in_executor(self._pool, write)
        held.files.append(path)
        return str(path)

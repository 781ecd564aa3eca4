"""Paths that data files name: they stay inside a root folder, whatever the files say."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hfvla.data.sources.census import UnusableError
from hfvla.data.text import text_problem

__all__ = ["inside_root"]

_SHOWN = 200


def inside_root(root: Path, value: Any, kind: str) -> Path:
    """Return the file that a record's path names.

    A path counts as outside by its text, not by where links lead: a data root may link to another disk. Where no file
    has the path's very spelling, a file of its other Unicode form is taken (names from macOS are decomposed), and
    backslashes are taken as slashes (names from Windows).

    Args:
        root: folder that the path is relative to.
        value: as the record has it.
        kind: "image" or "video", for reasons.

    Returns:
        path under the root; it may not exist.

    Raises:
        UnusableError: no path, one that leaves the root, or one that no file can have.
    """
    if not isinstance(value, str) or not value.strip():
        raise UnusableError(f"no {kind} path", f"got {value!r}")
    problem = text_problem(value)
    if problem:
        raise UnusableError(f"no such {kind} path", f"{value[:_SHOWN]!r}: {problem}")
    shown = value if len(value) <= _SHOWN else f"{value[:_SHOWN]}... ({len(value)} letters)"
    top = os.path.normpath(root.expanduser().absolute())
    found = None
    for spelling in _spellings(value):
        path = Path(os.path.normpath(os.path.join(top, spelling)))
        if not path.is_relative_to(top):
            raise UnusableError(f"{kind} path outside the data root", f"{shown!r} (root {root})")
        try:
            there = path.exists()
        except (OSError, ValueError) as error:
            got = getattr(error, "strerror", None) or str(error)
            raise UnusableError(f"no such {kind} path", f"{shown!r}: {got}") from error
        found = path if found is None or there else found
        if there:
            break
    return found or Path(top)


def _spellings(value: str) -> Iterator[str]:
    seen = set()
    for slashes in (value, value.replace("\\", "/")):
        for spelling in (slashes, *(unicodedata.normalize(form, slashes) for form in ("NFC", "NFD"))):
            if spelling not in seen:
                seen.add(spelling)
                yield spelling

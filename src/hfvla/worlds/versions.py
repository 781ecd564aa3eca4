"""Versions of generators, so that what is kept of them never outlives the code that made it."""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path

__all__ = ["source_version"]


@cache
def source_version(file: str) -> str:
    """Return a digest (16 hexadecimal digits) of the modules beside a module, itself included.

    Args:
        file: `__file__` of a generator's module.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(file).parent.glob("*.py")):
        digest.update(path.name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]

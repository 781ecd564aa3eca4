"""One run at a time in a folder: a launcher that is killed may leave its processes behind, and they go on writing."""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import IO

from hfvla.errors import RecipeError

try:
    import fcntl
except ImportError:  # not on Windows
    fcntl = None  # type: ignore[assignment]

__all__ = ["FolderLock"]

logger = logging.getLogger(__name__)

_PATIENCE_S = 20.0  # data loader workers of a killed process notice after five


class FolderLock:
    """Keeps other runs out of a folder until it is released or its process ends, however it ends.

    Args:
        folder: an existing folder; `.lock` in it is held.
        patience_s: how long to wait for another run to end.
    """

    def __init__(self, folder: Path, patience_s: float = _PATIENCE_S) -> None:
        self.path, self.patience_s = folder / ".lock", patience_s
        self._file: IO[str] | None = None

    def acquire(self) -> None:
        """Take the lock.

        Raises:
            RecipeError: another run holds it; names its process.
        """
        deadline = time.monotonic() + self.patience_s
        while not self._try():
            if time.monotonic() > deadline:
                owner = self.path.read_text(encoding="utf-8") if self.path.is_file() else ""
                raise RecipeError(
                    "another run is still writing here",
                    where=str(self.path.parent),
                    got=owner or "an unknown process",
                    fix="Wait until it has ended, or end it. Processes can outlive a launcher that was killed.",
                )
            time.sleep(0.2)

    def release(self) -> None:
        """Let others in."""
        if self._file is not None:
            self.path.unlink(missing_ok=True)
            self._file.close()
            self._file = None

    def _try(self) -> bool:
        file = self.path.open("a+", encoding="utf-8")
        try:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return False
        except OSError as error:  # some network file systems
            logger.warning("%s cannot be locked (%s); start no second run there", self.path.parent, error)
        if not self.path.is_file() or os.fstat(file.fileno()).st_ino != self.path.stat().st_ino:
            file.close()  # released, and so deleted, between opening and locking
            return False
        file.seek(0)
        file.truncate()
        file.write(f"process {os.getpid()}")
        file.flush()
        self._file = file
        return True

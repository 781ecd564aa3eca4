"""run.json and the small JSON files of a stage: written to a temporary name, then renamed."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from hfvla.errors import CheckpointError
from hfvla.sealing import check_manifest

__all__ = ["disk_problem", "environment", "read_json", "remove_leftovers", "saving", "write_json"]

_DISK_ERRNOS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}
_DISK_TEXT = re.compile(
    r"\(os error (?P<number>\d+)\)|\bcode: (?P<code>\d+), kind|No space left on device|PytorchStreamWriter failed"
    r"|file write failed|iostream error"
)

_PACKAGES = (
    "hfvla",
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "peft",
    "timm",
    "deepspeed",
    "tokenizers",
    "safetensors",
)


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it.

    Raises:
        CheckpointError: the disk is full, or the file cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with saving("the run's records", path):
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("w", encoding="utf-8") as file:
            file.write(json.dumps(content, indent=2, default=str) + "\n")
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)


def remove_leftovers(folder: Path) -> None:
    """Delete the temporary files that an interrupted `write_json` left in a folder."""
    for path in folder.glob(".*.tmp"):
        path.unlink(missing_ok=True)


def disk_problem(error: BaseException) -> str | None:
    """Return why the disk refused a file, or None if that is not what happened.

    torch and safetensors report it as errors of their own, with the system's reason only in the text.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _DISK_ERRNOS:
            return os.strerror(seen.errno)
        found = _DISK_TEXT.search(str(seen))
        if found:
            number = found["number"] or found["code"]
            return os.strerror(int(number)) if number else f"the system refused the file ({found[0]})"
        seen = seen.__cause__ or seen.__context__
    return None


@contextlib.contextmanager
def saving(what: str, where: Path, fix: str = "") -> Iterator[None]:
    """Turn a full disk (or a quota, or a read-only folder) inside the block into one clear error.

    Args:
        what: what is being saved.
        where: file or folder.
        fix: said after how to make room.

    Raises:
        CheckpointError: the disk refused it.
    """
    try:
        yield
    except CheckpointError:
        raise
    except Exception as error:
        reason = disk_problem(error)
        if reason is None:
            raise
        advice = f"Make room or choose another --output, then run the same command again. {fix}".strip()
        raise CheckpointError(
            f"{what} cannot be saved: {reason} ({_free_space(where)})", where=str(where), fix=advice
        ) from error


def _free_space(where: Path) -> str:
    folder = next(parent for parent in (where, *where.absolute().parents) if parent.is_dir())
    return f"{shutil.disk_usage(folder).free / 2**20:,.0f} MiB free"


def read_json(path: Path, kind: type = dict) -> Any | None:
    """Return the file's content, or None where there is no such file.

    Args:
        path: the file.
        kind: what it must hold: an object (dict) or a list.

    Raises:
        CheckpointError: it cannot be read, is not JSON, holds something else, or is not what was written.
    """
    if not path.is_file():
        return None
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise _unreadable(path, str(error).splitlines()[0], "JSON") from None
    if not isinstance(content, kind):
        raise _unreadable(path, type(content).__name__, f"a JSON {'object' if kind is dict else 'list'}")
    if kind is dict and not check_manifest(content):
        raise _unreadable(path, "content that does not fit its seal", "what was written")
    return content


def _unreadable(path: Path, got: str, expected: str) -> CheckpointError:
    return CheckpointError(
        "this file of the run is damaged",
        where=str(path),
        got=got,
        expected=expected,
        fix="Put it back from a copy, or delete it: what it stands for is then done again.",
    )


def environment() -> dict[str, Any]:
    """Return versions, hardware, command line and, in a git checkout, the commit."""
    import torch

    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "versions": versions,
        "hardware": {"cpu": platform.machine(), "cores": os.cpu_count(), "gpus": gpus},
        "commit": _commit(),
        "command": sys.argv,
    }


def _commit() -> str | None:
    """Return the commit of the checkout that this package runs from, with "+changes" if it is dirty."""
    git = shutil.which("git")
    if git is None:
        return None
    folder = str(Path(__file__).parent)
    head = subprocess.run([git, "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return None
    dirty = subprocess.run([git, "-C", folder, "status", "--porcelain"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")

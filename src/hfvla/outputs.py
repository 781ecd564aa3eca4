"""Where results go: this program writes only into folders that it made, for the purpose they were made for.

    run/.hfvla.json    {"made_by": "hfvla", "purpose": "run", "files": ["film.mp4"]}

The mark is written when the folder is created, before any work, so that a place that cannot be written is found out
first. A folder without a mark is used only while it is empty; one with a mark of another purpose is not used. A single
file that exists is replaced only where the user said so with a flag. What is replaced or deleted is named first.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hfvla.errors import HfvlaError

__all__ = [
    "MARK",
    "beside",
    "check_folder",
    "check_writable",
    "claim_file",
    "claim_folder",
    "claim_new_folder",
    "create_folder",
    "mark_folder",
    "marked_files",
    "purpose_of",
    "shown",
]

logger = logging.getLogger(__name__)

MARK = ".hfvla.json"
"""Name of the file that says who made a folder, and what for."""

_MADE_BY = "hfvla"
_PURPOSES = {
    "run": "a run",
    "evaluation": "an evaluation",
    "comparison": "a comparison",
    "index": "an index of pictures",
}
_MAX_MARK_BYTES = 2**20
_SHOWN = 12


def _read_mark(folder: Path) -> dict[str, Any] | None:
    """Return the folder's mark, or None where there is none of ours."""
    path = folder / MARK
    try:
        if not path.is_file() or path.stat().st_size > _MAX_MARK_BYTES:
            return None
        mark = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return mark if isinstance(mark, dict) and mark.get("made_by") == _MADE_BY else None


def purpose_of(folder: str | Path) -> str | None:
    """Return what this program made a folder for, or None where it did not make it."""
    mark = _read_mark(Path(folder))
    return None if mark is None else str(mark.get("purpose"))


def marked_files(folder: str | Path) -> set[str]:
    """Return the names that were noted with `mark_folder`."""
    found = (_read_mark(Path(folder)) or {}).get("files")
    return {name for name in found if isinstance(name, str)} if isinstance(found, list) else set()


def shown(names: Iterable[str]) -> str:
    """Return the first names of many, for a message."""
    ordered = sorted(names)
    more = f" and {len(ordered) - _SHOWN} more" if len(ordered) > _SHOWN else ""
    return ", ".join(ordered[:_SHOWN]) + more


def _unusable(path: Path, problem: Exception, option: str, error: type[HfvlaError]) -> HfvlaError:
    reason = (problem.strerror if isinstance(problem, OSError) else None) or str(problem)
    text = str(path)
    where = text if len(text) <= 300 else f"{text[:200]}... ({len(text)} characters)"
    return error(f"the output cannot be written: {reason}", where=where, fix=f"Choose another {option}.")


def check_folder(
    folder: str | Path,
    purpose: str,
    *,
    option: str = "--output",
    before_marks: Callable[[Path], bool] | None = None,
    error: type[HfvlaError] = HfvlaError,
) -> None:
    """Refuse a folder that holds something else; nothing is written.

    Args:
        folder: may be absent.
        purpose: "run", "evaluation", "comparison" or "index".
        option: how the user names another folder; said in errors.
        before_marks: tells whether a folder without a mark is one that this program made before there were marks.
        error: class of the error.

    Raises:
        HfvlaError: of the class `error`: it is a file, holds other files, was made for something else, or cannot be
            looked at.
    """
    folder = Path(folder)
    try:
        if not (folder.is_symlink() or folder.exists()):
            return
        is_folder = folder.is_dir()
        names = [path.name for path in folder.iterdir() if not _is_passing(path.name)] if is_folder else []
    except (OSError, ValueError) as problem:
        raise _unusable(folder, problem, option, error) from problem
    if not is_folder:
        raise error("the output folder is a file", where=str(folder), fix=f"Choose another {option}.")
    found, wanted = purpose_of(folder), _PURPOSES[purpose]
    if found == purpose or not (found or names) or (found is None and before_marks and before_marks(folder)):
        return
    if found is not None:
        raise error(
            f"this folder holds {_PURPOSES.get(found, found)}, and {wanted} needs a folder of its own",
            where=str(folder),
            fix=f"Choose another {option}.",
        )
    raise error(
        f"this folder holds other files and is not {wanted} of hfvla",
        where=str(folder),
        got=shown(names),
        expected=f"a new or empty folder, or one in which {MARK} says that hfvla made it for {wanted}",
        fix=f"Choose another {option}, or empty the folder yourself.",
    )


def _is_passing(name: str) -> bool:
    """Return whether a name is the lock's, the mark's, or of a file whose writing was interrupted."""
    return name in (".lock", MARK) or (name.startswith(".") and name.endswith(".tmp"))


def create_folder(folder: Path, *, option: str = "--output", error: type[HfvlaError] = HfvlaError) -> None:
    """Create a folder and those above it.

    Raises:
        HfvlaError: of the class `error`: it cannot be created.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as problem:
        raise _unusable(folder, problem, option, error) from problem


def mark_folder(
    folder: str | Path,
    purpose: str,
    files: Iterable[str] = (),
    *,
    option: str = "--output",
    error: type[HfvlaError] = HfvlaError,
) -> None:
    """Create a folder if need be, and leave the mark that this program made it.

    Args:
        folder: checked with `check_folder`.
        purpose: as there.
        files: names in it that this program writes and that the purpose alone does not tell; added to those known.
        option: how the user names another folder.
        error: class of the error.

    Raises:
        HfvlaError: of the class `error`: it cannot be created or written.
    """
    folder = Path(folder)
    content = {"made_by": _MADE_BY, "purpose": purpose, "files": sorted({*marked_files(folder), *files})}
    temporary = folder / f"{MARK}.{os.getpid()}.tmp"
    create_folder(folder, option=option, error=error)
    try:
        temporary.write_text(json.dumps(content) + "\n", encoding="utf-8")
        temporary.replace(folder / MARK)
    except (OSError, ValueError) as problem:
        with contextlib.suppress(OSError, ValueError):
            temporary.unlink(missing_ok=True)
        raise _unusable(folder, problem, option, error) from problem


def claim_folder(folder: str | Path, purpose: str, **more: Any) -> Path:
    """Check a folder and mark it: what every command does with its output folder before any work.

    Args:
        folder: as in `check_folder`.
        purpose: as in `check_folder`.
        more: `option`, `before_marks` and `error`, as there.

    Returns:
        `Path`: the folder, which exists and can be written.
    """
    check_folder(folder, purpose, **more)
    more.pop("before_marks", None)
    mark_folder(folder, purpose, **more)
    return Path(folder)


def check_writable(path: str | Path, option: str, *, error: type[HfvlaError] = HfvlaError) -> Path:
    """Check that a single file can be written, before the work whose result it takes; its folder is created.

    Args:
        path: the file; one that exists is not touched.
        option: how the user named it.
        error: class of the error.

    Raises:
        HfvlaError: of the class `error`: it is a folder, or cannot be written.
    """
    path = Path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        is_folder = path.is_dir()
        if not is_folder and (path.is_file() or not path.exists()):  # else a device, which takes what it is given
            _try_to_write(path.parent, path.name)
    except (OSError, ValueError) as problem:
        raise _unusable(path, problem, option, error) from problem
    if is_folder:
        raise error("the output cannot be written: it is a folder", where=str(path), fix=f"Choose another {option}.")
    return path


def claim_file(path: str | Path, overwrite: bool, option: str, *, error: type[HfvlaError] = HfvlaError) -> Path:
    """Check that a single file can be written and that none is lost by it.

    Args:
        path: the file.
        overwrite: the user said that an existing file may be replaced.
        option: how the user named it.
        error: class of the error.

    Raises:
        HfvlaError: of the class `error`: it exists and may not be replaced, is a folder, or cannot be written.
    """
    path = check_writable(path, option, error=error)
    taken = path.is_file() or path.is_symlink()
    if taken and not overwrite:
        raise error(
            "there is a file already", where=str(path), fix=f"Choose another {option}, or replace it with --overwrite."
        )
    if taken:
        logger.warning("--overwrite replaces %s", path)
    return path


def beside(path: str | Path, ending: str, usual: str) -> Path:
    """Return the path of a side file: "sub.csv" has "sub.details.csv", and "ans.v1" has "ans.v1.details.csv".

    Args:
        path: the file that the user named.
        ending: of the side file, with its dot.
        usual: suffix of the main file that is left away; any other stays, so that no two files share side files.
    """
    path = Path(path)
    return path.with_name(path.name.removesuffix(usual) + ending)


def claim_new_folder(folder: str | Path, *, option: str = "--output", error: type[HfvlaError] = HfvlaError) -> Path:
    """Check that a folder that is put in its place in one go is new or empty, and that it can be written.

    Args:
        folder: stays absent; the one above it is created.
        option: how the user named it.
        error: class of the error.

    Raises:
        HfvlaError: of the class `error`: it holds files, is a file, or cannot be written.
    """
    folder = Path(folder)
    try:
        taken = folder.is_symlink() or (folder.exists() and (not folder.is_dir() or any(folder.iterdir())))
        if not taken:
            folder.parent.mkdir(parents=True, exist_ok=True)
            _try_to_write(folder.parent, folder.name)
    except (OSError, ValueError) as problem:
        raise _unusable(folder, problem, option, error) from problem
    if taken:
        raise error("the output folder is not empty", where=str(folder), fix="Name a new folder.")
    return folder


def _try_to_write(folder: Path, name: str) -> None:
    """Write and delete a file beside the one that is meant.

    Raises:
        OSError: the folder cannot be written, or the name is too long.
    """
    probe = folder / f".{name}.{os.getpid()}.tmp"
    try:
        with probe.open("x"):
            pass
    finally:
        probe.unlink(missing_ok=True)

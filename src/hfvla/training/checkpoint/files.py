"""Checkpoint folders on disk: which of them are complete, which is the newest, which can go."""

from __future__ import annotations

import json
import logging
import os
import re
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hfvla.sealing import MANIFEST, check_manifest, seal_folder

__all__ = [
    "MANIFEST",
    "TEMPORARY",
    "checkpoint_step",
    "clean_checkpoints",
    "last_checkpoint",
    "publish",
    "read_manifest",
    "remove_checkpoint",
    "rotate",
    "sync_folder",
    "tidy_checkpoints",
    "write_manifest",
]

logger = logging.getLogger(__name__)

TEMPORARY = ".tmp-"
"""Names that begin so are unfinished; they are deleted when a run starts."""

_NAME = re.compile(r"^checkpoint-(\d+)$")


def checkpoint_step(path: Path) -> int | None:
    """Return the step in a checkpoint folder's name, or None for another name."""
    match = _NAME.match(path.name)
    return int(match[1]) if match else None


def _folders(parent: Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of everything called like a checkpoint, oldest first."""
    found = [(checkpoint_step(path), path) for path in parent.iterdir() if path.is_dir()] if parent.is_dir() else []
    return sorted((step, path) for step, path in found if step is not None)


def sync_folder(folder: Path) -> None:
    """Return once every file below `folder` is on the disk itself, so that a power cut cannot empty it."""
    for root, _, names in os.walk(folder, topdown=False):
        for name in (*names, "."):
            handle = os.open(os.path.join(root, name), os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def write_manifest(folder: Path, facts: dict[str, Any]) -> None:
    """Mark a checkpoint as complete.

    Args:
        folder: the checkpoint, with all its files.
        facts: JSON-serialisable facts about the run that wrote it.
    """
    seal_folder(folder, facts)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """Return the manifest of a complete checkpoint; None if it has none, or if a file is missing or cut short."""
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
        sizes = {name: (folder / name).stat().st_size for name in manifest["files"]}
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        logger.warning("%s: %s cannot be read (%s)", folder, MANIFEST, error)
        return None
    if not check_manifest(manifest):
        logger.warning("%s: %s was changed or is damaged", folder, MANIFEST)
        return None
    return manifest if sizes == manifest["files"] else None


def publish(temporary: Path, final: Path) -> None:
    """Give a finished folder its name. Whoever looks sees the whole folder or none of it."""
    sync_folder(temporary)
    if final.exists():
        remove_checkpoint(final)
    temporary.rename(final)
    parent = os.open(final.parent, os.O_RDONLY)
    try:
        os.fsync(parent)
    finally:
        os.close(parent)


def remove_checkpoint(folder: Path) -> None:
    """Delete a checkpoint; its manifest goes first, so that a half-deleted one does not count."""
    (folder / MANIFEST).unlink(missing_ok=True)
    shutil.rmtree(folder)


def last_checkpoint(parent: Path) -> Path | None:
    """Return the newest complete checkpoint that training can go on from, or None."""
    for _, folder in reversed(_folders(parent)):
        manifest = read_manifest(folder)
        if manifest is None:
            logger.warning("%s is not complete and is not used", folder)
        elif manifest.get("resumable", True):
            return folder
    return None


def clean_checkpoints(parent: Path) -> Path | None:
    """Delete what an interrupted save or deletion left; return the checkpoint to go on from, as `last_checkpoint`.

    Where there is none to go on from, the stage begins anew, and no checkpoint of its earlier attempt may stay.
    """
    if not parent.is_dir():
        return None
    found = last_checkpoint(parent)
    for path in list(parent.glob(f"{TEMPORARY}*")):
        logger.info("deleting %s, left by an interrupted save", path)
        shutil.rmtree(path)
    newest = checkpoint_step(found) if found else None
    for step, folder in _folders(parent):
        if newest is None or step > newest or read_manifest(folder) is None:
            logger.info("deleting %s, which nothing can go on from", folder)
            remove_checkpoint(folder)
    return found


def tidy_checkpoints(parent: Path, keep: str, best: Path | None = None) -> None:
    """Delete what a finished stage does not keep of its checkpoints.

    Args:
        parent: folder of the checkpoints.
        keep: "none", "last" (with the best one, which going on from the last one needs) or "all".
        best: the best checkpoint, where there is one.
    """
    if keep == "none":
        shutil.rmtree(parent, ignore_errors=True)
        return
    for path in list(parent.glob(f"{TEMPORARY}*")):
        shutil.rmtree(path)
    last = last_checkpoint(parent) if keep == "last" else None
    if last is not None:
        rotate(parent, 1, [last, *([best] if best is not None else [])])


def rotate(parent: Path, limit: int | None, keep: Iterable[Path]) -> None:
    """Delete the oldest checkpoints until `limit` are left.

    Args:
        parent: folder of the checkpoints.
        limit: how many may stay; None or 0 for all.
        keep: never deleted, even where they are more than `limit`.
    """
    if not limit or limit < 0:
        return
    kept = {path.resolve() for path in keep}
    folders = [folder for _, folder in _folders(parent)]
    left = len(folders)
    for folder in folders:
        if left <= max(limit, len(kept)):
            return
        if folder.resolve() not in kept:
            remove_checkpoint(folder)
            left -= 1

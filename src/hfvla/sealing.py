"""What is in a folder when it is finished, by content: a flipped bit in any file of a checkpoint is noticed.

`complete.json` lists the size and the BLAKE2b hash of every file, and its own hash. Hashing reads each file once, at
about 1 GB a second and core: so much later is a checkpoint of 1 GB written, gone on from, handed over or loaded.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from hfvla.errors import CheckpointError

__all__ = [
    "MANIFEST",
    "check_contents",
    "check_manifest",
    "honour_umask",
    "resealed",
    "seal_folder",
    "sealed",
    "unsealed",
]

MANIFEST = "complete.json"
"""Written last into a folder: size and hash of every file in it, and facts about the run that wrote it."""

_SEAL = "seal"
_THREADS = 4


def file_hash(path: Path) -> str:
    """Return the hash of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def sealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON content with a hash of itself, which `check_manifest` and `unsealed` look at."""
    return {**unsealed(content), _SEAL: _own_hash(unsealed(content))}


def unsealed(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON content without the hash of itself."""
    return {key: value for key, value in content.items() if key != _SEAL}


def _own_hash(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(json.dumps(json.loads(text), sort_keys=True).encode(), digest_size=16).hexdigest()


def check_manifest(content: Any) -> bool:
    """Tell whether JSON content is what was sealed; content of an earlier version, without a seal, passes."""
    if not isinstance(content, dict):
        return False
    return _SEAL not in content or content[_SEAL] == _own_hash(unsealed(content))


def honour_umask(folder: Path) -> None:
    """Give every file of a folder the mode that a plain `open` would: some libraries write for their owner alone."""
    probe = folder / f".umask-{os.getpid()}.tmp"
    probe.touch()
    wanted = stat.S_IMODE(probe.stat().st_mode)
    probe.unlink()
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and stat.S_IMODE(path.stat().st_mode) != wanted:
            path.chmod(wanted)


def seal_folder(folder: Path, facts: Mapping[str, Any], skip: Collection[str] = ()) -> None:
    """Write the manifest of a finished folder, and let others read its files as the umask says.

    Args:
        folder: the folder, with all its files.
        facts: JSON-serialisable facts about the run that wrote it.
        skip: names directly in it that do not belong to it.
    """
    honour_umask(folder)
    paths = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != MANIFEST and path.relative_to(folder).parts[0] not in skip
    }
    with ThreadPoolExecutor(_THREADS) as pool:
        hashes = dict(zip(paths, pool.map(file_hash, paths.values()), strict=True))
    files = {name: path.stat().st_size for name, path in paths.items()}
    text = json.dumps(sealed({**facts, "files": files, "hashes": hashes}), indent=2) + "\n"
    (folder / MANIFEST).write_text(text, encoding="utf-8")


def resealed(content: Mapping[str, Any], changed: Mapping[str, Path]) -> dict[str, Any]:
    """Return a manifest's content for a folder in which files were changed or added.

    Args:
        content: of `complete.json`.
        changed: the files, by name in the folder.
    """
    files = {**content.get("files", {}), **{name: path.stat().st_size for name, path in changed.items()}}
    hashes = {**content.get("hashes", {}), **{name: file_hash(path) for name, path in changed.items()}}
    return sealed({**content, "files": files, "hashes": hashes})


def check_contents(folder: str | Path) -> None:
    """Compare every file that a folder's manifest lists with it; a folder without one passes.

    Raises:
        CheckpointError: naming the files that are missing or changed.
    """
    folder = Path(folder)
    manifest = folder / MANIFEST
    if not manifest.is_file():
        return
    fix = f"Copy the folder again from where it came. If the change was yours, delete {MANIFEST} in it."
    try:
        content = json.loads(manifest.read_text(encoding="utf-8"))
        intact, hashes = check_manifest(content), dict(content.get("hashes", {}))
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise CheckpointError("the list of its files cannot be read", where=str(manifest), got=str(error)) from None
    if not intact:
        raise CheckpointError("the list of its files was changed or is damaged", where=str(manifest), fix=fix)
    wrong = [name for name in hashes if not _inside(folder, name)]
    if not wrong:
        with ThreadPoolExecutor(_THREADS) as pool:
            found = pool.map(lambda name: _hash_or_none(folder / name), hashes)
            wrong = [name for name, value in zip(hashes, found, strict=True) if value != hashes[name]]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise CheckpointError(
            "files of this checkpoint are missing or are not what was written",
            where=str(folder),
            got=", ".join(wrong[:3]) + more,
            expected=f"the contents that {MANIFEST} lists",
            fix=fix,
        )


def _inside(folder: Path, name: str) -> bool:
    parts = Path(name).parts
    return not Path(name).is_absolute() and ".." not in parts


def _hash_or_none(path: Path) -> str | None:
    try:
        return file_hash(path)
    except OSError:
        return None

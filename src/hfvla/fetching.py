"""A checkpoint by its name: a folder of this machine, else a repository of the hub brought here.

    outputs/run/final       a folder
    user/name               the repository's main branch
    user/name@v1.0          a branch, tag or commit of it

Nothing is believed of what comes: no pickled file and no file outside the repository's own folder is downloaded, and
`hfvla.loading` looks through the snapshot as through any other folder.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from hfvla.errors import CheckpointError
from hfvla.paths import expand_user

__all__ = ["PICKLED", "hub_error", "is_hub_name", "local_checkpoint", "split_revision", "status_of"]

logger = logging.getLogger(__name__)

PICKLED = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle", "*.h5", "*.msgpack", "*.npz", "*.joblib")
"""Names of files that can run code when they are read, or that no class here reads."""

_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
_CONFIGS = ["*.json"]
_NO_FOLDER = "no such checkpoint folder, and not a model on the hub"


def split_revision(name: str) -> tuple[str, str | None]:
    """Return ("user/name", "v1") for "user/name@v1", and the name with None where it has no "@"."""
    repo, at, revision = name.partition("@")
    return (repo, revision or None) if at else (name, None)


def is_hub_name(name: str) -> bool:
    """Tell whether a text can be a repository on the hub: "user/name" or "name"."""
    return bool(_NAME.fullmatch(name)) and ".." not in name and "--" not in name and len(name) <= 96


def local_checkpoint(name: str | Path, revision: str | None = None, *, weights: bool = True) -> Path:
    """Return the folder of a checkpoint; one on the hub is downloaded, or taken from the hub's cache.

    Args:
        name: folder, or a repository as "user/name" or "user/name@revision"; a folder of that name goes first.
        revision: branch, tag or commit of the repository.
        weights: False brings its JSON files alone: enough to know what it is.

    Raises:
        CheckpointError: neither a folder nor a repository that can be read, or one with names that lead out of it.
    """
    where = expand_user(str(name))
    try:
        is_folder = Path(where).is_dir()
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise CheckpointError(f"no such checkpoint folder: {reason}", where=where, fix="Check the path.") from None
    if is_folder:
        if revision is not None:
            raise CheckpointError("a folder has no revisions", where=where, got=revision, fix="Leave it away.")
        return Path(where)
    repo, named = split_revision(where)
    if not is_hub_name(repo) or Path(where).is_file():
        raise CheckpointError(_NO_FOLDER, where=where, expected="a folder, or user/name", fix="Check the path.")
    return _snapshot(repo, revision or named, weights)


def _snapshot(repo: str, revision: str | None, weights: bool) -> Path:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    where = f"{repo}@{revision}" if revision else repo
    wanted: dict[str, Any] = {"ignore_patterns": list(PICKLED)} if weights else {"allow_patterns": _CONFIGS}
    try:
        info = HfApi().model_info(repo, revision=revision)
        _check_names([file.rfilename for file in info.siblings or ()], where)
    except HfHubHTTPError as error:  # it answers, and says no
        raise hub_error(_NO_FOLDER, where, error) from None
    except (OSError, ValueError) as error:
        return _kept(repo, revision, wanted, where, error)
    except Exception as error:  # httpx's own classes, for a hub that is not there
        if not type(error).__module__.startswith("httpx"):
            raise
        return _kept(repo, revision, wanted, where, error)
    try:
        return Path(snapshot_download(repo, revision=revision, library_name="hfvla", **wanted))
    except LocalEntryNotFoundError as error:
        raise hub_error("the download from the hub was cut short", where, error.__cause__ or error) from None
    except (OSError, ValueError) as error:
        raise hub_error("the checkpoint cannot be downloaded", where, error) from None


def _kept(repo: str, revision: str | None, wanted: dict[str, Any], where: str, reason: Exception) -> Path:
    """Return what an earlier download left in the cache, where the hub cannot be asked."""
    from huggingface_hub import snapshot_download

    try:
        folder = Path(snapshot_download(repo, revision=revision, local_files_only=True, **wanted))
    except (OSError, ValueError):
        raise hub_error(_NO_FOLDER, where, reason) from None
    logger.warning("%s: the hub cannot be asked (%s); its copy in %s is used", where, _reason(reason), folder)
    return folder


def _check_names(names: Sequence[str], where: str) -> None:
    """Refuse a repository whose files would lie outside of their folder, or that has pickled weights alone.

    Raises:
        CheckpointError: naming the first.
    """
    for name in names:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\\" in name:
            raise CheckpointError("a file of this repository leads out of its folder", where=where, got=name)
    weights = [name for name in names if name.endswith(".safetensors")]
    pickled = [name for name in names if any(PurePosixPath(name).match(pattern) for pattern in PICKLED)]
    if pickled and not weights:
        raise CheckpointError(
            "pickled weights are not read: they can run code",
            where=where,
            got=pickled[0],
            expected="model.safetensors",
            fix="Load them where you trust them, and save with save_pretrained.",
        )


def hub_error(what: str, where: str, error: BaseException) -> CheckpointError:
    """Return one line for what the hub, or the way to it, answered."""
    status = status_of(error)
    fix = "Check the name, or run `hf auth login` for a private repository." if status in (401, 403, 404) else None
    if type(error).__name__ == "OfflineModeIsEnabled":
        fix = "Unset HF_HUB_OFFLINE, or name a folder."
    return CheckpointError(what, where=where, got=_reason(error), fix=fix or "Check the path, or try again later.")


def status_of(error: BaseException) -> int | None:
    """Return the status that the hub answered with, if it answered."""
    return getattr(getattr(error, "response", None), "status_code", None)


def _reason(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else 'no reason given'}"[:300]

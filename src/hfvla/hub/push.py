"""A push to the hub: everything is uploaded first and one commit makes it visible, or nothing of it is.

Large files go ahead of the commit and are addressed by their content. A push that was cut short leaves the repository
as it was; the next one uploads what is still missing.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from hfvla.errors import CheckpointError, HfvlaError
from hfvla.fetching import PICKLED, hub_error, status_of

__all__ = ["check_access", "push_files"]

logger = logging.getLogger(__name__)

ATTEMPTS, FIRST_WAIT_S = 3, 2.0
_OURS = ("*.safetensors", "*.safetensors.index.json", "adapter/*", "complete.json")
"""Files of an earlier push that must not stay beside those of this one."""


def check_access(repo: str) -> None:
    """Refuse a push that cannot succeed before the work whose result it would take.

    Raises:
        HfvlaError: there is no token here, or the hub is switched off.
    """
    from huggingface_hub import constants, get_token

    if constants.HF_HUB_OFFLINE:
        raise HfvlaError("the hub is switched off here", where=f"hub.repo: {repo}", fix="Unset HF_HUB_OFFLINE.")
    if get_token() is None:
        raise HfvlaError(
            "there is no token of the hub here", where=f"hub.repo: {repo}", fix="Run `hf auth login`, or set HF_TOKEN."
        )


def push_files(repo: str, files: Mapping[str, Path], *, private: bool = True, message: str) -> dict[str, Any]:
    """Make files the content of a repository, in one commit; what an earlier push had in their place goes with it.

    Args:
        repo: user/name; created where it is not there.
        files: by name in the repository.
        private: whether a repository that is created is seen by its owner alone; one that is there stays as it is.
        message: of the commit.

    Returns:
        `dict`: "repo", "url", "commit", "files", "bytes".

    Raises:
        CheckpointError: the hub refused it or went away; the repository is as it was.
        HfvlaError: no token, see `check_access`.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi

    _check_files(files)
    check_access(repo)
    api = HfApi(library_name="hfvla")
    size = sum(path.stat().st_size for path in files.values())
    logger.info("pushing %d files, %.1f MiB, to %s", len(files), size / 2**20, repo)
    added = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=str(path)) for name, path in files.items()]

    def push() -> Any:
        api.create_repo(repo, private=private, exist_ok=True)
        before = api.list_repo_files(repo)
        stale = [name for name in before if name not in files and any(fnmatch(name, one) for one in _OURS)]
        operations: list[Any] = [*added, *(CommitOperationDelete(path_in_repo=name) for name in stale)]
        return api.create_commit(repo, operations, commit_message=message)

    done = _tried(push, repo)
    found = {"repo": repo, "url": f"{api.endpoint}/{repo}", "commit": done.oid, "files": len(files), "bytes": size}
    logger.info("pushed: %s, commit %s", found["url"], done.oid)
    return found


def _tried(push: Any, repo: str) -> Any:
    """Push, a few times where the hub is away; what was uploaded is not uploaded again.

    Raises:
        CheckpointError: it stays away, or says no.
    """
    for attempt in range(ATTEMPTS):
        try:
            return push()
        except (OSError, ValueError, RuntimeError) as error:
            problem: Exception = error
        except Exception as error:  # httpx's own classes
            if not type(error).__module__.startswith(("httpx", "httpcore", "huggingface_hub")):
                raise
            problem = error
        problem = _root(problem)
        status = status_of(problem)
        if isinstance(problem, ValueError) or (status is not None and status < 500) or attempt + 1 == ATTEMPTS:
            break
        wait_s = FIRST_WAIT_S * 2**attempt
        logger.warning("%s: the hub does not answer (%s); again in %.0f s", repo, type(problem).__name__, wait_s)
        time.sleep(wait_s)
    failed = hub_error("the push failed; the repository is as it was", repo, problem)
    raise CheckpointError(
        failed.what,
        where=repo,
        got=failed.got,
        fix="Run `hfvla push` once more: what was uploaded is not uploaded again. " + (failed.fix or ""),
    ) from problem


def _root(error: Exception) -> Exception:
    """Return the hub's own answer below what the client made of it."""
    seen: BaseException | None = error
    while seen is not None and status_of(seen) is None:
        seen = seen.__cause__
    return seen if isinstance(seen, Exception) else error


def _check_files(files: Mapping[str, Path]) -> None:
    """Refuse what must not be in a repository: pickles, and links to somewhere else.

    Raises:
        CheckpointError: naming the first.
    """
    for name, path in files.items():
        if any(fnmatch(name.rsplit("/", 1)[-1], pattern) for pattern in PICKLED):
            raise CheckpointError("pickled files are not pushed: they can run code", where=str(path), got=name)
        if path.is_symlink():
            raise CheckpointError("a link is not pushed: it may lead anywhere", where=str(path), got=name)

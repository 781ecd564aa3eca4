"""Where a stage's numbers go while it trains: TensorBoard, Weights & Biases or trackio, with or without a network."""

from __future__ import annotations

import contextlib
import logging
import netrc
import os
import socket
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from hfvla.errors import MissingExtraError
from hfvla.evaluation.run_record import read_run
from hfvla.evaluation.tracking import log_evaluation, run_group
from hfvla.family import EvaluationResult

__all__ = ["chosen_trackers", "stage_logs", "track_evaluation"]

logger = logging.getLogger(__name__)

_EXTRA = "track"
_PACKAGES = ("tensorboard", "wandb", "trackio")
_CONNECT_TIMEOUT_S = 3.0


def chosen_trackers(report_to: Any = None) -> Any:
    """Return `report_to` for TrainingArguments: what the recipe says, else TensorBoard where it is installed.

    Raises:
        MissingExtraError: the recipe names a tracker whose package is not installed.
    """
    if report_to is None:
        return ["tensorboard"] if find_spec("tensorboard") else "none"
    for name in [report_to] if isinstance(report_to, str) else report_to:
        if name in _PACKAGES and find_spec(name) is None:
            raise MissingExtraError(name, _EXTRA, f"args.report_to: {name}")
    return report_to


@contextlib.contextmanager
def stage_logs(output_dir: Path, stage: str, project: str, report_to: Any = None) -> Iterator[None]:
    """Let the trackers of one stage write below `<output_dir>/logs`; what the user's environment says goes first.

    All stages of a run, and its evaluation, are one group of Weights & Biases, and each is tagged with its name.
    TensorBoard's and Weights & Biases' files go to `logs/<stage>`. Trackio keeps all stages of a run in one database
    in `logs/trackio` (it reads its folder once a process). Without a key or a network Weights & Biases is set to
    offline: it would stop the run, or wait minutes, otherwise.

    Args:
        output_dir: run folder.
        stage: name of the stage.
        project: name that Weights & Biases files the run under.
        report_to: as the recipe says it; None for the default.
    """
    names = {chosen_trackers(report_to)} if isinstance(report_to, str) else set(chosen_trackers(report_to))
    logs = Path(output_dir).absolute() / "logs"
    settings = {"TENSORBOARD_LOGGING_DIR": str(logs / stage)}
    if names & {"wandb", "all"}:
        (logs / stage).mkdir(parents=True, exist_ok=True)  # it falls back to a temporary folder otherwise
        settings |= {"WANDB_DIR": str(logs / stage), "WANDB_PROJECT": project}
        settings |= {"WANDB_RUN_GROUP": run_group(project, output_dir), "WANDB_TAGS": stage}
        problem = None if "WANDB_MODE" in os.environ else _wandb_problem()
        if problem:
            settings["WANDB_MODE"] = "offline"
            logger.warning("Weights & Biases: %s; kept offline. Later: wandb sync %s/wandb/*", problem, logs / stage)
    if names & {"trackio", "all"}:
        settings["TRACKIO_DIR"] = str(logs / "trackio")
    added = {name: value for name, value in settings.items() if name not in os.environ}
    os.environ.update(added)
    running = _wandb_run()
    try:
        yield
    finally:
        if running is None and _wandb_run() is not None:
            sys.modules["wandb"].finish()  # else the next stage's steps are appended to this run
            sys.modules["wandb"].teardown()  # else it keeps this stage's folder
        for name in added:
            os.environ.pop(name, None)


def track_evaluation(
    report_to: Any,
    results: Mapping[str, EvaluationResult],
    output_dir: Path,
    project: str,
    tags: Sequence[str] = (),
) -> None:
    """Log the scores of an evaluation below `<output_dir>/logs`, and their pictures where the trackers are named.

    Args:
        report_to: as a recipe says it; None for the default, which gets no pictures.
        results: by set name.
        output_dir: run folder, or that of an evaluation.
        project: name that the trackers file it under; a run's evaluation joins the group of its stages.
        tags: besides "evaluation".
    """
    with stage_logs(output_dir, "evaluation", project, report_to):
        log_evaluation(
            chosen_trackers(report_to), results, output_dir / "logs", project, run_group(project, output_dir),
            tags=["evaluation", *tags], pictures=report_to is not None, across=read_run(output_dir).across,
        )  # fmt: skip


def _wandb_run() -> Any:
    return getattr(sys.modules.get("wandb"), "run", None)


def _wandb_problem() -> str | None:
    """Return why Weights & Biases cannot be reached from here, or None."""
    url = urlsplit(os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai"))
    host, port = url.hostname or "", url.port or (80 if url.scheme == "http" else 443)
    if not os.environ.get("WANDB_API_KEY") and not _has_login(host):
        return "no API key (WANDB_API_KEY, or `wandb login`)"
    return None if _answers(host, port) else f"{host} does not answer in {_CONNECT_TIMEOUT_S:g} s"


def _has_login(host: str) -> bool:
    try:
        return netrc.netrc().authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False


def _answers(host: str, port: int) -> bool:
    """Connect in a thread: the name lookup has no timeout of its own."""
    connected = threading.Event()

    def connect() -> None:
        with contextlib.suppress(OSError), socket.create_connection((host, port), timeout=_CONNECT_TIMEOUT_S):
            connected.set()

    threading.Thread(target=connect, daemon=True).start()
    return connected.wait(_CONNECT_TIMEOUT_S)

"""Scores and figures in TensorBoard, Weights & Biases and trackio: of a validation, and of a whole evaluation."""

from __future__ import annotations

import hashlib
import io
import logging
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

from hfvla.evaluation.plots import HTML_KINDS, draw
from hfvla.family import EvaluationResult, Figure

__all__ = ["log_evaluation", "log_figures", "run_group", "tracker_names"]

logger = logging.getLogger(__name__)

_Pictures = Mapping[str, np.ndarray]
TRACKERS = ("tensorboard", "wandb", "trackio")


def tracker_names(report_to: Any) -> list[str]:
    """Return the trackers among those named that get figures; "all" is every one whose package is here."""
    from importlib.util import find_spec

    names = [report_to] if isinstance(report_to, str) else list(report_to or ())
    if "all" in names:
        names = [name for name in TRACKERS if find_spec(name)]
    return [name for name in TRACKERS if name in names]


def run_group(name: str, folder: str | Path) -> str:
    """Return the name under which a tracker keeps all stages and the evaluation of a run together."""
    digest = hashlib.sha256(str(Path(folder).absolute()).encode()).hexdigest()[:6]
    return f"{name}-{digest}"


def log_figures(report_to: Any, figures: Iterable[Figure], prefix: str, step: int) -> None:
    """Log figures to the trackers that a training has open; one that fails costs nothing but its picture.

    Args:
        report_to: trackers' names.
        figures: those with a picture are drawn as PNG.
        prefix: before each figure's name.
        step: of the training.
    """
    names = [name for name in tracker_names(report_to) if name == "tensorboard" or _open_run(name) is not None]
    drawn = _pictures(figures) if names else {}
    for name in names if drawn else ():
        with _unharmed(name):
            if name == "tensorboard":
                with _writer(os.environ.get("TENSORBOARD_LOGGING_DIR")) as writer:
                    for key, pixels in drawn.items():
                        writer.add_image(f"{prefix}/{key}", pixels, step, dataformats="HWC")
            else:
                module = sys.modules[name]
                images = {f"{prefix}/{key}": module.Image(pixels) for key, pixels in drawn.items()}
                module.log(images | ({"train/global_step": step} if name == "wandb" else {}))


def log_evaluation(
    report_to: Any,
    results: Mapping[str, EvaluationResult],
    folder: Path,
    project: str,
    group: str,
    tags: Sequence[str] = (),
    pictures: bool = True,
    across: Sequence[Figure] = (),
) -> None:
    """Log an evaluation as a run of its own in the group of its training: scores, intervals, baselines and figures.

    Args:
        report_to: trackers' names.
        results: by set name.
        folder: for the trackers' files.
        project: that the trackers file it under.
        group: of the run (`run_group`).
        tags: of the tracker's run.
        pictures: log the figures too, half a second each.
        across: figures of the whole run (`RunRecord.across`), logged with them.
    """
    names = tracker_names(report_to)
    if not names or not results:
        return
    scalars = {
        f"final/{name}/{key}": value for name, result in results.items() for key, value in _scalars(result).items()
    }
    figures = {
        f"final/{name}/{key}": pixels
        for name, result in results.items()
        for key, pixels in _pictures(result.figures if pictures else ()).items()
    }
    figures |= {f"final/run/{key}": pixels for key, pixels in _pictures(across if pictures else ()).items()}
    folder.mkdir(parents=True, exist_ok=True)
    for name in names:
        with _unharmed(name):
            _LOG[name](scalars, figures, folder, project, group, list(tags))


def _scalars(result: EvaluationResult) -> dict[str, float]:
    """Return scores, the ends of their intervals, and the baselines', by name."""
    found = {key: float(value) for key, value in result.metrics.items()}
    for name, scores in result.baselines.items():
        found |= {f"baselines/{name}/{key}": float(value) for key, value in scores.items() if "/" not in key}
    for key, (low, high) in result.intervals.items():
        found |= {f"{key}/low": float(low), f"{key}/high": float(high)}
    return {key: value for key, value in found.items() if np.isfinite(value)}


def _pictures(figures: Iterable[Figure]) -> dict[str, np.ndarray]:
    """Return the figures that have a picture, [H, W, 3] uint8, by name."""
    from PIL import Image

    found = {}
    for figure in figures:
        png = None if figure.kind in HTML_KINDS else draw(figure)
        if png is not None:
            found[figure.name] = np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))
    return found


@contextmanager
def _unharmed(name: str) -> Iterator[None]:
    """Let no tracker end a run that has its result."""
    try:
        yield
    except Exception as error:
        logger.warning("%s did not take the evaluation: %s: %s", name, type(error).__name__, error)


def _open_run(name: str) -> Any:
    module = sys.modules.get(name)
    if name == "wandb":
        return getattr(module, "run", None)
    variables = getattr(module, "context_vars", None)
    return variables.current_run.get() if variables is not None else None


@contextmanager
def _writer(folder: str | Path | None) -> Iterator[Any]:
    from torch.utils.tensorboard import SummaryWriter

    writer = SummaryWriter(str(folder) if folder else None)
    try:
        yield writer
    finally:
        writer.close()


def _tensorboard(
    scalars: Mapping[str, float],
    figures: Mapping[str, np.ndarray],
    folder: Path,
    project: str,
    group: str,
    tags: list[str],
) -> None:
    with _writer(folder / "evaluation") as writer:
        for key, value in scalars.items():
            writer.add_scalar(key, value, 0)
        for key, pixels in figures.items():
            writer.add_image(key, pixels, 0, dataformats="HWC")
        if tags:
            writer.add_text("tags", ", ".join(tags), 0)


def _wandb(
    scalars: Mapping[str, float],
    figures: Mapping[str, np.ndarray],
    folder: Path,
    project: str,
    group: str,
    tags: list[str],
) -> None:
    import wandb

    name = f"{group}-evaluation"
    with wandb.init(
        project=os.environ.get("WANDB_PROJECT", project), name=name, group=group, tags=tags, job_type="evaluation",
        dir=str(folder), reinit="create_new",
    ) as run:  # fmt: skip
        run.log({key: wandb.Image(pixels) for key, pixels in figures.items()} | dict(scalars))
        run.summary.update(dict(scalars))


def _trackio(
    scalars: Mapping[str, float],
    figures: Mapping[str, np.ndarray],
    folder: Path,
    project: str,
    group: str,
    tags: list[str],
) -> None:
    import trackio

    with suppress(RuntimeError):  # none is open
        trackio.finish()
    trackio.init(project=project, name=f"{group}-evaluation", group=group, config={"tags": tags}, embed=False)
    try:
        trackio.log({key: trackio.Image(pixels) for key, pixels in figures.items()} | dict(scalars))
    finally:
        trackio.finish()


_LOG = {"tensorboard": _tensorboard, "wandb": _wandb, "trackio": _trackio}

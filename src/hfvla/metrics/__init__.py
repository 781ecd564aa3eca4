"""Metrics: numpy functions, thin `evaluate` modules, bootstrap intervals and text baselines."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

__all__ = ["METRICS", "load_metric", "metric_folder"]

_MODULES = Path(__file__).parent / "modules"
METRICS: tuple[str, ...] = tuple(
    sorted(folder.name for folder in _MODULES.iterdir() if (folder / f"{folder.name}.py").is_file())
)
"""Names that `load_metric` knows; each is a folder in `modules/` that `evaluate.load` also reads."""


def metric_folder(name: str) -> Path:
    """Return the folder of a metric, to be given to `evaluate.load`.

    Raises:
        ValueError: unknown name.
    """
    if name not in METRICS:
        raise ValueError(f"there is no metric {name!r}; expected one of {', '.join(METRICS)}")
    return _MODULES / name


def load_metric(name: str) -> Any:
    """Build a metric as `evaluate.load(metric_folder(name))` does, without copying or downloading anything.

    Raises:
        ValueError: unknown name.
    """
    import evaluate

    metric_folder(name)
    module = importlib.import_module(f"hfvla.metrics.modules.{name}.{name}")
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, evaluate.Metric) and value.__module__ == module.__name__
    ]
    return found[0]()

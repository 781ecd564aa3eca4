"""Typed rows: the `datasets` features of `RobotTask.to_row()` and builders that keep them aligned across sources."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hfvla.data.samples.robots import RobotTask

if TYPE_CHECKING:
    from datasets import Dataset, Features

__all__ = ["build_dataset", "robot_task_features"]


def robot_task_features() -> Features:
    """Return the features of a robot-selection row, the same for every source (an empty plan keeps its type)."""
    from datasets import Features, List, Value

    text = Value("string")
    return Features(
        {
            "id": text,
            "task": text,
            "robots": List(text),
            "reasoning": text,
            "plan": List({"subtask": text, "robot": text, "order": Value("int64")}),
            "image": Value("binary"),
            "caption": text,
            "dialogue": List({"question": text, "answer": text}),
            "needs_scene": Value("bool"),
            "source": text,
            "group": text,
            "details": text,
        }
    )


def build_dataset(tasks: Iterable[RobotTask]) -> Dataset:
    """Put samples into an in-memory `datasets.Dataset` with `robot_task_features`; also for no sample at all."""
    from datasets import Dataset

    rows = [task.to_row() for task in tasks]
    features = robot_task_features()
    return Dataset.from_dict({name: [row[name] for row in rows] for name in features}, features=features)

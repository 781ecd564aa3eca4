"""Readers of data on disk, each with a pydantic options model and a builder that returns `SourceData`."""

from hfvla.data.sources.robot_selection import RobotSelectionOptions, build_robot_selection
from hfvla.data.sources.rows import build_dataset, robot_task_features

__all__ = ["RobotSelectionOptions", "build_dataset", "build_robot_selection", "robot_task_features"]

"""What a robot knows at one moment, and what may drive it: shared by simulators, policies and servers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from hfvla.data.signals.sensor_loader import SensorSamples

__all__ = ["Observation", "Policy"]


@dataclass(frozen=True, eq=False)
class Observation:
    """One moment of a robot.

    Attributes:
        views: camera name to its picture, [H, W, 3] uint8 RGB.
        state: [S] float32, in the robot's units.
        task: what the robot is told to do.
        time_s: float64 seconds on the robot's clock.
        sensor: samples of the sensor up to `time_s`, never later; None without a sensor.
    """

    views: Mapping[str, np.ndarray]
    state: np.ndarray
    task: str
    time_s: float = 0.0
    sensor: SensorSamples | None = None


class Policy(Protocol):
    """What drives a robot in a closed loop."""

    def reset(self, seed: int) -> None:
        """Forget the last episode.

        Args:
            seed: of whatever the policy draws at random in this episode.
        """

    def plan(self, observation: Observation) -> np.ndarray:
        """Return the next actions, all of which are executed before the policy is asked again.

        Args:
            observation: now.

        Returns:
            [n, A] float, n >= 1, in the robot's units.
        """

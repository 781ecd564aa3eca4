"""The insertion task as a robot lives it: observations, actions, and whether the peg is in."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from hfvla.data.signals.observation import Observation
from hfvla.data.signals.sensor_loader import SensorSamples
from hfvla.errors import DataError
from hfvla.worlds.insertion.cameras import VIEWS, Cameras, LazyViews
from hfvla.worlds.insertion.grasp import GRIP, grasp_action
from hfvla.worlds.insertion.physics import CONTROL_HZ, SENSOR_HZ, SUBSTEPS, PegWorld
from hfvla.worlds.insertion.situation import Situation

__all__ = [
    "ACTION_LIMIT_M",
    "DIRECTIONS",
    "IMAGE_SIZE",
    "InsertionEnv",
    "OFFSET_M",
    "SENSOR_NOISE",
    "SensorNoise",
    "Start",
    "TASK",
    "Variant",
    "WINDOW_S",
]

Variant = Literal["plain", "hidden_offset"]
Start = Literal["grasped", "table"]

TASK = "insert the peg into the hole"
IMAGE_SIZE, WINDOW_S = 96, 0.2
ACTION_LIMIT_M = 0.025
OFFSET_M = 0.025
DIRECTIONS: dict[str, tuple[float, float, float]] = {
    "+y": (0.0, 1.0, 0.0),
    "-y": (0.0, -1.0, 0.0),
    "+z": (0.0, 0.0, 1.0),
    "-z": (0.0, 0.0, -1.0),
}
"""Where the hole that is felt may lie, `OFFSET_M` beside the hole that is seen."""
SUCCESS_DEPTH_M = 0.04
_MAX_STEPS = {"grasped": 60, "table": 100}
_PEG_LOW, _PEG_HIGH = (0.0, 0.5, 0.02), (0.2, 0.7, 0.02)
_BOX_LOW, _BOX_HIGH = (-0.35, 0.44, -0.001), (-0.25, 0.7, 0.001)
_SETTLE_STEPS, _LIFT_STEPS = 4, 80


@dataclass(frozen=True)
class SensorNoise:
    """Standard deviation of the sensor's white noise, drawn anew at every sample.

    Attributes:
        force_n: of each force.
        torque_nm: of each torque.
    """

    force_n: float = 0.1
    torque_nm: float = 0.002


SENSOR_NOISE = SensorNoise()


class InsertionEnv:
    """One robot, one peg, one box with a hole in its side.

    Args:
        variant: "plain", or "hidden_offset": the hole that is felt lies `OFFSET_M` beside the hole that is seen.
        start: "grasped": the peg is in the hand and lifted; "table": it lies on the table.
        image_size: pixels a side of each view.
        views: names from `VIEWS`.
        max_steps: after which an episode ends.
        window_s: seconds of sensor samples in an observation.
        noise: of the sensor; None for none.

    Raises:
        DataError: no such variant, start or view.
        MissingExtraError: metaworld or mujoco is not installed.
    """

    control_hz, sensor_hz = CONTROL_HZ, SENSOR_HZ
    action_dim, state_dim, sensor_dim = 4, 4, 6

    def __init__(
        self,
        variant: Variant = "plain",
        start: Start = "grasped",
        *,
        image_size: int = IMAGE_SIZE,
        views: tuple[str, ...] = tuple(VIEWS),
        max_steps: int | None = None,
        window_s: float = WINDOW_S,
        noise: SensorNoise | None = SENSOR_NOISE,
    ) -> None:
        _check_choice("variant", variant, ("plain", "hidden_offset"))
        _check_choice("start", start, tuple(_MAX_STEPS))
        self.variant, self.start, self.noise = variant, start, noise
        self.max_steps = max_steps or _MAX_STEPS[start]
        self.world = PegWorld()
        self.cameras = Cameras(self.world, image_size, tuple(views))
        self._window = round(window_s * SENSOR_HZ)
        self._history = SUBSTEPS * _SETTLE_STEPS  # samples before the episode's first moment
        self._moment = 0
        self._running = False

    def reset(self, seed: int, *, direction: str | None = None) -> Observation:
        """Start an episode; the same seed gives the same episode to the byte.

        Args:
            seed: of the places of peg and box, of the hidden direction and of the sensor's noise.
            direction: overrides the direction that the seed draws, all else being equal.

        Raises:
            DataError: a direction without a hidden offset, or no such direction.
            RuntimeError: the peg could not be grasped.
        """
        places, hidden, noise = (np.random.default_rng([int(seed), stream]) for stream in range(3))
        peg, box = places.uniform(_PEG_LOW, _PEG_HIGH), places.uniform(_BOX_LOW, _BOX_HIGH)
        drawn = str(hidden.choice(list(DIRECTIONS)))
        if direction is not None:
            _check_choice("direction", direction, tuple(DIRECTIONS) if self.variant == "hidden_offset" else ())
        self.seed, self._noise = int(seed), noise
        self.direction = "" if self.variant == "plain" else direction or drawn
        offset = OFFSET_M * np.array(DIRECTIONS[self.direction]) if self.direction else np.zeros(3)
        self.world.reset(peg, box, offset)
        if self.start == "grasped":
            self._grasp()
        self.steps, self._samples = 0, np.zeros((0, 6))
        for _ in range(_SETTLE_STEPS):
            self._sense(self.world.advance(np.zeros(3), GRIP if self.start == "grasped" else -1.0))
        self._running = True
        return self._observe()

    def _grasp(self) -> None:
        """Take the peg and lift it, as the demonstrators do."""
        for _ in range(_LIFT_STEPS):
            if self.world.tip[2] > 0.1:
                return
            action = grasp_action(self.situation)
            self.world.advance(action[:3], float(action[3]))
        raise RuntimeError(f"insertion seed {self.seed}: the peg was not grasped in {_LIFT_STEPS} steps")

    def _sense(self, wrenches: np.ndarray) -> None:
        if self.noise is not None:
            scale = np.repeat([self.noise.force_n, self.noise.torque_nm], 3)
            wrenches = wrenches + self._noise.normal(size=wrenches.shape) * scale
        self._samples = np.concatenate([self._samples, wrenches])

    @property
    def time_s(self) -> float:
        """Seconds since the episode's first moment."""
        return self.steps / CONTROL_HZ

    @property
    def situation(self) -> Situation:
        """What the simulator knows."""
        world = self.world
        return Situation(
            world.hand, world.opening, world.peg, world.tip, world.seen_hole, world.true_hole, self.direction
        )

    @property
    def sensor(self) -> SensorSamples:
        """All samples of the episode so far; those of the 0.2 s before its first moment have negative times."""
        times_s = (np.arange(1, len(self._samples) + 1) - self._history) / SENSOR_HZ
        return SensorSamples(times_s, self._samples.astype(np.float32))

    def _observe(self) -> Observation:
        self._moment += 1
        moment, everything = self._moment, self.sensor
        return Observation(
            views=LazyViews(self.cameras, lambda: self._moment == moment, f"insertion at {self.time_s:.2f} s"),
            state=np.array([*self.world.hand, self.world.opening], dtype=np.float32),
            task=TASK,
            time_s=self.time_s,
            sensor=SensorSamples(everything.times_s[-self._window :], everything.values[-self._window :]),
        )

    def step(self, action: np.ndarray) -> tuple[Observation, bool, dict[str, Any]]:
        """Run 0.05 s.

        Args:
            action: [4]: motion of the hand in m, each clipped to +-`ACTION_LIMIT_M`, and gripper, clipped to -1..1.

        Returns:
            the observation after it; whether the episode is over; and "success", "depth_m" of the tip in the hole,
            "peak_force_n" and "mean_force_n" of the step (without the sensor's noise), "contact".

        Raises:
            DataError: an action of another shape, or not finite; a step after the episode's end.
        """
        if not self._running:
            raise DataError("the episode is over", where="insertion", fix="Call reset(seed).")
        numbers = np.asarray(action, dtype=np.float64)
        where = f"insertion at {self.time_s:.2f} s: action"
        if numbers.shape != (4,):
            raise DataError("an action of another shape", where=where, got=numbers.shape, expected="(4,)")
        if not np.isfinite(numbers).all():
            raise DataError("an action is not finite", where=where, got=numbers.tolist())
        move = np.clip(numbers[:3], -ACTION_LIMIT_M, ACTION_LIMIT_M)
        wrenches = self.world.advance(move, float(np.clip(numbers[3], -1.0, 1.0)))
        self._sense(wrenches)
        self.steps += 1
        force_n = np.linalg.norm(wrenches[:, :3], axis=1)
        tip, hole = self.world.tip, self.world.true_hole
        depth_m = float(hole[0] - tip[0])
        success = bool(depth_m >= SUCCESS_DEPTH_M and np.abs(tip - hole)[1:].max() < 0.02)
        done = success or self.steps >= self.max_steps
        self._running = not done
        info = {
            "success": success,
            "depth_m": depth_m,
            "peak_force_n": float(force_n.max()),
            "mean_force_n": float(force_n.mean()),
            "contact": bool(force_n.max() > 1.0),
        }
        return self._observe(), done, info

    def close(self) -> None:
        """Free the simulator and its pictures."""
        self.cameras.close()
        self.world.close()

    def __enter__(self) -> InsertionEnv:
        return self

    def __exit__(self, *problem: object) -> None:
        self.close()


def _check_choice(what: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise DataError(f"no such {what}", where="insertion", got=value, expected=" or ".join(known) or "None")

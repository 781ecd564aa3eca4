"""The numbers of a robot to tensors and back: state, sensor window and action chunk, normalised."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hfvla.data.signals.normalize import Normalizer
from hfvla.data.signals.sensor_loader import SensorSamples
from hfvla.data.signals.sensors import SensorSeries
from hfvla.errors import CheckpointError, DataError

__all__ = ["NORMALIZED", "RobotSignals"]

NORMALIZED = ("action", "state", "sensor")
"""What is normalised, by statistics fitted on the training rows and saved with the processor."""


class RobotSignals:
    """The part of `SensorVLAProcessor` that deals with numbers; its attributes are set there."""

    action: dict[str, Any]
    state_dim: int
    sensor: dict[str, Any] | None
    normalizers: Mapping[str, Any]
    _normalizers: dict[str, Normalizer]

    @property
    def horizon(self) -> int:
        """H, actions a chunk."""
        return int(self.action["horizon"])

    @property
    def action_dim(self) -> int:
        """A, channels of an action."""
        return int(self.action["dim"])

    @property
    def fps(self) -> float:
        """Actions a second."""
        return float(self.action["fps"])

    @property
    def window_s(self) -> float:
        """Seconds that the sensor window covers; 0.0 without a sensor."""
        return self.sensor["points"] / self.sensor["rate_hz"] if self.sensor else 0.0

    def normalizer(self, name: str) -> Normalizer:
        """Return one of the fitted normalisations, by its name in `NORMALIZED`.

        Raises:
            CheckpointError: its statistics are missing.
        """
        if name not in self._normalizers:
            if name not in self.normalizers:
                raise CheckpointError(
                    f"statistics of the {name} are missing", where="SensorVLAProcessor.normalizers",
                    got=sorted(self.normalizers), expected=list(NORMALIZED),
                    fix="They are fitted on the training rows when a run starts; load the processor of that run.",
                )  # fmt: skip
            self._normalizers[name] = Normalizer.from_dict(self.normalizers[name], f"statistics of the {name}")
        return self._normalizers[name]

    def encode_state(self, states: Sequence[np.ndarray], where: Sequence[str] = ()) -> Tensor:
        """Normalise states to [B, S] float32.

        Raises:
            DataError: another number of channels, or a value that is not finite.
        """
        for number, state in enumerate(states):
            self.check_state(state, where[number] if where else f"sample {number}")
        return torch.from_numpy(self.normalizer("state").apply(np.stack(states)).astype(np.float32))

    def check_state(self, state: np.ndarray, where: str) -> None:
        """Raise a DataError unless a state is [S] and finite."""
        if np.shape(state) != (self.state_dim,):
            raise DataError("size of the state", where=where, got=np.shape(state), expected=f"({self.state_dim},)")
        if not np.isfinite(state).all():
            raise DataError("the state is not finite", where=where, got=np.asarray(state).tolist())

    def encode_sensor(
        self, windows: Sequence[SensorSamples | None], ends_s: Sequence[float], where: Sequence[str] = ()
    ) -> dict[str, Tensor]:
        """Lay sensor samples to the window's clock and normalise them.

        Args:
            windows: samples up to each step; None without a sensor.
            ends_s: each step's time, float64 seconds of the samples' clock; the window's last point.
            where: names of the samples, for errors.

        Returns:
            `dict`: sensor [B, P, C] float32 (0 where not measured), sensor_present [B] and sensor_mask [B, P] bool.

        Raises:
            DataError: another number of channels, NaN, falling times, or clocks that do not overlap.
        """
        facts = self.sensor or {}
        shape = (len(windows), int(facts["points"]), int(facts["channels"]))
        values, mask = np.zeros(shape, np.float32), np.zeros(shape[:2], bool)
        for number, window in enumerate(windows):
            if window is None:
                continue
            name = where[number] if where else f"sample {number}"
            if window.values.ndim != 2 or window.values.shape[1] != shape[2]:
                raise DataError(
                    "channels of the sensor", where=name, got=window.values.shape, expected=f"[N, {shape[2]}]"
                )
            found = SensorSeries(window.times_s, window.values, name).window(
                ends_s[number], shape[1], facts["rate_hz"], tolerance_s=facts["tolerance_s"], method=facts["method"]
            )
            if not found.mask.any():
                raise DataError(
                    "the sensor's samples do not reach into its window", where=name,
                    got=f"samples from {window.times_s[0]:.6f} to {window.times_s[-1]:.6f} s",
                    expected=f"within {self.window_s:.3f} s before {ends_s[number]:.6f} s",
                    fix="Do both clocks count the same seconds?",
                )  # fmt: skip
            mask[number] = found.mask
            values[number][found.mask] = self.normalizer("sensor").apply(found.values[found.mask])
        return {
            "sensor": torch.from_numpy(values),
            "sensor_present": torch.tensor([window is not None for window in windows]),
            "sensor_mask": torch.from_numpy(mask),
        }

    def encode_actions(self, actions: Sequence[Any], masks: Sequence[Any], where: Sequence[str]) -> dict[str, Tensor]:
        """Normalise chunks to actions [B, H, A] float32 (0 where masked) with action_mask [B, H] bool.

        Raises:
            DataError: another number of steps or channels, or a value that is not finite.
        """
        expected = (self.horizon, self.action_dim)
        chunks = []
        for chunk, name in zip(actions, where, strict=True):
            array = np.asarray(chunk, dtype=np.float64)
            if array.shape != expected:
                raise DataError("size of an action chunk", where=name, got=array.shape, expected=expected)
            chunks.append(array)
        mask = np.asarray(masks, dtype=bool)
        values = np.stack(chunks)
        bad = ~np.isfinite(values).all(axis=2) & mask
        if bad.any():
            sample, step = map(int, np.argwhere(bad)[0])
            raise DataError("an action is not finite", where=f"{where[sample]}, step {step}", got=values[sample, step])
        normalised = np.where(mask[..., None], self.normalizer("action").apply(values), 0.0)
        return {"actions": torch.from_numpy(normalised.astype(np.float32)), "action_mask": torch.from_numpy(mask)}

    def decode_actions(self, actions: Tensor | np.ndarray) -> np.ndarray:
        """Bring normalised [..., A] back to the robot's units, float64; a channel that training never moved stays."""
        array = actions.detach().float().cpu().numpy() if isinstance(actions, Tensor) else np.asarray(actions)
        normalizer = self.normalizer("action")
        return np.where(normalizer.constant, normalizer.offset, normalizer.invert(array))

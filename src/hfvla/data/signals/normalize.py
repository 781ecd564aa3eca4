"""Normalisation of states, actions and sensors: statistics fitted in one pass, saved as JSON, applied and inverted.

All arithmetic is float64; nothing is clamped unless asked, since a clamped action cannot be inverted.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal

import numpy as np

from hfvla.errors import DataError

__all__ = ["FeatureStatistics", "Normalizer", "StatisticsFitter", "fit_statistics"]

Mode = Literal["mean_std", "quantile", "min_max"]
_MODES = ("mean_std", "quantile", "min_max")

_CONSTANT = 1e-8  # a dimension whose spread is below this share of its magnitude is constant: float32 resolves 6e-8


@dataclass(frozen=True)
class FeatureStatistics:
    """Statistics of D dimensions over the rows of a training split; every list has D numbers.

    Attributes:
        count: rows.
        mean: of each dimension.
        std: population standard deviation.
        minimum: smallest value.
        maximum: largest value.
        low: quantile `levels[0]`.
        high: quantile `levels[1]`.
        levels: the two quantile levels.
        names: of the dimensions; empty when unknown.
    """

    count: int
    mean: list[float]
    std: list[float]
    minimum: list[float]
    maximum: list[float]
    low: list[float]
    high: list[float]
    levels: list[float]
    names: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Return plain lists and numbers, as JSON keeps them exactly."""
        return asdict(self)

    @classmethod
    def from_dict(cls, saved: dict[str, Any], where: str = "statistics") -> FeatureStatistics:
        """Read what `to_dict` gave.

        Raises:
            DataError: a key is missing or unknown, or a list differs in length or holds what is not a finite number.
        """
        wanted = {entry.name for entry in fields(cls)}
        if set(saved) != wanted:
            raise DataError(
                "keys of the statistics differ",
                where=where,
                got=sorted(saved),
                expected=sorted(wanted),
                fix="Fit them anew on the training split",
            )
        statistics = cls(**saved)
        for name in ("mean", "std", "minimum", "maximum", "low", "high"):
            values = getattr(statistics, name)
            if len(values) != len(statistics.mean) or not all(np.isfinite(values)):
                raise DataError(
                    f"'{name}' is unusable", where=where, got=values, expected=f"{len(statistics.mean)} finite numbers"
                )
        return statistics


class StatisticsFitter:
    """Collect rows, then `finish`: moments by Chan's update, quantiles from a uniform sample of rows.

    Up to `sample_rows` rows the quantiles are exact (numpy's linear interpolation); beyond, they are those of a
    uniform sample, off by about sqrt(q (1 - q) / sample_rows) in rank (0.0002 at q = 0.01 and the default). The result
    does not depend on how rows are cut into calls, but for float rounding of the moments.

    Args:
        name: of what is fitted, for errors.
        dims: D, number of dimensions; taken from the first rows when not given.
        levels: the two quantile levels.
        sample_rows: rows kept for the quantiles; D * 8 bytes each.
        names: of the dimensions.
        seed: of the sample.
    """

    def __init__(
        self,
        name: str = "rows",
        dims: int | None = None,
        levels: tuple[float, float] = (0.01, 0.99),
        sample_rows: int = 200_000,
        names: Sequence[str] = (),
        seed: int = 0,
    ) -> None:
        if not 0.0 <= levels[0] < levels[1] <= 1.0:
            raise DataError("quantile levels", where=name, got=levels, expected="two rising numbers in 0..1")
        self.name, self.dims, self.levels, self.sample_rows = name, dims, levels, sample_rows
        self.names, self.count = list(names), 0
        self._random = np.random.default_rng(seed)
        self._rows: list[np.ndarray] = []
        self._keys: list[np.ndarray] = []
        self._kept = 0

    def update(self, rows: np.ndarray) -> None:
        """Add rows [N, D].

        Raises:
            DataError: another number of dimensions, or a value that is not finite, named by row and dimension.
        """
        rows = np.asarray(rows, dtype=np.float64)
        if self.dims is None and rows.ndim == 2:
            self.dims = rows.shape[1]
        if rows.ndim != 2 or rows.shape[1] != self.dims:
            raise DataError("wrong shape", where=self.name, got=rows.shape, expected=f"[N, {self.dims}]")
        if not len(rows):
            return
        bad = np.argwhere(~np.isfinite(rows))
        if len(bad):
            row, dim = map(int, bad[0])
            raise DataError(
                f"{len(bad)} values are not finite, the first in row {self.count + row}, dimension {dim}",
                where=self.name,
                got=float(rows[row, dim]),
                fix="Repair or leave out the episode",
            )
        self._add_moments(rows)
        self._add_sample(rows)

    def finish(self) -> FeatureStatistics:
        """Return the statistics.

        Raises:
            DataError: no row was given.
        """
        if not self.count:
            raise DataError("no rows to fit statistics on", where=self.name, fix="Check the training split")
        self._prune()
        low, high = np.quantile(self._rows[0], self.levels, axis=0)
        return FeatureStatistics(
            count=self.count,
            mean=self._mean.tolist(),
            std=np.sqrt(self._squares / self.count).tolist(),
            minimum=self._minimum.tolist(),
            maximum=self._maximum.tolist(),
            low=low.tolist(),
            high=high.tolist(),
            levels=list(self.levels),
            names=self.names,
        )

    def _add_moments(self, rows: np.ndarray) -> None:
        mean, squares = rows.mean(0), np.square(rows - rows.mean(0)).sum(0)
        if not self.count:
            self._mean, self._squares = mean, squares
            self._minimum, self._maximum = rows.min(0), rows.max(0)
        else:
            total, shift = self.count + len(rows), mean - self._mean
            self._mean = self._mean + shift * (len(rows) / total)
            self._squares = self._squares + squares + shift**2 * (self.count * len(rows) / total)
            self._minimum = np.minimum(self._minimum, rows.min(0))
            self._maximum = np.maximum(self._maximum, rows.max(0))
        self.count += len(rows)

    def _add_sample(self, rows: np.ndarray) -> None:
        """Keep the rows with the smallest random keys: a uniform sample, whatever the order of the calls' sizes."""
        self._rows.append(rows.copy())
        self._keys.append(self._random.random(len(rows)))
        self._kept += len(rows)
        if self._kept > 2 * self.sample_rows:
            self._prune()

    def _prune(self) -> None:
        rows, keys = np.concatenate(self._rows), np.concatenate(self._keys)
        if len(keys) > self.sample_rows:
            kept = np.argpartition(keys, self.sample_rows - 1)[: self.sample_rows]
            rows, keys = rows[kept], keys[kept]
        self._rows, self._keys, self._kept = [rows], [keys], len(keys)


def fit_statistics(batches: Iterable[np.ndarray], name: str = "rows", **options: Any) -> FeatureStatistics:
    """Fit statistics on batches of rows [N, D] in one pass; options as in `StatisticsFitter`."""
    fitter = StatisticsFitter(name, **options)
    for rows in batches:
        fitter.update(rows)
    return fitter.finish()


class Normalizer:
    """Affine map of D dimensions and its inverse: `(x - offset) / scale`.

    - "mean_std": to mean 0 and standard deviation 1.
    - "quantile": the two quantiles to -1 and 1. A dimension whose quantiles are equal though it moves, as a gripper
      that is nearly always closed, uses its minimum and maximum.
    - "min_max": minimum and maximum to -1 and 1.

    A constant dimension is shifted and not scaled: its training values become 0, and others stay invertible.

    Args:
        statistics: of the training split.
        mode: see above.
        clip: clamp normalised values to +- this; what was clamped does not come back.

    Raises:
        DataError: unknown mode, or a clip that is not positive.
    """

    def __init__(self, statistics: FeatureStatistics, mode: Mode = "mean_std", clip: float | None = None) -> None:
        if mode not in _MODES:
            raise DataError("unknown normalisation", got=mode, expected=", ".join(_MODES))
        if clip is not None and not clip > 0:
            raise DataError("clip of a normalisation", got=clip, expected="more than 0, or none")
        self.statistics, self.mode, self.clip = statistics, mode, clip
        arrays = {name: np.asarray(getattr(statistics, name)) for name in ("mean", "std", "minimum", "maximum")}
        minimum, maximum = arrays["minimum"], arrays["maximum"]
        smallest = _CONSTANT * np.maximum(np.abs(minimum), np.abs(maximum))
        self.constant = maximum - minimum <= smallest  # [D]
        if mode == "mean_std":
            offset, scale = arrays["mean"], arrays["std"]
        else:
            low, high = minimum, maximum
            if mode == "quantile":
                flat = np.subtract(statistics.high, statistics.low) <= smallest
                low, high = np.where(flat, minimum, statistics.low), np.where(flat, maximum, statistics.high)
            offset, scale = (low + high) / 2, (high - low) / 2
        self.offset, self.scale = offset, np.where(self.constant, 1.0, scale)

    def apply(self, values: np.ndarray) -> np.ndarray:
        """Normalise [..., D] to float64 [..., D].

        Raises:
            DataError: the last dimension is not D.
        """
        normalised = (self._checked(values) - self.offset) / self.scale
        return normalised if self.clip is None else normalised.clip(-self.clip, self.clip)

    def invert(self, values: np.ndarray) -> np.ndarray:
        """Bring normalised [..., D] back to physical units, float64.

        Raises:
            DataError: the last dimension is not D.
        """
        return self._checked(values) * self.scale + self.offset

    def to_dict(self) -> dict[str, Any]:
        """Return a dict for JSON."""
        return {"mode": self.mode, "clip": self.clip, "statistics": self.statistics.to_dict()}

    @classmethod
    def from_dict(cls, saved: dict[str, Any], where: str = "normalizer") -> Normalizer:
        """Read what `to_dict` gave.

        Raises:
            DataError: something is missing, or the statistics are unusable.
        """
        if set(saved) != {"mode", "clip", "statistics"}:
            raise DataError("keys differ", where=where, got=sorted(saved), expected="mode, clip, statistics")
        return cls(FeatureStatistics.from_dict(saved["statistics"], where), saved["mode"], saved["clip"])

    def _checked(self, values: np.ndarray) -> np.ndarray:
        values = np.asarray(values, dtype=np.float64)
        if not values.ndim or values.shape[-1] != len(self.offset):
            raise DataError("wrong number of dimensions", got=values.shape, expected=f"[..., {len(self.offset)}]")
        return values

"""Datasets of one HDF5 episode by name, with errors that tell what is missing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from hfvla.data.signals.clocks import Clock, to_nanoseconds
from hfvla.data.sources.census import UnusableError
from hfvla.errors import did_you_mean

__all__ = ["SENSOR", "EpisodeContents"]

_IMAGES, SENSOR = "observations/images", "observations/sensor"


@contextmanager
def _damage_named(what: str) -> Iterator[None]:
    """Turn what h5py raises where a file is damaged into an error that says what was being read."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, UnicodeDecodeError) as error:
        raise UnusableError("HDF5 file is damaged", f"{what}: {(str(error).splitlines() or [''])[0]}") from error


class EpisodeContents:
    """What an open file holds.

    Args:
        file: an open `h5py.File`.

    Attributes:
        datasets: by path inside the file.

    Raises:
        UnusableError: the file is damaged.
    """

    def __init__(self, file: Any) -> None:
        self.file = file
        self.datasets: dict[str, Any] = {}
        with _damage_named("its list of datasets"):
            file.visititems(lambda name, item: self.datasets.update({name: item} if hasattr(item, "shape") else {}))
        broken = next((name for name in self.datasets if not isinstance(name, str)), None)
        if broken is not None:
            raise UnusableError("HDF5 file is damaged", f"name {broken!r}")

    @property
    def task(self) -> str | None:
        """The file's attribute "task", None without one."""
        with _damage_named("attribute task"):
            found = self.file.attrs.get("task")
            text = found.decode("utf-8") if isinstance(found, bytes) else found
        if text is not None and (not isinstance(text, str) or not text):
            raise UnusableError("task is no text", f"attribute task: {found!r}")
        return text

    @property
    def views(self) -> dict[str, Any]:
        """Datasets of pictures by camera."""
        start = f"{_IMAGES}/"
        return {name.removeprefix(start): one for name, one in self.datasets.items() if name.startswith(start)}

    def read(self, name: str) -> np.ndarray:
        """Read a whole dataset.

        Raises:
            UnusableError: there is none of the name, or it is damaged.
        """
        if name not in self.datasets:
            raise UnusableError("dataset is missing", f"{name}. {did_you_mean(name, self.datasets)}")
        with _damage_named(name):
            return np.asarray(self.datasets[name][()])

    def read_sensor(self, clock: Clock) -> tuple[np.ndarray, np.ndarray] | None:
        """Read the sensor: force, then aline, those that are there, side by side.

        Returns:
            [N] int64 nanoseconds and [N, C] float32; None without a sensor.

        Raises:
            UnusableError: neither force nor aline, no timestamp, lengths that differ, no numbers, or no sample.
        """
        if not any(name.startswith(f"{SENSOR}/") for name in self.datasets):
            return None
        names = [name for name in (f"{SENSOR}/force", f"{SENSOR}/aline") if name in self.datasets]
        if not names:
            raise UnusableError("dataset is missing", f"{SENSOR}/force or {SENSOR}/aline")
        stamps, parts = self.read(f"{SENSOR}/timestamp"), []
        if not stamps.size:
            raise UnusableError("empty sensor series", SENSOR)
        for name in names:
            values = self.read(name)
            if values.dtype.kind not in "iuf" or not 1 <= values.ndim <= 2:
                raise UnusableError("not a sensor series", f"{name}: {values.dtype} {values.shape}")
            if len(values) != stamps.size:
                raise UnusableError("lengths differ", f"{len(values)} of {name}, {stamps.size} of its timestamp")
            parts.append(values.reshape(len(values), -1).astype(np.float32))
        return to_nanoseconds(stamps, clock, f"{SENSOR}/timestamp"), np.concatenate(parts, axis=1)

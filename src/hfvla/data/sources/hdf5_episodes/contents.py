"""Datasets of one HDF5 episode by name, with errors that tell what is missing."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from hfvla.data.signals.clocks import Clock, to_nanoseconds
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.hdf5_checks import HDF5_ERRORS, MAX_ARRAY_BYTES, check_dataset, dataset_bytes
from hfvla.data.sources.hdf5_episodes.layouts import ACT, Layout
from hfvla.data.sources.hdf5_rows import import_h5py, open_hdf5
from hfvla.data.text import clean_text, text_problem
from hfvla.errors import DataError, did_you_mean

__all__ = ["SENSOR", "EpisodeContents"]

_MOST_DATASETS, _DEEPEST = 10_000, 32  # links can make a few groups into any number of paths
SENSOR = "observations/sensor"


@contextmanager
def _damage_named(what: str) -> Iterator[None]:
    """Turn what h5py raises where a file is damaged into an error that says what was being read."""
    try:
        yield
    except HDF5_ERRORS as error:
        got = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnusableError("HDF5 file is damaged", f"{what}: {got}") from error


class EpisodeContents:
    """What an open file holds; datasets behind soft, hard and external links are datasets like any other.

    Args:
        file: an open `h5py.File`.
        root: folder that external links stay inside; the file's own when absent.
        group: of the episode; the whole file when empty.
        layout: where an episode keeps what.

    Attributes:
        datasets: by path inside the file.
        lost: links that lead nowhere, out of the root or in a circle, by path, with the reason.

    Raises:
        UnusableError: the file is damaged.
    """

    def __init__(self, file: Any, root: Path | None = None, group: str = "", layout: Layout = ACT) -> None:
        self.file, self.layout, self.group = file, layout, group
        self._root = os.path.normpath(root or Path(file.filename).absolute().parent)
        self._others: dict[str, Any] = {}
        self.datasets: dict[str, Any] = {}
        self.lost: dict[str, str] = {}
        with _damage_named("its list of datasets"):
            self._look_into(file[group] if group else file, "", ())

    def close(self) -> None:
        """Close the files behind external links."""
        for other in self._others.values():
            other.close()

    def _look_into(self, group: Any, prefix: str, trail: tuple[tuple[str, int], ...]) -> None:
        h5py = import_h5py()
        trail = (*trail, (group.file.filename, int(h5py.h5o.get_info(group.id).addr)))
        for name in group:
            if not isinstance(name, str):
                raise UnusableError("HDF5 file is damaged", f"name {name!r}")
            path = f"{prefix}{name}"
            if len(self.datasets) + len(self.lost) >= _MOST_DATASETS or len(trail) > _DEEPEST:
                raise UnusableError("more datasets than are looked at", f"{path}: at most {_MOST_DATASETS}")
            try:
                item = self._follow(group, name)
            except DataError as error:
                self.lost[path] = f"{error.what}: {error.got}"
                continue
            if isinstance(item, h5py.Dataset):
                self.datasets[path] = item
            elif isinstance(item, h5py.Group):
                if (item.file.filename, int(h5py.h5o.get_info(item.id).addr)) in trail:
                    self.lost[path] = "link in a circle"
                else:
                    self._look_into(item, f"{path}/", trail)

    def _follow(self, group: Any, name: str) -> Any:
        """Return what a name stands for.

        Raises:
            DataError: a link that leads nowhere or out of the root.
        """
        h5py = import_h5py()
        link = group.get(name, getlink=True)
        if isinstance(link, h5py.HardLink):
            return group[name]
        if isinstance(link, h5py.SoftLink):
            try:
                target = group.get(name)
            except HDF5_ERRORS as error:
                raise DataError("link in a circle", where=name, got=link.path) from error
            if target is None:
                raise DataError("link to nothing", where=name, got=link.path)
            if target.file.filename != group.file.filename:
                self._inside(os.path.abspath(target.file.filename), target.file.filename)
            return target
        if not isinstance(link, h5py.ExternalLink):
            raise DataError("link of an unknown kind", where=name, got=type(link).__name__)
        path = self._inside(os.path.join(os.path.dirname(os.path.abspath(group.file.filename)), link.filename),
                            link.filename)  # fmt: skip
        if path not in self._others:
            self._others[path] = open_hdf5(path)
        target = self._others[path].get(link.path)
        if target is None:
            raise DataError("link to nothing", where=name, got=f"{link.filename}:{link.path}")
        return target

    def _inside(self, path: str, shown: str) -> str:
        path = os.path.normpath(path)
        if not Path(path).is_relative_to(self._root):
            raise DataError("link out of the data set", where=self.file.filename, got=shown)
        return path

    @property
    def task(self) -> str | None:
        """The episode's attribute "task", None without one."""
        with _damage_named("attribute task"):
            owner = self.file[self.group] if self.group else self.file
            found = owner.attrs.get("task")
            text = found.decode("utf-8") if isinstance(found, bytes) else found
        if text is not None and (not isinstance(text, str) or not text.strip() or text_problem(text)):
            raise UnusableError("task is no text", f"attribute task: {found!r}"[:200])
        return None if text is None else clean_text(text)

    @property
    def views(self) -> list[str]:
        """Names of the cameras, of those behind lost links too."""
        return self.layout.views(self.datasets, list(self.lost))

    def dataset(self, name: str) -> Any:
        """Return a dataset whose values are all in the file itself.

        Raises:
            UnusableError: there is none of the name, a link to it is lost, or it is damaged.
            DataError: it is virtual, stored elsewhere, or was never written in full.
        """
        if name in self.lost or name not in self.datasets:
            lost = next((one for one in self.lost if name == one or name.startswith(f"{one}/")), None)
            if lost is not None:
                raise UnusableError("link cannot be followed", f"{lost}: {self.lost[lost]}")
            raise UnusableError("dataset is missing", f"{name}. {did_you_mean(name, self.datasets)}")
        with _damage_named(name):
            check_dataset(self.datasets[name], name)
        return self.datasets[name]

    def camera(self, view: str) -> Any:
        """Return a camera's dataset; see `dataset`."""
        return self.dataset(f"{self.layout.images or self.layout.observations}/{view}")

    def read(self, name: str) -> np.ndarray:
        """Read a whole dataset.

        Raises:
            UnusableError: see `dataset`, or it is larger than what is read at once.
            DataError: see `dataset`.
        """
        dataset = self.dataset(name)
        with _damage_named(name):
            if dataset_bytes(dataset) > MAX_ARRAY_BYTES:
                detail = f"{name}: {dataset.dtype} {dataset.shape}, at most {MAX_ARRAY_BYTES} bytes"
                raise UnusableError("dataset is too large", detail)
            return np.asarray(dataset[()])

    def read_sensor(self, clock: Clock) -> tuple[np.ndarray, np.ndarray] | None:
        """Read the sensor: force, then aline, those that are there, side by side.

        Returns:
            [N] int64 nanoseconds and [N, C] float32; None without a sensor.

        Raises:
            UnusableError: neither force nor aline, no timestamp, lengths that differ, no numbers, or no sample.
        """
        there = {*self.datasets, *self.lost}
        if not any(name == SENSOR or name.startswith(f"{SENSOR}/") for name in there):
            return None
        names = [name for name in (f"{SENSOR}/force", f"{SENSOR}/aline") if name in there]
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

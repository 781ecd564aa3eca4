"""Pictures stored in HDF5 files, by row: raw, or encoded as JPEG or PNG."""

from __future__ import annotations

import os
import stat
import threading
from collections import OrderedDict
from typing import Any

import numpy as np
from PIL import Image

from hfvla.data.pictures import MAX_PIXELS, load_picture, read_picture
from hfvla.data.sources.hdf5_checks import HDF5_ERRORS, check_own_values, dataset_bytes
from hfvla.errors import DataError, MissingExtraError

__all__ = ["HDF5_SUFFIXES", "Hdf5Rows", "decode_picture", "import_h5py", "open_hdf5"]

HDF5_SUFFIXES = (".h5", ".hdf5")
"""Endings by which an HDF5 file is told from other files."""

_MAX_ROW_BYTES = 4 * MAX_PIXELS


def import_h5py() -> Any:
    """Return the package h5py.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import h5py
    except ImportError as error:
        raise MissingExtraError("h5py", "actions", "reading HDF5 episodes") from error
    return h5py


def open_hdf5(path: str | os.PathLike[str]) -> Any:
    """Open a file for reading, without a lock (network file systems often have none).

    Raises:
        DataError: missing, truncated, or no HDF5 file.
        MissingExtraError: h5py is not installed.
    """
    where = os.fspath(path)
    try:
        if not stat.S_ISREG(os.stat(where).st_mode):  # a pipe would wait for ever
            raise DataError("HDF5 file cannot be read", where=where, got="not a regular file")
        return import_h5py().File(where, "r", locking=False)
    except HDF5_ERRORS as error:
        raise DataError("HDF5 file cannot be read", where=where, got=_first_line(error)) from error


def decode_picture(dataset: Any, row: int, where: str) -> np.ndarray:
    """Read one picture of a dataset.

    Args:
        dataset: [N, H, W, 3] uint8, or [N, H, W, 4], laid on white; or encoded pictures: [N, L] uint8 padded with
            zeros, or [N] of bytes.
        row: which one.
        where: names the dataset in errors.

    Returns:
        [H, W, 3] uint8. Channels are taken to be red, green, blue.

    Raises:
        DataError: no such row, another kind of dataset (depth, say), one whose values lie elsewhere, or a broken
            picture.
    """
    try:
        shape: tuple[int, ...] = dataset.shape or ()
        kind = dataset.dtype
        raw = len(shape) == 4 and shape[3] in (3, 4) and kind == np.uint8
        if not raw and not (len(shape) == 2 and kind == np.uint8) and not (len(shape) == 1 and kind.kind in "OSV"):
            raise DataError("the dataset holds no pictures", where=where, got=f"{kind} {shape}",
                            expected="[N, H, W, 3] or [N, L] uint8, or [N] of encoded bytes",
                            fix="Name the colour cameras in views.")  # fmt: skip
        if not 0 <= row < shape[0]:
            raise DataError("no such picture", where=where, got=row, expected=f"0 to {shape[0] - 1}")
        check_own_values(dataset, where)
        if dataset_bytes(dataset, 1) > _MAX_ROW_BYTES:
            raise DataError("picture is too large", where=f"{where}[{row}]", got=f"{kind} {shape[1:]}",
                            expected=f"at most {_MAX_ROW_BYTES} bytes")  # fmt: skip
        value = dataset[row]
    except HDF5_ERRORS as error:
        raise DataError("picture cannot be read", where=f"{where}[{row}]", got=_first_line(error)) from error
    if raw and shape[3] == 3:
        return np.asarray(value)
    if raw:
        return np.asarray(load_picture(Image.fromarray(np.asarray(value)), f"{where}[{row}]"))
    return read_picture(value if isinstance(value, bytes) else np.asarray(value).tobytes(), f"{where}[{row}]")


def _first_line(error: BaseException) -> str:
    text = getattr(error, "strerror", None) or str(error)
    return (text.splitlines() or [type(error).__name__])[0]


class Hdf5Rows:
    """Reads pictures by row; files stay open between calls. Safe for several threads, for pickling and for forks.

    Args:
        open_files: files to keep open. A changed file is opened anew.
    """

    def __init__(self, *, open_files: int = 32) -> None:
        self._open_files = open_files
        self._files: OrderedDict[tuple[Any, ...], Any] = OrderedDict()
        self._lock, self._process = threading.Lock(), os.getpid()

    def __getstate__(self) -> dict[str, Any]:
        return {"open_files": self._open_files}

    def __setstate__(self, settings: dict[str, Any]) -> None:
        self.__init__(**settings)  # type: ignore[misc]

    def picture(self, path: str | os.PathLike[str], dataset: str, row: int) -> np.ndarray:
        """Read one picture as [H, W, 3] uint8; see `decode_picture`.

        Raises:
            DataError: missing or broken file, no such dataset or row, or a broken picture.
            MissingExtraError: h5py is not installed.
        """
        where = os.fspath(path)
        if self._process != os.getpid():
            self._leave_parent()
        with self._lock:
            file = self._open(where)
            try:
                found = file.get(dataset)
            except HDF5_ERRORS as error:
                raise DataError("HDF5 file is damaged", where=f"{where}:{dataset}", got=_first_line(error)) from error
            if not hasattr(found, "shape"):
                raise DataError("no such dataset", where=where, got=dataset)
            return decode_picture(found, row, f"{where}:{dataset}")

    def close(self) -> None:
        """Close every file."""
        with self._lock:
            while self._files:
                self._files.popitem()[1].close()

    def _leave_parent(self) -> None:
        """In a forked child, close what it inherited: an open file must not belong to two processes."""
        inherited, self._files = self._files, OrderedDict()
        self._lock, self._process = threading.Lock(), os.getpid()
        for file in inherited.values():
            file.close()

    def _open(self, where: str) -> Any:
        try:
            status = os.stat(where)
        except OSError as error:
            raise DataError("HDF5 file cannot be read", where=where, got=error.strerror or str(error)) from error
        key = (os.path.abspath(where), status.st_mtime_ns, status.st_size)
        if key not in self._files:
            for old in [one for one in self._files if one[0] == key[0]]:  # HDF5 would answer from what it knows of it
                self._files.pop(old).close()
            self._files[key] = open_hdf5(where)
        self._files.move_to_end(key)
        while len(self._files) > self._open_files:
            self._files.popitem(last=False)[1].close()
        return self._files[key]

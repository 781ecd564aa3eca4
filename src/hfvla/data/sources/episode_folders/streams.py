"""The three recordings of an episode folder, each with the times of its own clock in nanoseconds."""

from __future__ import annotations

import csv
import hashlib
import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hfvla.data.pictures import read_picture
from hfvla.data.signals.clocks import Clock, parse_times, to_nanoseconds
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.episode_folders.layouts import list_pictures
from hfvla.data.sources.hdf5_checks import MAX_ARRAY_BYTES
from hfvla.data.sources.json_files import MAX_TEXT_BYTES
from hfvla.data.sources.parquet_rows import check_regular
from hfvla.errors import did_you_mean

__all__ = ["hash_files", "load_picture_times", "load_sensor", "load_states"]

NPZ_ERRORS = (OSError, RuntimeError, ValueError, TypeError, LookupError, ArithmeticError, MemoryError, EOFError,
              SyntaxError, struct.error, zipfile.BadZipFile, zlib.error)  # fmt: skip
"""What zipfile and NumPy raise where a file is damaged, encrypted or packed in a way that is not known."""

_MAX_FILE_BYTES = 4 * MAX_ARRAY_BYTES
_NEW_ARRAYS, _OLD_ARRAYS = ("data",), ("forces", "alines")


def load_picture_times(folder: Path, clock: Clock) -> tuple[np.ndarray, list[Path]]:
    """Return a view's pictures by time: [N] int64 nanoseconds from their names, and their paths.

    Only the first one is decoded; damage in another shows when it is read.

    Raises:
        UnusableError: no picture, one that is empty, a name that is no time, or two of one time.
        DataError: the first is broken.
    """
    paths = list_pictures(folder)
    times_ns = parse_times([path.stem for path in paths], clock, f"file names of {folder.name}")
    order = np.argsort(times_ns, kind="stable")
    times_ns, paths = times_ns[order], [paths[place] for place in order]
    same = np.flatnonzero(np.diff(times_ns) == 0)
    if same.size:
        names = f"{paths[same[0]].name} and {paths[same[0] + 1].name}"
        raise UnusableError("two pictures of one time", f"{folder.name}: {names}")
    read_picture(str(paths[0]), f"{folder.name}/{paths[0].name}")
    return times_ns, paths


def load_states(
    paths: Sequence[Path], columns: Sequence[str], time_column: str, clock: Clock
) -> tuple[np.ndarray, np.ndarray]:
    """Read columns of robot states.

    Args:
        paths: CSV files that follow one another.
        columns: C names.
        time_column: name of the times.
        clock: of the times.

    Returns:
        [N] int64 nanoseconds, and [N, C] float64.

    Raises:
        UnusableError: an unreadable file, a missing column, a short row, a cell that is no finite number, no row, or
            times that do not ascend.
    """
    times, rows = list[str](), list[list[float]]()
    for path in paths:
        for number, cells in enumerate(_cells(path, [time_column, *columns]), start=2):
            try:
                times.append(cells[0])
                rows.append([_number(cell) for cell in cells[1:]])
            except ValueError as error:
                raise UnusableError("not a number", f"{path.name}:{number}: {error}") from error
            bad = [name for name, value in zip(columns, rows[-1], strict=True) if not np.isfinite(value)]
            if bad:
                raise UnusableError("value is not finite", f"{path.name}:{number}: {bad[0]}")
    if not rows:
        raise UnusableError("empty episode", f"{paths[0].name}: no row")
    times_ns = parse_times(times, clock, f"{time_column} of {paths[0].name}")
    falls = np.flatnonzero(np.diff(times_ns) <= 0)
    if falls.size:
        raise UnusableError(
            "state times do not ascend", f"{paths[0].name}: row {falls[0] + 2} at {times[falls[0] + 1]}"
        )
    return times_ns, np.array(rows, dtype=np.float64).reshape(len(rows), len(columns))


def _number(cell: str) -> float:
    """Return a number as recorders write it; Python itself takes 1_0 for ten."""
    if "_" in cell or not cell.isascii():
        raise ValueError(f"could not convert string to float: {cell!r}")
    return float(cell)


def _cells(path: Path, columns: Sequence[str]) -> list[list[str]]:
    """Return the cells of some columns, row by row."""
    try:
        if check_regular(path).st_size > MAX_TEXT_BYTES:
            raise UnusableError("robot states are too large", f"{path.name}: over {MAX_TEXT_BYTES} bytes")
        with path.open(encoding="utf-8-sig", newline="") as file:
            rows = [row for row in csv.reader(file) if row]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise UnusableError("robot states cannot be read", f"{path.name}: {error}") from error
    header = [name.strip() for name in rows[0]] if rows else []
    for name in columns:
        if header.count(name) > 1:
            raise UnusableError("column is there twice", f"{path.name}: {name}")
        if name not in header:
            raise UnusableError("column is missing", f"{path.name}: {name}. {did_you_mean(name, header)}")
    places = [header.index(name) for name in columns]
    for number, row in enumerate(rows[1:], start=2):
        if len(row) != len(header):
            raise UnusableError(
                "row of another length", f"{path.name}:{number}: {len(row)} cells, header has {len(header)}"
            )
    return [[row[place].strip() for place in places] for row in rows[1:]]


def load_sensor(paths: Sequence[Path], layout: str, clock: Clock) -> tuple[np.ndarray, np.ndarray]:
    """Read a sensor series.

    Args:
        paths: npz files that follow one another.
        layout: "new" (timestamps, data) or "old" (timestamps, forces, alines: put side by side in this order).
        clock: of the times.

    Returns:
        [N] int64 nanoseconds, and [N, C] float32.

    Raises:
        UnusableError: an unreadable file, a missing array, lengths or channels that differ, or no sample.
    """
    times, values = [], []
    for path in paths:
        arrays = _arrays(path, ("timestamps", *(_NEW_ARRAYS if layout == "new" else _OLD_ARRAYS)))
        stamps, parts = arrays.pop("timestamps"), []
        if not stamps.size:
            raise UnusableError("empty sensor series", path.name)
        for name, array in arrays.items():
            if array.dtype.kind not in "iuf" or not 1 <= array.ndim <= 2:
                raise UnusableError("not a sensor series", f"{path.name}: {name} {array.dtype} {array.shape}")
            if len(array) != stamps.size:
                raise UnusableError(
                    "sensor lengths differ", f"{path.name}: {len(array)} of {name}, {stamps.size} timestamps"
                )
            parts.append(array.reshape(len(array), -1).astype(np.float32))
        times.append(to_nanoseconds(stamps, clock, f"timestamps of {path.name}"))
        values.append(np.concatenate(parts, axis=1))
    widths = {part.shape[1] for part in values}
    if len(widths) > 1:
        raise UnusableError("sensor channels differ", f"{sorted(widths)} in {', '.join(path.name for path in paths)}")
    return np.concatenate(times), np.concatenate(values)


def _arrays(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        check_regular(path)
        with zipfile.ZipFile(path) as archive:
            members = archive.namelist()
            known = [name.removesuffix(".npy") for name in members]
            for name in names:
                if name not in known:
                    raise UnusableError("array is missing", f"{path.name}: {name}. {did_you_mean(name, known)}")
                if known.count(name) > 1:
                    raise UnusableError("array is there twice", f"{path.name}: {name}")
            return {name: _array(archive, members[known.index(name)], path) for name in names}
    except NPZ_ERRORS as error:
        raise UnusableError("sensor file cannot be read", f"{path.name}: {str(error)[:200]}") from error


def _array(archive: zipfile.ZipFile, member: str, path: Path) -> np.ndarray:
    """Read one array; what its header promises is compared with what the archive holds, before memory is taken."""
    held = archive.getinfo(member).file_size
    if held > MAX_ARRAY_BYTES:
        raise UnusableError("array is too large", f"{path.name}: {member}, {held} bytes, at most {MAX_ARRAY_BYTES}")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
        if kind.hasobject:
            raise ValueError("pickled objects are not read")
        promised, held = math.prod(shape) * kind.itemsize, held - file.tell()
    if promised != held:
        raise UnusableError(
            "array of another size than its header says",
            f"{path.name}: {member}, {kind} {shape} are {promised} bytes, the file holds {held}",
        )
    with archive.open(member) as file:
        return np.asarray(np.lib.format.read_array(file, allow_pickle=False))


def hash_files(paths: Sequence[Path]) -> str:
    """Return one SHA-256 of the contents of files.

    Raises:
        UnusableError: one cannot be read.
    """
    together = hashlib.sha256()
    for path in paths:
        try:
            if check_regular(path).st_size > _MAX_FILE_BYTES:
                raise UnusableError("sensor file is too large", f"{path.name}: over {_MAX_FILE_BYTES} bytes")
            with path.open("rb") as file:
                together.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise UnusableError("sensor file cannot be read", f"{path.name}: {error.strerror}") from error
    return together.hexdigest()

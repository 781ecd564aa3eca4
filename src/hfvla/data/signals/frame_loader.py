"""Pictures of a step's cameras: frames of videos by timestamp, picture files, pictures in tables and HDF5 files."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hfvla.data.pictures import read_picture
from hfvla.data.samples.actions import FrameRef
from hfvla.data.sources.hdf5_rows import HDF5_SUFFIXES, Hdf5Rows
from hfvla.data.sources.parquet_rows import ParquetRows
from hfvla.data.video import FrameRequest, VideoFrames, VideoReader
from hfvla.errors import DataError

__all__ = ["FrameLoader"]


class FrameLoader:
    """Reads pictures by reference, video files side by side; decoders, tables and HDF5 files stay open.

    Args:
        tolerance_s: how far a video frame's own time may lie from the time asked for. Must be less than half the
            distance between two frames.
        reader: of videos; one that keeps 32 files open when absent.
        tables: of pictures stored in tables.
        arrays: of pictures stored in HDF5 files.

    Raises:
        DataError: the tolerance is not positive.
    """

    def __init__(
        self,
        *,
        tolerance_s: float = 1e-4,
        reader: VideoReader | None = None,
        tables: ParquetRows | None = None,
        arrays: Hdf5Rows | None = None,
    ) -> None:
        if not tolerance_s > 0:
            raise DataError("no such tolerance", got=tolerance_s, expected="tolerance_s > 0")
        self.tolerance_s = tolerance_s
        self.reader = reader or VideoReader(open_files=32)
        self.tables = tables or ParquetRows(cache_bytes=1 << 27)
        self.arrays = arrays or Hdf5Rows()

    def load(self, refs: Sequence[FrameRef], *, short_side: int | None = None) -> list[np.ndarray]:
        """Read pictures.

        Args:
            refs: any number of any kind; the frames of one video are read together.
            short_side: scale video frames down to this short side; never up.

        Returns:
            one [H, W, 3] uint8 RGB array a reference, in their order; not to be written to.

        Raises:
            DataError: a file is missing or broken, or no frame lies within the tolerance of a time (names it).
        """
        videos: dict[str, list[int]] = {}
        for place, ref in enumerate(refs):
            if ref.time_s is not None:
                videos.setdefault(ref.path, []).append(place)
        found: dict[int, np.ndarray] = {}
        times = {path: np.array([_time(refs[place]) for place in places]) for path, places in videos.items()}
        # The frame on display a tolerance later is the one within the tolerance, whichever side of the time it is on.
        requests = [FrameRequest(path, times[path] + self.tolerance_s, short_side) for path in videos]
        for request, result in zip(requests, self.reader.read_many(requests), strict=True):
            frames: Any = result  # read_many returns errors only where asked to
            self._check(str(request.path), times[str(request.path)], frames)
            found |= dict(zip(videos[str(request.path)], frames.pixels, strict=True))
        return [found[place] if place in found else self._picture(ref) for place, ref in enumerate(refs)]

    def _check(self, path: str, times_s: np.ndarray, frames: VideoFrames) -> None:
        gaps_s = np.abs(frames.times_s - times_s)
        if (gaps_s > self.tolerance_s + 1e-9).any():
            first = int(np.argmax(gaps_s > self.tolerance_s + 1e-9))
            raise DataError(
                "no frame at that time",
                where=path,
                got=f"frame {frames.indices[first]} at {frames.times_s[first]:.6f} s for {times_s[first]:.6f} s",
                expected=f"a frame within {self.tolerance_s} s",
                fix="Are the frame rate and the timestamps those of this video?",
            )

    def _picture(self, ref: FrameRef) -> np.ndarray:
        if ref.column and ref.path.lower().endswith(HDF5_SUFFIXES):
            return self.arrays.picture(ref.path, ref.column, ref.row)
        where = f"{ref.path}:{ref.column}[{ref.row}]" if ref.column else ref.path
        return read_picture(self._stored(ref, where) if ref.column else ref.path, where)

    def _stored(self, ref: FrameRef, where: str) -> bytes:
        cell = self.tables.read(ref.path, ref.column, ref.row, 1)[0].as_py()
        content = cell.get("bytes") if isinstance(cell, dict) else cell
        if not isinstance(content, bytes):
            raise DataError("the table holds no picture", where=where, got=type(content).__name__, expected="bytes")
        return content


def _time(ref: FrameRef) -> float:
    return float(ref.time_s) if ref.time_s is not None else 0.0

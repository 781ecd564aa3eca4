"""The backends by name: which are there and work here, and decord and torchcodec in PyAV's harness.

PyAV reads the table of frames for every backend, so that a timestamp means the same frame in each; the other two then
decode frame numbers, and are refused where they are known to decode something else.
"""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Any, Literal, Protocol

import numpy as np

from hfvla.data.video.packets import open_video
from hfvla.data.video.pyav import PyAVDecoder
from hfvla.data.video.records import Timeline, VideoInfo
from hfvla.errors import DataError, MissingExtraError, did_you_mean

__all__ = [
    "BACKENDS",
    "CHOICE",
    "Backend",
    "Decoder",
    "available_backends",
    "chosen_backend",
    "open_decoder",
    "use_backend",
]

Backend = Literal["auto", "pyav", "torchcodec", "decord"]
BACKENDS = ("pyav", "torchcodec", "decord")
"""In the order of preference: PyAV is as fast as the others or faster on every clip of benchmarks/video_decode.py."""

CHOICE = "HFVLA_VIDEO_BACKEND"
"""Environment variable that says what "auto" means."""

_MODULES = {"pyav": "av", "torchcodec": "torchcodec.decoders", "decord": "decord"}
# Where the three give equal pixels. On MPEG-TS and AVI decord returns neighbouring frames; on 10-bit and on
# interlaced video each backend makes RGB in its own way.
_SHARED_FORMATS = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p"}
_SHARED_CONTAINERS = {"mov", "mp4", "matroska", "webm"}
_CLOCK_GAP_S = 1e-3  # decord keeps times in 32 bits
_NO_FFMPEG = "torchcodec found no FFmpeg that it can load"


class Decoder(Protocol):
    """An open video file; not for two threads at a time."""

    name: str
    timeline: Timeline

    def info(self) -> VideoInfo:
        """Describe the video."""

    def decode(self, indices: Sequence[int], threads: int = 1) -> dict[int, np.ndarray]:
        """Decode frames by number: [H, W, 3] uint8 RGB each."""

    def close(self) -> None:
        """Give back what the decoder holds."""


@lru_cache(maxsize=1)
def available_backends() -> dict[str, str]:
    """Try each backend in a process of its own, where a broken installation can do no harm.

    Returns:
        backend to "" when it works, else why it does not, on one line.
    """
    with ThreadPoolExecutor(len(_MODULES)) as pool:
        return dict(zip(_MODULES, pool.map(_try_import, _MODULES.values()), strict=True))


def _try_import(module: str) -> str:
    code = (
        f"import importlib, sys; importlib.import_module({module!r}); package = sys.modules.get('torchcodec'); "
        f"sys.exit({_NO_FFMPEG!r} if getattr(package, 'ffmpeg_major_version', 0) is None else 0)"
    )
    try:
        trial = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    lines = trial.stderr.strip().splitlines()
    return "" if trial.returncode == 0 else (lines[-1] if lines else f"exit code {trial.returncode}")


def use_backend(backend: Backend) -> None:
    """Let "auto" mean a backend from now on, in this process and in those that it starts (data loader workers).

    Raises:
        DataError: there is none of that name.
    """
    os.environ[CHOICE] = backend
    chosen_backend()


def chosen_backend() -> Backend:
    """Return what "auto" means: what `HFVLA_VIDEO_BACKEND` says, else the first of `BACKENDS`.

    Raises:
        DataError: it names none.
    """
    chosen = os.environ.get(CHOICE) or "auto"
    if chosen not in ("auto", *BACKENDS):
        raise DataError("unknown video backend", where=CHOICE, got=chosen, fix=did_you_mean(chosen, BACKENDS))
    return BACKENDS[0] if chosen == "auto" else chosen  # type: ignore[return-value]


def open_decoder(
    where: str, backend: Backend = "auto", timeline: Timeline | None = None, *, quick: bool = False
) -> Decoder:
    """Open a file with a backend ("auto": what was chosen for this process, else the first of `BACKENDS`).

    Raises:
        DataError: unknown backend, not a video, truncated, or not decoded equally by the backend asked for.
        MissingExtraError: the backend is not installed.
    """
    if backend == "auto":
        backend = chosen_backend()
    if backend == "pyav":
        return PyAVDecoder(where, timeline, quick=quick)
    if backend == "decord":
        return _DecordDecoder(where, timeline)
    if backend == "torchcodec":
        return _TorchcodecDecoder(where, timeline)
    raise DataError(
        "unknown video backend", got=backend, expected=["auto", *BACKENDS], fix=did_you_mean(backend, BACKENDS)
    )


def _import(name: str) -> Any:
    try:
        module = importlib.import_module(_MODULES[name])
        # Later releases can be imported without FFmpeg, for their pictures; then each video fails.
        if name == "torchcodec" and getattr(sys.modules["torchcodec"], "ffmpeg_major_version", 0) is None:
            raise RuntimeError(_NO_FFMPEG)
        return module
    except ModuleNotFoundError as error:
        if name == "torchcodec":  # no extra: which release fits depends on torch's
            raise DataError(
                "the video backend 'torchcodec' is not installed", fix="Install it with: pip install torchcodec"
            ) from error
        raise MissingExtraError(name, "video", f"the video backend '{name}'") from error
    except (ImportError, OSError, RuntimeError) as error:
        raise DataError(
            f"the video backend '{name}' does not start",
            got=str(error).strip().splitlines()[0],
            expected="FFmpeg's shared libraries (torchcodec brings none)",
            fix='Install FFmpeg (make system-libs), or use backend="pyav".',
        ) from error


class _GuestDecoder:
    """What decord and torchcodec share: PyAV's table and description, and refusal of what they decode otherwise."""

    name = ""

    def __init__(self, where: str, timeline: Timeline | None) -> None:
        self._module = _import(self.name)
        self.where = where
        self._check_container()
        host = PyAVDecoder(where, timeline)
        try:
            self.timeline = host.timeline
            self._info = host.info()
        finally:
            host.close()
        if self._info.pixel_format not in _SHARED_FORMATS:
            raise self._refusal(f"pixel format '{self._info.pixel_format}'", f"one of {sorted(_SHARED_FORMATS)}")
        if self._info.interlaced or self._info.mirrored:
            raise self._refusal("interlaced or mirrored frames", "progressive ones, as they are shown")

    def _check_container(self) -> None:
        container, _ = open_video(self.where)
        name, streams = container.format.name, len(container.streams.video)
        container.close()
        if streams > 1:
            raise self._refusal(f"{streams} video streams", "one")
        if not _SHARED_CONTAINERS & set(name.split(",")):
            raise self._refusal(f"container '{name}'", f"one of {sorted(_SHARED_CONTAINERS)}")

    def _refusal(self, got: object, expected: object) -> DataError:
        return DataError(
            f"{self.name} does not decode this video frame for frame",
            where=self.where,
            got=got,
            expected=expected,
            fix='Use backend="pyav".',
        )

    def _check_clock(self, times_s: np.ndarray, indices: Sequence[int]) -> None:
        """Raise unless the backend's own frame times are those of the table."""
        gap = np.abs(np.asarray(times_s, dtype=np.float64) - self.timeline.times_s[list(indices)])
        if not (gap < _CLOCK_GAP_S).all():
            worst = int(np.argmax(gap))
            raise self._refusal(
                f"frame {indices[worst]} at {times_s[worst]:.6f} s", f"{self.timeline.times_s[indices[worst]]:.6f} s"
            )

    def info(self) -> VideoInfo:
        """Describe the video, as PyAV sees it."""
        return VideoInfo(**{**vars(self._info), "backend": self.name})

    def close(self) -> None:
        """Drop the reader; both packages free it with the object."""
        self._reader: Any = None


class _DecordDecoder(_GuestDecoder):
    name = "decord"

    def __init__(self, where: str, timeline: Timeline | None) -> None:
        super().__init__(where, timeline)
        self._reader: Any = None

    def _open(self, threads: int) -> Any:
        reader = self._module.VideoReader(self.where, ctx=self._module.cpu(0), num_threads=threads, fault_tol=0)
        if len(reader) != len(self.timeline):
            raise self._refusal(f"{len(reader)} frames", f"{len(self.timeline)}")
        everything = range(len(reader))
        self._check_clock(reader.get_frame_timestamp(everything)[:, 0], everything)
        return reader

    def decode(self, indices: Sequence[int], threads: int = 1) -> dict[int, np.ndarray]:
        indices = sorted(set(indices))
        try:
            if self._reader is None:
                self._reader = self._open(threads)
            if self.timeline.open_groups:
                return self._decode_in_order(indices)
            pixels = self._reader.get_batch(indices).asnumpy()
        except DataError:
            raise
        except Exception as error:  # decord's errors have no common base
            raise self._refusal(str(error).strip().splitlines()[0], "all frames decoded") from error
        return dict(zip(indices, pixels, strict=True))

    def _decode_in_order(self, indices: Sequence[int]) -> dict[int, np.ndarray]:
        """Decode every frame from the first on: decord's jumps lose what frames ahead of a key frame build on."""
        self._reader.seek(0)
        frames, wanted = {}, set(indices)
        for index in range(indices[-1] + 1):
            frame = self._reader.next()
            if index in wanted:
                frames[index] = frame.asnumpy()
        return frames


class _TorchcodecDecoder(_GuestDecoder):
    name = "torchcodec"

    def __init__(self, where: str, timeline: Timeline | None) -> None:
        super().__init__(where, timeline)
        self._reader: Any = None

    def decode(self, indices: Sequence[int], threads: int = 1) -> dict[int, np.ndarray]:
        indices = sorted(set(indices))
        try:
            if self._reader is None:
                self._reader = self._module.VideoDecoder(
                    self.where, dimension_order="NHWC", num_ffmpeg_threads=threads, seek_mode="exact"
                )
            if len(self._reader) != len(self.timeline):
                raise self._refusal(f"{len(self._reader)} frames", f"{len(self.timeline)}")
            batch = self._reader.get_frames_at(indices)
        except (RuntimeError, ValueError, IndexError) as error:
            raise self._refusal(str(error).strip().splitlines()[0], "all frames decoded") from error
        self._check_clock(batch.pts_seconds.numpy() - self.timeline.start_s, indices)
        return dict(zip(indices, batch.data.numpy(), strict=True))

"""The one way to read frames: by timestamp, with decoders kept open, decoded frames remembered, files in parallel."""

from __future__ import annotations

import gc
import os
import weakref
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Literal

import numpy as np

from hfvla.data.video.backends import Backend, Decoder, open_decoder
from hfvla.data.video.cache import DecoderPool, FrameCache, RecentItems
from hfvla.data.video.files import FileIdentity, check_video_file
from hfvla.data.video.records import FrameRequest, PastEnd, Timeline, VideoFrames, VideoInfo
from hfvla.data.video.scaling import one_size, scale_down
from hfvla.errors import DataError

__all__ = ["VideoReader", "probe", "read_frames"]

_QUICK_SUFFIXES = (".mp4", ".mov", ".m4v")
_FORKED: list[Any] = []  # decoders inherited through fork: neither usable nor closable, so held until the process ends


class VideoReader:
    """Reads frames by timestamp, with bounded memories; safe for several threads, forks and pickling.

    Args:
        backend: "auto", or a name of `BACKENDS`; equal frames whichever it is.
        cache_bytes: decoded frames to remember (0: none). A changed file is never served from memory.
        open_files: decoders to keep open between reads.
        threads: cores for one read; as many as this process may use when absent. Data-loader workers want 1.

    Raises:
        DataError: a number is out of range.
    """

    def __init__(
        self, *, backend: Backend = "auto", cache_bytes: int = 0, open_files: int = 8, threads: int | None = None
    ) -> None:
        if cache_bytes < 0 or open_files < 0 or (threads is not None and threads < 1):
            raise DataError(
                "no such video reader",
                got={"cache_bytes": cache_bytes, "open_files": open_files, "threads": threads},
                expected="cache_bytes >= 0, open_files >= 0, threads >= 1",
            )
        self.backend, self.threads = backend, threads or _cores()
        self._cache_bytes, self._open_files = cache_bytes, open_files
        self._build_memories()
        _READERS.add(self)

    def _build_memories(self) -> None:
        self.cache = FrameCache(self._cache_bytes)
        self.decoders = DecoderPool(self._open_files)
        self._timelines: RecentItems[Timeline] = RecentItems(1024)

    def __getstate__(self) -> dict[str, Any]:
        return {
            "backend": self.backend,
            "cache_bytes": self._cache_bytes,
            "open_files": self._open_files,
            "threads": self.threads,
        }

    def __setstate__(self, settings: dict[str, Any]) -> None:
        self.__init__(**settings)  # type: ignore[misc]

    def __enter__(self) -> VideoReader:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the decoders and forget all frames; the reader can be used again."""
        self.decoders.close()
        self._build_memories()

    def probe(self, path: str | os.PathLike[str]) -> VideoInfo:
        """Describe a video and decode its first frame.

        Raises:
            DataError: missing, not a video, no frames, or truncated.
        """
        identity = check_video_file(path)
        with _Lease(self, identity, os.fspath(path)) as decoder:
            return decoder.info()

    def locate(
        self, path: str | os.PathLike[str], times_s: Sequence[float] | np.ndarray, *, past_end: PastEnd = "error"
    ) -> np.ndarray:
        """Return the numbers of the frames that `read` would give, [T] int64, without decoding them.

        Args:
            path: video file.
            times_s: [T] seconds from the first frame.
            past_end: see `read`.

        Raises:
            DataError: see `read`.
        """
        where, identity = os.fspath(path), check_video_file(path)
        timeline = self._timelines.get(identity)
        if timeline is None:
            with _Lease(self, identity, where) as decoder:
                timeline = decoder.timeline
        return timeline.select(times_s, where=where, past_end=past_end)[0]

    def read(
        self,
        path: str | os.PathLike[str],
        times_s: Sequence[float] | np.ndarray,
        *,
        short_side: int | None = None,
        past_end: PastEnd = "error",
        threads: int | None = None,
    ) -> VideoFrames:
        """Read the frames on display at the given moments.

        Args:
            path: video file.
            times_s: [T] seconds from the first frame; any order, repeats allowed.
            short_side: scale down to this short side (bicubic, antialiased); never up.
            past_end: "clamp" gives the last frame for moments past the end, and counts them.
            threads: cores for this read; the reader's when absent.

        Raises:
            DataError: the file is missing, not a video, truncated or damaged; a moment is negative, not finite or
                past the end; no moment at all.
            MissingExtraError: the backend is not installed.
        """
        where = os.fspath(path)
        if short_side is not None and short_side < 1:
            raise DataError("no such size", where=where, got=short_side, expected="short_side >= 1")
        identity = check_video_file(path)
        timeline = self._timelines.get(identity)
        frames: dict[int, np.ndarray] = {}
        if timeline is not None:
            indices, clamped = timeline.select(times_s, where=where, past_end=past_end)
            frames = self._remembered(identity, indices, short_side)
        if timeline is None or len(frames) < len(set(indices.tolist())):
            with _Lease(self, identity, where) as decoder:
                timeline = decoder.timeline
                indices, clamped = timeline.select(times_s, where=where, past_end=past_end)
                missing = sorted(set(indices.tolist()) - frames.keys())
                decoded = decoder.decode(missing, threads or self.threads)
            for index, pixels in decoded.items():
                frames[index] = scale_down(pixels, short_side)
                self.cache.put((identity, index, short_side), frames[index])
        pixels = np.stack(one_size([frames[index] for index in indices.tolist()], where))
        return VideoFrames(pixels, timeline.times_s[indices], indices, clamped, _name(self.backend))

    def read_many(
        self,
        requests: Iterable[FrameRequest],
        *,
        workers: int | None = None,
        past_end: PastEnd = "error",
        on_error: Literal["raise", "return"] = "raise",
    ) -> list[VideoFrames | DataError]:
        """Read several videos or cameras side by side.

        Args:
            requests: what to read.
            workers: files at a time; the reader's `threads` when absent.
            past_end: see `read`.
            on_error: "return" puts the `DataError` of a file in its place, to be counted and named by the caller.

        Returns:
            one result a request, in the order of the requests.

        Raises:
            DataError: of the first request that fails, with `on_error="raise"`.
        """
        requests = list(requests)
        workers = min(workers or self.threads, len(requests))
        if workers < 1:
            return []
        threads = max(self.threads // workers, 1)

        def work(request: FrameRequest) -> VideoFrames | DataError:
            try:
                return self.read(
                    request.path, request.times_s, short_side=request.short_side, past_end=past_end, threads=threads
                )
            except DataError as error:
                if on_error == "raise":
                    raise
                return error

        with ThreadPoolExecutor(workers, thread_name_prefix="hfvla-video") as pool:
            return list(pool.map(work, requests))

    def _remembered(
        self, identity: FileIdentity, indices: np.ndarray, short_side: int | None
    ) -> dict[int, np.ndarray]:
        found = {index: self.cache.get((identity, index, short_side)) for index in set(indices.tolist())}
        return {index: pixels for index, pixels in found.items() if pixels is not None}

    def _after_fork(self) -> None:
        _FORKED.extend(self.decoders.abandon())
        self._build_memories()


class _Lease:
    """An open decoder for one `with` block; one that raised is closed, not kept."""

    def __init__(self, reader: VideoReader, identity: FileIdentity, where: str) -> None:
        self._reader, self._identity, self._where = reader, identity, where

    def __enter__(self) -> Decoder:
        reader = self._reader

        def open_new() -> Decoder:
            quick = self._where.lower().endswith(_QUICK_SUFFIXES)
            return open_decoder(self._where, reader.backend, reader._timelines.get(self._identity), quick=quick)

        self._decoder = reader.decoders.borrow(self._identity, open_new)
        reader._timelines.put(self._identity, self._decoder.timeline)
        return self._decoder

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        if kind is None:
            self._reader.decoders.give_back(self._identity, self._decoder)
        else:
            self._decoder.close()


def probe(path: str | os.PathLike[str], *, backend: Backend = "auto") -> VideoInfo:
    """Describe a video; see `VideoReader.probe`."""
    with VideoReader(backend=backend, open_files=0) as reader:
        return reader.probe(path)


def read_frames(
    path: str | os.PathLike[str],
    times_s: Sequence[float] | np.ndarray,
    *,
    backend: Backend = "auto",
    short_side: int | None = None,
    past_end: PastEnd = "error",
    threads: int | None = None,
) -> VideoFrames:
    """Read frames of one file and keep nothing; see `VideoReader.read`."""
    with VideoReader(backend=backend, open_files=0, threads=threads) as reader:
        return reader.read(path, times_s, short_side=short_side, past_end=past_end)


def _name(backend: Backend) -> str:
    return "pyav" if backend == "auto" else backend


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _forget_in_child() -> None:
    # Codecs waiting in the parent's garbage would wait for threads that the child does not have, once collected here.
    gc.freeze()
    for reader in list(_READERS):
        reader._after_fork()


_READERS: weakref.WeakSet[VideoReader] = weakref.WeakSet()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_in_child)

"""The PyAV backend: decodes key-frame groups in parallel and skips frames that nothing else is predicted from."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np

from hfvla.data.video.orientation import UPRIGHT, Orientation, orientation_of
from hfvla.data.video.packets import PacketRun, build_timeline, decoding, import_av, open_video, packet_runs
from hfvla.data.video.records import Timeline, VideoInfo
from hfvla.errors import DataError

__all__ = ["PyAVDecoder"]

logger = logging.getLogger(__name__)

# A decoder of these needs nothing but the packets and the stream's extradata, so that several can run side by side.
_PARALLEL_CODECS = {"h264", "hevc", "av1", "vp8", "vp9"}
# Only H.264 says of a frame that no other is predicted from it (nal_ref_idc 0); HEVC's counterpart holds within one
# temporal layer only.
_SKIPPABLE_CODECS = {"h264"}
# By itself FFmpeg paints over what it cannot decode with parts of other frames and says nothing.
_STRICT = {"err_detect": "explode"}


class PyAVDecoder:
    """An open file. Not for two threads at a time.

    Args:
        where: path.
        timeline: its frame table, when it is known already.
        quick: whether the container's own index can be trusted to describe the stream (MP4 and MOV).

    Raises:
        DataError: see `open_video` and `build_timeline`.
    """

    name = "pyav"

    def __init__(self, where: str, timeline: Timeline | None = None, *, quick: bool = False) -> None:
        self.where = where
        self._quick = quick
        self._container, self._stream = open_video(where, quick=quick)
        self._codec = self._stream.codec_context.name
        self._extradata = self._stream.codec_context.extradata
        self._orientation: Orientation | None = None
        try:
            self.timeline = timeline or build_timeline(self._container, self._stream, where)
        except BaseException:
            self._container.close()
            raise

    def close(self) -> None:
        """Give back the file and its decoder."""
        self._container.close()

    def info(self) -> VideoInfo:
        """Describe the video; decodes its first frame, for its rotation and pixel format."""
        with decoding(self.where):
            frame = self._decode_from_start([0])[0]
            orientation = orientation_of(frame, self.where)
            height, width = orientation.apply(frame.to_ndarray(format="rgb24")).shape[:2]
        line = self.timeline
        return VideoInfo(
            duration_s=line.duration_s,
            frames=len(line),
            fps=len(line) / line.duration_s if line.duration_s else 0.0,
            width=width,
            height=height,
            rotation=orientation.rotation,
            backend=self.name,
            start_s=line.start_s,
            codec=self._codec,
            pixel_format=frame.format.name,
            interlaced=bool(frame.interlaced_frame),
            mirrored=orientation.mirrored,
        )

    def decode(self, indices: Sequence[int], threads: int = 1) -> dict[int, np.ndarray]:
        """Decode frames by number.

        Args:
            indices: frame numbers in the order of display.
            threads: cores to use.

        Returns:
            frame number to [H, W, 3] uint8 RGB, upright.

        Raises:
            DataError: a frame cannot be decoded intact.
        """
        with decoding(self.where):
            return self._decode(sorted(set(indices)), threads)

    def _decode(self, indices: list[int], threads: int) -> dict[int, np.ndarray]:
        frames = self._decode_runs(indices, threads) if self.timeline.seekable else {}
        missing = [index for index in indices if index not in frames]
        if missing:
            if self.timeline.seekable:
                logger.debug("%s: %d frames need decoding from the start", self.where, len(missing))
            frames |= self._decode_from_start(missing)
        if self._orientation is None:  # frames of a decoder that is not the stream's own have no matrix
            found = (orientation_of(frame, self.where) for frame in frames.values())
            self._orientation = next((one for one in found if one != UPRIGHT), UPRIGHT)
        return {index: self._orientation.apply(frames[index].to_ndarray(format="rgb24")) for index in indices}

    def _decode_runs(self, indices: Sequence[int], threads: int) -> dict[int, Any]:
        by_pts: dict[int, Any] = {}
        for runs in packet_runs(self._container, self._stream, self.timeline, indices, self.where):
            by_pts |= self._decode_batch(runs, threads)
        line = self.timeline
        return {index: by_pts[int(line.pts[index])] for index in indices if int(line.pts[index]) in by_pts}

    def _decode_batch(self, runs: list[PacketRun], threads: int) -> dict[int, Any]:
        lanes = _share(runs, threads if self._codec in _PARALLEL_CODECS else 1)
        loads = [sum(run.length for run in lane) for lane in lanes]
        contexts = [self._context(number, math.ceil(threads * load / sum(loads))) for number, load in enumerate(loads)]
        if len(lanes) == 1:
            return _decode_lane(contexts[0], lanes[0])
        with ThreadPoolExecutor(len(lanes), thread_name_prefix="hfvla-video") as pool:
            found = list(pool.map(_decode_lane, contexts, lanes))
        return {pts: frame for part in found for pts, frame in part.items()}

    def _context(self, number: int, threads: int) -> Any:
        """Build a decoder; the first one must be the stream's own, which alone knows the display matrix."""
        if self._codec not in _PARALLEL_CODECS or (number == 0 and self._orientation is None):
            context = self._stream.codec_context
        else:
            context = import_av().CodecContext.create(self._codec, "r")
            context.extradata = self._extradata
        if not context.is_open:
            context.thread_type = "FRAME"
            context.thread_count = threads
            context.options = _STRICT
        return context

    def _decode_from_start(self, indices: Sequence[int]) -> dict[int, Any]:
        """Decode everything up to the last of the frames, with all that FFmpeg can learn about the stream."""
        av = import_av()
        container, stream = open_video(self.where)
        wanted = {index if not self.timeline.seekable else int(self.timeline.pts[index]): index for index in indices}
        frames: dict[int, Any] = {}
        try:
            stream.codec_context.thread_type = "AUTO"
            stream.codec_context.options = _STRICT
            for number, frame in enumerate(container.decode(stream)):
                place = frame.pts if self.timeline.seekable else number
                if place in wanted and not frame.is_corrupt:
                    frames[wanted[place]] = frame
                if len(frames) == len(wanted):
                    break
        except (av.error.FFmpegError, OSError) as error:
            raise self._broken(indices, frames, str(error)) from error
        finally:
            container.close()
        if len(frames) < len(wanted):
            raise self._broken(indices, frames, "damaged or absent")
        return frames

    def _broken(self, indices: Sequence[int], frames: dict[int, Any], reason: str) -> DataError:
        lost = [index for index in indices if index not in frames]
        return DataError(
            f"{len(lost)} of the frames asked for cannot be decoded",
            where=self.where,
            got=f"frame {lost[0]} at {self.timeline.times_s[lost[0]]:.6f} s: {reason}",
            expected=f"all of the {len(self.timeline)} frames intact",
            fix="Copy or record the file again, or drop the row.",
        )


def _share(runs: list[PacketRun], threads: int) -> list[list[PacketRun]]:
    """Spread runs over at most `threads` lanes of about equal length."""
    lanes: list[list[PacketRun]] = [[] for _ in range(max(min(threads, len(runs)), 1))]
    loads = [0] * len(lanes)
    for run in sorted(runs, key=lambda run: -run.length):
        lane = loads.index(min(loads))
        lanes[lane].append(run)
        loads[lane] += run.length
    return lanes


def _decode_lane(context: Any, runs: list[PacketRun]) -> dict[int, Any]:
    """Decode runs one after the other with one decoder; frames that come out damaged are left out."""
    av = import_av()
    found: dict[int, Any] = {}
    skippable = context.name in _SKIPPABLE_CODECS
    for run in runs:
        try:
            for packet in chain(run.packets, [None]):
                if skippable and packet is not None:
                    needed = packet.is_keyframe or packet.pts in run.wanted
                    context.skip_frame = "DEFAULT" if needed else "NONREF"
                for frame in context.decode(packet):
                    if frame.pts in run.wanted and not frame.is_corrupt:
                        found[frame.pts] = frame
        except av.error.FFmpegError as error:
            logger.debug("a run of %d packets does not decode: %s", run.length, error)
        context.flush_buffers()
    return found

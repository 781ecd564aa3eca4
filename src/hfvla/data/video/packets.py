"""Opening a file with PyAV, its frame table from packets alone, and the packets that lead to a frame."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hfvla.data.video.files import truncated
from hfvla.data.video.records import Timeline
from hfvla.errors import DataError, MissingExtraError

__all__ = ["PacketRun", "build_timeline", "import_av", "open_video", "packet_runs"]

logger = logging.getLogger(__name__)

# Demuxers that make "frames" of anything: FFmpeg opens a text file as a terminal recording.
_NOT_VIDEO = ("image2", "tty", "bin", "xbin", "adf", "idf")
# The file's index holds everything that FFmpeg otherwise learns by decoding the first frames (5 to 15 ms).
_QUICK = {"probesize": "32", "analyzeduration": "1"}
_VIDEO_EXPECTED = "a video file (mp4, mov, mkv, webm, avi, ts)"


def import_av() -> Any:
    """Import PyAV.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import av
    except ImportError as error:
        raise MissingExtraError("av", "video", "reading video") from error
    return av


def open_video(where: str, *, quick: bool = False) -> tuple[Any, Any]:
    """Open a file and return (container, first video stream).

    Args:
        where: path.
        quick: skip the look at the first frames; the stream's pixel format is then unknown.

    Raises:
        DataError: not a video, a picture, or no video stream.
    """
    av = import_av()
    try:
        container = av.open(where, options=_QUICK if quick else {})
    except (av.error.FFmpegError, OSError) as error:
        raise DataError("not a video", where=where, got=_reason(error), expected=_VIDEO_EXPECTED) from error
    name = container.format.name
    if name in _NOT_VIDEO or name.endswith("_pipe"):
        container.close()
        raise DataError("not a video", where=where, got=f"format '{name}'", expected=_VIDEO_EXPECTED)
    if not container.streams.video:
        kinds = sorted({stream.type for stream in container.streams}) or "no stream"
        container.close()
        raise DataError("file holds no video stream", where=where, got=kinds, expected=_VIDEO_EXPECTED)
    stream = container.streams.video[0]
    if stream.codec_context is None:
        container.close()
        raise DataError("no decoder for this video's codec", where=where, fix="Convert it to H.264 with ffmpeg.")
    return container, stream


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def build_timeline(container: Any, stream: Any, where: str) -> Timeline:
    """Read the times of all frames from the packets; decodes only where packets carry no reliable times (AVI).

    Raises:
        DataError: no frame, truncated, or no times at all.
    """
    packets = [packet for packet in _packets(container, stream, where) if packet.size]
    if not packets:
        raise DataError("video has no frames", where=where, got="0 frames", expected="at least one")
    _check_complete(packets, stream, where)
    if all(packet.pts is None and packet.dts is None for packet in packets):
        raise _no_times(container, where)
    if container.format.name == "avi" or any(packet.pts is None for packet in packets):
        return _decoded_timeline(container, stream, where)
    shown = sorted((packet for packet in packets if not packet.is_discard), key=lambda packet: packet.pts)
    keys = sorted((packet for packet in packets if packet.is_keyframe), key=lambda packet: packet.pts)
    if not shown or not keys:
        raise DataError("video has no frames", where=where, got=f"{len(shown)} shown, {len(keys)} key frames")
    pts = np.unique(np.array([packet.pts for packet in shown], dtype=np.int64))
    last = shown[-1].duration or (int(np.median(np.diff(pts))) if len(pts) > 1 else 0)
    tick = stream.time_base
    _check_tagged_duration(stream, float((int(pts[-1]) + last) * tick), where)
    return Timeline(
        pts=pts,
        times_s=(pts - pts[0]) * tick.numerator / tick.denominator,
        key_pts=np.array([packet.pts for packet in keys], dtype=np.int64),
        key_dts=np.array([packet.pts if packet.dts is None else packet.dts for packet in keys], dtype=np.int64),
        duration_s=float((int(pts[-1] - pts[0]) + last) * tick) or _nominal_frame_s(stream),
        start_s=float(int(pts[0]) * tick),
        open_groups=_has_open_groups(packets),
    )


def _packets(container: Any, stream: Any, where: str) -> Iterator[Any]:
    av = import_av()
    try:
        yield from container.demux(stream)
    except (av.error.FFmpegError, OSError) as error:
        raise DataError("video breaks off while reading", where=where, got=_reason(error)) from error


def _check_complete(packets: Sequence[Any], stream: Any, where: str) -> None:
    if stream.frames and len(packets) < stream.frames:
        raise truncated(where, f"{len(packets)} frames", f"{stream.frames}, as its header says")
    damaged = sum(packet.is_corrupt for packet in packets)
    if damaged:
        raise truncated(where, f"{damaged} cut-off frames", "none")


def _check_tagged_duration(stream: Any, end_s: float, where: str) -> None:
    """Matroska counts no frames, but its writers tag each track's length: "00:00:08.840000000"."""
    parts = stream.metadata.get("DURATION", "").split(":")
    try:
        hours, minutes, seconds = (float(part) for part in parts)
    except ValueError:
        return  # no tag, or not a duration
    promised_s = 3600 * hours + 60 * minutes + seconds
    if end_s < promised_s - 0.5:
        raise truncated(where, f"{end_s:.3f} s", f"{promised_s:.3f} s, as its header says")


def _nominal_frame_s(stream: Any) -> float:
    rate = stream.average_rate or stream.guessed_rate
    return float(1 / rate) if rate else 0.0


def _no_times(container: Any, where: str) -> DataError:
    return DataError(
        "frames carry no times, or times that go back",
        where=where,
        got=f"format '{container.format.name}'",
        expected="a time for each frame",
        fix="Convert it: ffmpeg -i FILE FILE.mp4",
    )


def _has_open_groups(packets: Sequence[Any]) -> bool:
    """Whether frames that follow a key packet are shown before it, and so need the group before to be decoded."""
    key_pts = None
    for packet in packets:
        if packet.is_keyframe:
            key_pts = packet.pts
        elif key_pts is not None and packet.pts < key_pts:
            return True
    return False


def _decoded_timeline(container: Any, stream: Any, where: str) -> Timeline:
    """Number the frames as they come out of the decoder; a read then counts from the start."""
    av = import_av()
    logger.info("%s: packets carry no times; decoding it once to number its frames", where)
    try:
        container.seek(0)
        times = [frame.time for frame in container.decode(stream)]
    except (av.error.FFmpegError, OSError) as error:
        raise DataError("video cannot be decoded", where=where, got=_reason(error)) from error
    if not times:
        raise DataError("video has no frames", where=where, got="0 frames", expected="at least one")
    if any(time is None for time in times) or (np.diff(times) <= 0).any():
        raise _no_times(container, where)
    seconds = np.array(times, dtype=np.float64)
    last_s = float(np.median(np.diff(seconds))) if len(seconds) > 1 else _nominal_frame_s(stream)
    none = np.zeros(1, dtype=np.int64)
    return Timeline(
        pts=np.arange(len(seconds), dtype=np.int64),
        times_s=seconds - seconds[0],
        key_pts=none,
        key_dts=none,
        duration_s=float(seconds[-1] - seconds[0]) + last_s,
        start_s=float(seconds[0]),
        seekable=False,
    )


@dataclass
class PacketRun:
    """Packets in decoding order, from a key packet through the last one wanted.

    Attributes:
        packets: what to feed the decoder.
        wanted: pts of the frames to keep.
    """

    packets: list[Any]
    wanted: set[int]


def packet_runs(
    container: Any, stream: Any, timeline: Timeline, indices: Sequence[int], where: str
) -> list[PacketRun]:
    """Read the packets that lead to the given frames, each group from its nearest key packet.

    Raises:
        DataError: reading fails, or a packet of the frame table is no longer there.
    """
    groups: dict[int, set[int]] = {}
    for index in indices:
        groups.setdefault(timeline.start_key(index), set()).add(int(timeline.pts[index]))
    return [_run(container, stream, timeline, key, wanted, where) for key, wanted in sorted(groups.items())]


def _run(container: Any, stream: Any, timeline: Timeline, key: int, wanted: set[int], where: str) -> PacketRun:
    key_pts = int(timeline.key_pts[key])
    # A demuxer may land late (MPEG-TS seeks by guess): from the start of the file the key packet is always ahead.
    for position in (int(timeline.key_dts[key]), None):
        container.seek(int(min(timeline.key_dts[0], timeline.pts[0])) if position is None else position, stream=stream)
        run: list[Any] = []
        missing = set(wanted)
        for packet in _packets(container, stream, where):
            if not run and not (packet.is_keyframe and packet.pts == key_pts):
                if packet.is_keyframe and packet.pts is not None and packet.pts > key_pts:
                    break
                continue
            if packet.size:
                run.append(packet)
                missing.discard(packet.pts)
            if not missing:
                return PacketRun(run, wanted)
    raise DataError(
        "packets of the video cannot be found again",
        where=where,
        got=f"{len(missing)} missing after the key frame at tick {key_pts}",
        fix="Was the file changed while it was read?",
    )

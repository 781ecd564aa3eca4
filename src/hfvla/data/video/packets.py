"""Opening a file with PyAV, its frame table from packets alone, and the packets that lead to a frame."""

from __future__ import annotations

import logging
from array import array
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np

from hfvla.data.video.files import truncated
from hfvla.data.video.records import Timeline
from hfvla.errors import DataError, MissingExtraError

__all__ = ["PacketRun", "build_timeline", "decoding", "import_av", "open_video", "packet_runs"]

logger = logging.getLogger(__name__)

# Demuxers that make "frames" of anything: FFmpeg opens a text file as a terminal recording.
_NOT_VIDEO = ("image2", "tty", "bin", "xbin", "adf", "idf")
# The file's index holds everything that FFmpeg otherwise learns by decoding the first frames (5 to 15 ms).
_QUICK = {"probesize": "32", "analyzeduration": "1"}
_RUN_BYTES = 1 << 25  # of packets in memory at a time
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
    """Open a file and return (container, video stream).

    The stream is the first one that is no attached picture and, where there are several, has more than one frame: a
    cover picture that comes first is not the clip.

    Args:
        where: path.
        quick: skip the look at the first frames; the stream's pixel format is then unknown.

    Raises:
        DataError: not a video, a picture, or no video stream.
    """
    av = import_av()
    try:
        container = av.open(where, options=_QUICK if quick else {}, metadata_errors="replace")
    except (av.error.FFmpegError, OSError, ValueError) as error:
        raise DataError("not a video", where=where, got=_reason(error), expected=_VIDEO_EXPECTED) from error
    name = container.format.name
    if name in _NOT_VIDEO or name.endswith("_pipe"):
        container.close()
        raise DataError("not a video", where=where, got=f"format '{name}'", expected=_VIDEO_EXPECTED)
    stream = _clip_stream(container, where)
    if stream is None:
        kinds = sorted({stream.type for stream in container.streams}) or "no stream"
        container.close()
        raise DataError("file holds no video stream", where=where, got=kinds, expected=_VIDEO_EXPECTED)
    if stream.codec_context is None:
        container.close()
        raise DataError("no decoder for this video's codec", where=where, fix="Convert it to H.264 with ffmpeg.")
    return container, stream


def _clip_stream(container: Any, where: str) -> Any:
    """Return the stream that is the clip; None without a video stream."""
    av = import_av()
    streams = [one for one in container.streams.video if not _is_attached(one)]
    if len(streams) < 2:
        return streams[0] if streams else None
    for stream in streams:
        try:  # in a container of its own: the given one is not to be read on from here
            with av.open(where, metadata_errors="replace") as other:
                frames = (packet for packet in other.demux(other.streams[stream.index]) if packet.size)
                if next(frames, None) is not None and next(frames, None) is not None:
                    return stream
        except (av.error.FFmpegError, OSError, ValueError):
            continue
    return streams[0]


def _is_attached(stream: Any) -> bool:
    found = getattr(stream, "disposition", None)  # PyAV has it since 14.1
    return found is not None and bool(found & type(found).attached_pic)


def _reason(error: BaseException) -> str:
    return getattr(error, "strerror", None) or str(error)


def build_timeline(container: Any, stream: Any, where: str) -> Timeline:
    """Read the times of all frames from the packets; decodes only where packets carry no reliable times (AVI).

    Raises:
        DataError: no frame, truncated, or no times at all.
    """
    table = _read_table(container, stream, where)
    if not table.count:
        raise DataError("video has no frames", where=where, got="0 frames", expected="at least one")
    _check_complete(table, stream, where)
    if not table.timed:
        raise _no_times(container, where)
    if container.format.name == "avi" or table.untimed:
        return _decoded_timeline(container, stream, where)
    if not len(table.shown) or not len(table.keys):
        got = f"{len(table.shown)} shown, {len(table.keys)} key frames"
        raise DataError("video has no frames", where=where, got=got)
    shown = table.shown[np.argsort(table.shown[:, 0], kind="stable")]
    keys = table.keys[np.argsort(table.keys[:, 0], kind="stable")]
    pts = np.unique(shown[:, 0])
    last = int(shown[-1, 1]) or (int(np.median(np.diff(pts))) if len(pts) > 1 else 0)
    tick = stream.time_base
    _check_tagged_duration(stream, float((int(pts[-1]) + last) * tick), where)
    return Timeline(
        pts=pts,
        times_s=(pts - pts[0]) * tick.numerator / tick.denominator,
        key_pts=keys[:, 0].copy(),
        key_dts=keys[:, 1].copy(),
        duration_s=float((int(pts[-1] - pts[0]) + last) * tick) or _nominal_frame_s(stream),
        start_s=float(int(pts[0]) * tick),
        open_groups=table.open_groups,
    )


@dataclass
class _Table:
    """Times of the packets; their contents are let go as they are read, or a clip would lie in memory whole.

    Attributes:
        count: packets that hold something.
        timed: of these, with any time; `untimed` those without a presentation time.
        corrupt: of these, cut off.
        shown: [N, 2] int64: presentation time and duration of the packets that are shown.
        keys: [K, 2] int64: presentation and decoding time of the key packets.
        open_groups: whether frames that follow a key packet are shown before it, and so need the group before.
    """

    count: int = 0
    timed: int = 0
    untimed: int = 0
    corrupt: int = 0
    shown: Any = None
    keys: Any = None
    open_groups: bool = False


def _read_table(container: Any, stream: Any, where: str) -> _Table:
    table, key_pts = _Table(), None
    shown, keys = array("q"), array("q")  # of numbers as they lie in memory: a day of video has millions of packets
    for packet in _packets(container, stream, where):
        if not packet.size:
            continue
        pts, dts = packet.pts, packet.dts
        table.count += 1
        table.corrupt += packet.is_corrupt
        table.timed += pts is not None or dts is not None
        table.untimed += pts is None
        if pts is None:
            continue
        if packet.is_keyframe:
            key_pts = pts
            keys.extend((pts, pts if dts is None else dts))
        elif key_pts is not None and pts < key_pts:
            table.open_groups = True
        if not packet.is_discard:
            shown.extend((pts, packet.duration or 0))
    table.shown, table.keys = (np.array(one, dtype=np.int64).reshape(-1, 2) for one in (shown, keys))
    return table


@contextmanager
def decoding(where: str) -> Iterator[None]:
    """Turn what FFmpeg raises on damaged files, wherever it notices, into an error that names the file."""
    av = import_av()
    try:
        yield
    except (av.error.FFmpegError, OSError, ValueError, MemoryError) as error:
        raise DataError("video cannot be decoded", where=where, got=_reason(error)) from error


def _packets(container: Any, stream: Any, where: str) -> Iterator[Any]:
    av = import_av()
    try:
        yield from container.demux(stream)
    except (av.error.FFmpegError, OSError) as error:
        raise DataError("video breaks off while reading", where=where, got=_reason(error)) from error


def _check_complete(table: _Table, stream: Any, where: str) -> None:
    if stream.frames and table.count < stream.frames:
        raise truncated(where, f"{table.count} frames", f"{stream.frames}, as its header says")
    if table.corrupt:
        raise truncated(where, f"{table.corrupt} cut-off frames", "none")


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
        length: how many packets are known of; more may follow where they are read as they are decoded.
    """

    packets: Iterable[Any]
    wanted: set[int]
    length: int


def packet_runs(
    container: Any, stream: Any, timeline: Timeline, indices: Sequence[int], where: str
) -> Iterator[list[PacketRun]]:
    """Read the packets that lead to the given frames, each group from its nearest key packet.

    Yields:
        runs to be decoded before the next are asked for. A few lie in memory, so that they can be decoded side by
        side; one that is longer than `_RUN_BYTES` (there are clips with one key frame in all) comes alone and is read
        as it is decoded.

    Raises:
        DataError: reading fails, or a packet of the frame table is no longer there.
    """
    groups: dict[int, set[int]] = {}
    for index in indices:
        groups.setdefault(timeline.start_key(index), set()).add(int(timeline.pts[index]))
    batch: list[PacketRun] = []
    held = 0
    for key, wanted in sorted(groups.items()):
        stream_of_packets = _run_packets(container, stream, timeline, key, wanted, where)
        packets, size = [], 0
        for packet in stream_of_packets:
            packets.append(packet)
            size += packet.size
            if size > _RUN_BYTES:
                break
        if size > _RUN_BYTES:
            if batch:
                yield batch
            yield [PacketRun(chain(packets, stream_of_packets), wanted, len(packets))]
            batch, held = [], 0
            continue
        batch.append(PacketRun(packets, wanted, len(packets)))
        held += size
        if held > _RUN_BYTES:
            yield batch
            batch, held = [], 0
    if batch:
        yield batch


def _run_packets(
    container: Any, stream: Any, timeline: Timeline, key: int, wanted: set[int], where: str
) -> Iterator[Any]:
    key_pts, missing = int(timeline.key_pts[key]), set(wanted)
    # A demuxer may land late (MPEG-TS seeks by guess): from the start of the file the key packet is always ahead.
    for position in (int(timeline.key_dts[key]), None):
        container.seek(int(min(timeline.key_dts[0], timeline.pts[0])) if position is None else position, stream=stream)
        begun = False
        for packet in _packets(container, stream, where):
            if not begun and not (packet.is_keyframe and packet.pts == key_pts):
                if packet.is_keyframe and packet.pts is not None and packet.pts > key_pts:
                    break
                continue
            begun = True
            if packet.size:
                missing.discard(packet.pts)
                yield packet
            if not missing:
                return
        if begun:
            break
    raise DataError(
        "packets of the video cannot be found again",
        where=where,
        got=f"{len(missing)} missing after the key frame at tick {key_pts}",
        fix="Was the file changed while it was read?",
    )

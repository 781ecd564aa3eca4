"""Frames of a video by timestamp, equal in every decoding backend; which timestamps to read; how finely to tile them.

Time zero is the moment the first frame is shown. A timestamp selects the frame on display then: the last frame whose
own time is at or before it (`TOLERANCE_S` absorbs rounding). Nothing is ever replaced: what cannot be read is a
`DataError` that names the file.
"""

from hfvla.data.video.backends import BACKENDS, available_backends
from hfvla.data.video.reader import VideoReader, probe, read_frames
from hfvla.data.video.records import TOLERANCE_S, FrameRequest, VideoFrames, VideoInfo
from hfvla.data.video.sampling import (
    duration_frame_count,
    sample_times,
    segment_centres,
    support_frame_count,
    support_times,
    support_window,
)
from hfvla.data.video.tiling import TileGrid, TilePlan, closest_grid, plan_tiles

__all__ = [
    "BACKENDS",
    "TOLERANCE_S",
    "FrameRequest",
    "TileGrid",
    "TilePlan",
    "VideoFrames",
    "VideoInfo",
    "VideoReader",
    "available_backends",
    "closest_grid",
    "duration_frame_count",
    "plan_tiles",
    "probe",
    "read_frames",
    "sample_times",
    "segment_centres",
    "support_frame_count",
    "support_times",
    "support_window",
]

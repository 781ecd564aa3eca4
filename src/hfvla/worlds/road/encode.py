"""Frames into an mp4 file, under its name only once it is whole."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from hfvla.data.video.packets import import_av

__all__ = ["write_mp4"]

# One thread: the same frames then give the same bytes. No B-frames and a short group: any frame is found fast.
_SETTINGS = {"preset": "ultrafast", "crf": "16", "g": "12", "threads": "1"}


def write_mp4(path: Path, frames: Iterable[np.ndarray], fps: int) -> None:
    """Encode frames [H, W, 3] uint8 RGB, with even sides, as H.264; written under another name, then renamed.

    Raises:
        MissingExtraError: PyAV is not installed.
        OSError: the folder cannot be written.
    """
    av = import_av()
    unfinished = path.with_name(f".{path.stem}.{os.getpid()}.mp4")
    try:
        with av.open(str(unfinished), "w", format="mp4") as container:
            stream = container.add_stream("libx264", rate=fps, options=_SETTINGS)
            stream.pix_fmt = "yuv420p"
            for number, pixels in enumerate(frames):
                if number == 0:
                    stream.height, stream.width = pixels.shape[:2]
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
            container.mux(stream.encode())
        unfinished.replace(path)
    finally:
        unfinished.unlink(missing_ok=True)

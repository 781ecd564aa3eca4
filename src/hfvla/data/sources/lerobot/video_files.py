"""Video files that hold many episodes one after the other, as LeRobot v3.0 has them."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from hfvla.data.video.packets import import_av

__all__ = ["VIDEO_SETTINGS", "VideoFiles"]

VIDEO_SETTINGS: dict[str, str] = {"preset": "veryfast", "crf": "20", "g": "2", "bf": "0", "threads": "1"}
"""x264's: every second frame is a key frame, so that a step is found fast; one thread, so that bytes repeat."""


class VideoFiles:
    """Encodes one camera; an episode's packets wait in memory until it is kept or thrown away.

    Args:
        template: path with the fields chunk_index and file_index.
        fps: frames a second.
        size: (height, width), even numbers.
        max_bytes: a file that holds as much takes no further episode.
        chunks_size: files a folder.
        settings: of x264.
    """

    def __init__(
        self,
        template: str,
        *,
        fps: Fraction,
        size: tuple[int, int],
        max_bytes: int,
        chunks_size: int,
        settings: Mapping[str, str],
    ) -> None:
        self._av = import_av()
        self._template, self._fps, self._size = template, fps, size
        self._max_bytes, self._chunks_size, self._settings = max_bytes, chunks_size, dict(settings)
        self._number, self._bytes, self._frames = -1, 0, 0  # of the open file
        self._container: Any = None
        self._stream: Any = None
        self._encoder: Any = None
        self._packets: list[Any] = []

    def add(self, pixels: np.ndarray) -> None:
        """Encode one [H, W, 3] uint8 RGB frame of the episode."""
        if self._encoder is None:
            self._encoder = self._configured(self._av.CodecContext.create("libx264", "w"))
            self._encoder.time_base = 1 / self._fps
            self._encoder.flags |= int(self._av.codec.context.Flags.global_header)
            self._sent = 0
        frame = self._av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
        frame.pts, frame.time_base = self._sent, 1 / self._fps
        self._sent += 1
        self._packets += self._encoder.encode(frame)

    def discard(self) -> None:
        """Throw the episode away."""
        self._encoder, self._packets = None, []

    def keep(self) -> dict[str, float | int]:
        """Write the episode into the open file, or into a new one when that is full.

        Returns:
            {"chunk_index", "file_index", "from_timestamp", "to_timestamp"}.
        """
        self._packets += self._encoder.encode(None)
        if self._container is None or self._bytes >= self._max_bytes:
            self._open_next()
        for packet in self._packets:
            packet.pts += self._frames
            packet.dts += self._frames
            packet.stream = self._stream
            self._bytes += packet.size
            self._container.mux(packet)
        start, self._frames = self._frames, self._frames + self._sent
        self.discard()
        return {
            "chunk_index": self._number // self._chunks_size,
            "file_index": self._number % self._chunks_size,
            "from_timestamp": float(start / self._fps),
            "to_timestamp": float(self._frames / self._fps),
        }

    def close(self) -> None:
        """Finish the open file; an episode that was not kept is lost."""
        self.discard()
        self._close_file()

    def _open_next(self) -> None:
        self._close_file()
        self._number, self._bytes, self._frames = self._number + 1, 0, 0
        chunk, file = divmod(self._number, self._chunks_size)
        path = Path(self._template.format(chunk_index=chunk, file_index=file))
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = self._av.open(str(path), "w", format="mp4")
        self._stream = self._container.add_stream("libx264", rate=self._fps)
        self._configured(self._stream.codec_context)

    def _close_file(self) -> None:
        if self._container is not None:
            self._container.close()
            self._container = None

    def _configured(self, context: Any) -> Any:
        context.height, context.width = self._size
        context.pix_fmt, context.framerate, context.options = "yuv420p", self._fps, self._settings
        return context

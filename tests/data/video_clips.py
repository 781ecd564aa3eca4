"""Small clips for the video tests, written with PyAV: every frame tells its number in its pixels."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from hfvla.data.video import BACKENDS

av = pytest.importorskip("av")

# torchcodec is marked: it needs FFmpeg's libraries.
EACH_BACKEND = [
    pytest.param(name, marks=pytest.mark.system("torchcodec")) if name == "torchcodec" else name for name in BACKENDS
]

WIDTH, HEIGHT, FPS = 96, 64, 25
FLAT = {"crf": "12", "g": "12", "bf": "2"}
VARIABLE_MS = (0, 40, 55, 200, 210, 500, 540, 541, 900, 940, 1000, 1300, 1310, 1350, 1700, 1740)


def picture(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:
    """A bright corner (top left), a gradient, and seven blocks that spell the number in binary."""
    y, x = np.mgrid[0:height, 0:width]
    pixels = np.stack([x * 255 // width, y * 255 // height, np.full_like(x, 60 + 3 * number % 120)], -1)
    pixels[:8, :8] = 255
    block = width // 8
    for bit in range(7):
        pixels[height // 2 :, (bit + 1) * block : (bit + 2) * block] = 235 if number >> bit & 1 else 16
    return pixels.astype(np.uint8)


def read_number(pixels: np.ndarray) -> int:
    """The number that `picture` spelt, after encoding and decoding."""
    height, width = pixels.shape[:2]
    block = width // 8
    middles = [(bit + 1) * block + block // 2 for bit in range(7)]
    return sum(1 << bit for bit, x in enumerate(middles) if pixels[height * 3 // 4, x].mean() > 127)


def write_clip(
    path: Path,
    frames: int = 40,
    *,
    codec: str = "libx264",
    options: dict[str, str] | None = None,
    pixel_format: str = "yuv420p",
    times_ms: tuple[int, ...] | None = None,
    rotation: int = 0,
) -> Path:
    """Encode numbered frames at 25 fps, or at the times given."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, pixel_format
        stream.options = FLAT if options is None else options
        if times_ms is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        if rotation:
            stream.set_display_rotation(rotation)
        for number in range(frames if times_ms is None else len(times_ms)):
            frame = av.VideoFrame.from_ndarray(picture(number), format="rgb24")
            if times_ms is not None:
                frame.pts, frame.time_base = times_ms[number], Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def write_sound(path: Path, *, empty_video: bool = False) -> Path:
    """Encode a tenth of a second of silence, without video or beside a video stream that no frame is in."""
    with av.open(str(path), "w") as container:
        if empty_video:
            video = container.add_stream("libx264", rate=FPS)
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        stream = container.add_stream("aac", rate=48000)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4800), dtype=np.float32), format="fltp", layout="mono")
        frame.sample_rate = 48000
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path

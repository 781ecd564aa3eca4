"""Six frames of a video by timestamp: the shared reader against bare decord, torchcodec, PyAV and transformers.

    python benchmarks/video_decode.py --clips <folder of mp4 files>

Reads the clips of the folder and two generated 30 s 720p clips: x264's default (a key frame every 250 frames,
B-frames) and what a dashcam's encoder writes (a key frame every 2 s, none). Every way reads every clip once a round,
in an order shuffled each round; the table shows medians. Every way but transformers' default must return equal pixels.
A package that is not installed or does not start (torchcodec without FFmpeg's libraries) is a row that says so.

Next to the time that passes stands the processor time of all threads: on a machine that others use as well, only that
can be compared.
"""

from __future__ import annotations

import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import numpy as np
from common import arguments, cores, cpu_name, versions, write_result
from PIL import Image
from rich.console import Console
from rich.table import Table
from transformers.video_utils import load_video

from hfvla.data.video import VideoReader, available_backends, probe, read_frames, segment_centres

Read = Callable[[str, np.ndarray], np.ndarray]
FRAMES, FPS, WIDTH, HEIGHT = 6, 30, 1280, 720
BARE = ("decord", "torchcodec", "torchcodec, all cores", "PyAV, seek and decode")
OURS, DEFAULT, SAME = "hfvla", "transformers", "transformers, same frames"
PACKAGES = {"hfvla, backend=decord": "decord", "hfvla, backend=torchcodec": "torchcodec",
            "decord": "decord", "torchcodec": "torchcodec", "torchcodec, all cores": "torchcodec"}  # fmt: skip
ROUND_S = 1e-6


def bare_decord(path: str, times_s: np.ndarray) -> np.ndarray:
    """Read with decord, threads by its own choice."""
    import decord

    reader = decord.VideoReader(path, ctx=decord.cpu(0))
    starts = reader.get_frame_timestamp(range(len(reader)))[:, 0]
    return reader.get_batch(np.searchsorted(starts, times_s + ROUND_S, side="right") - 1).asnumpy()


def bare_torchcodec(path: str, times_s: np.ndarray, threads: int = 1) -> np.ndarray:
    """Read with torchcodec; one thread is its default, 0 leaves it to FFmpeg."""
    from torchcodec.decoders import VideoDecoder

    decoder = VideoDecoder(path, dimension_order="NHWC", num_ffmpeg_threads=threads)
    return decoder.get_frames_played_at((times_s + ROUND_S).tolist()).data.numpy()


def bare_pyav(path: str, times_s: np.ndarray) -> np.ndarray:
    """Read as PyAV's documentation shows: seek to the key frame before each timestamp, decode up to it."""
    frames: list[np.ndarray] = []
    with av.open(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        for moment in times_s:
            container.seek(int(moment / stream.time_base), stream=stream)
            shown = next(container.decode(stream))
            for frame in container.decode(stream):
                if frame.time > moment + ROUND_S:
                    break
                shown = frame
            frames.append(shown.to_ndarray(format="rgb24"))
    return np.stack(frames)


def transformers_same(path: str, times_s: np.ndarray) -> np.ndarray:
    """Read the same frames through transformers' default backend."""

    def indices(metadata: Any, **_: Any) -> np.ndarray:
        return np.floor((times_s + ROUND_S) * metadata.fps).astype(int)

    return np.asarray(load_video(path, sample_indices_fn=indices)[0])


def left_out() -> dict[str, str]:
    """Return why, by the name of the way, for each that needs a package which does not work here."""
    found = available_backends()
    return {way: found[package] for way, package in PACKAGES.items() if found[package]}


def ways() -> dict[str, Read]:
    """Name every way to read that works here; the reader's memories belong to the ways that say so."""
    warm = VideoReader(open_files=64)
    remembering = VideoReader(open_files=64, cache_bytes=1 << 30)
    every: dict[str, Read] = {
        OURS: lambda path, times: read_frames(path, times).pixels,
        "hfvla, file open": lambda path, times: warm.read(path, times).pixels,
        "hfvla, frames cached": lambda path, times: remembering.read(path, times).pixels,
        "hfvla, backend=decord": lambda path, times: read_frames(path, times, backend="decord").pixels,
        "hfvla, backend=torchcodec": lambda path, times: read_frames(path, times, backend="torchcodec").pixels,
        BARE[0]: bare_decord,
        BARE[1]: bare_torchcodec,
        BARE[2]: lambda path, times: bare_torchcodec(path, times, 0),
        BARE[3]: bare_pyav,
        SAME: transformers_same,
        DEFAULT: lambda path, times: np.asarray(load_video(path, num_frames=len(times))[0]),
    }
    absent = left_out()
    return {name: read for name, read in every.items() if name not in absent}


def write_clip(path: Path, options: dict[str, str], seconds: int) -> None:
    """Render a pan and zoom over a textured plane with sensor noise, and encode it with x264."""
    draw = np.random.default_rng(0)
    plane = np.zeros((2 * HEIGHT, 3 * WIDTH, 3), dtype=np.float32)
    for cell in (4, 16, 64, 256):
        coarse = draw.integers(0, 256, (2 * HEIGHT // cell + 2, 3 * WIDTH // cell + 2, 3)).astype(np.uint8)
        plane += np.asarray(Image.fromarray(coarse).resize((3 * WIDTH, 2 * HEIGHT)), np.float32) * (cell**0.5 / 22)
    texture = Image.fromarray(plane.clip(0, 255).astype(np.uint8))
    noise = [draw.integers(-4, 5, (HEIGHT, WIDTH, 1), dtype=np.int16) for _ in range(7)]
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=FPS)
        stream.width, stream.height, stream.pix_fmt, stream.options = WIDTH, HEIGHT, "yuv420p", dict(options)
        for number in range(seconds * FPS):
            zoom = 1 + 0.4 * np.sin(number / 90)
            wide, high = WIDTH * zoom, HEIGHT * zoom
            left = (3 * WIDTH - wide) * (0.5 + 0.45 * np.sin(number / 200))
            top = (2 * HEIGHT - high) * (0.5 + 0.4 * np.cos(number / 150))
            view = texture.resize((WIDTH, HEIGHT), Image.Resampling.BILINEAR, (left, top, left + wide, top + high))
            pixels = (np.asarray(view, np.int16) + noise[number % 7]).clip(0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def collect_clips(folder: Path | None, work: Path, seconds: int) -> dict[str, Path]:
    """Name the clips: generated ones first, then those of the folder."""
    styles = {
        "generated, x264 default": {"crf": "20", "preset": "veryfast", "g": "250", "bf": "3"},
        "generated, dashcam": {"crf": "20", "preset": "veryfast", "g": "60", "bf": "0"},
    }
    clips = {}
    for number, (name, options) in enumerate(styles.items()):
        clips[name] = work / f"generated{number}.mp4"
        write_clip(clips[name], options, seconds)
    return clips | {path.name: path for path in sorted(folder.glob("*.mp4") if folder else ())}


def time_clip(path: Path, rounds: int, seed: int) -> dict[str, list[tuple[float, float]]]:
    """Time every way on one clip, interleaved; the first, untimed, round checks the pixels."""
    times_s = segment_centres(0.0, probe(path).duration_s, FRAMES)
    readers = ways()
    expected = readers[OURS](str(path), times_s)
    for name, read in readers.items():
        pixels = read(str(path), times_s)
        if name != DEFAULT and not np.array_equal(pixels, expected):
            raise SystemExit(f"{path.name}: {name} returns other frames than {OURS}")
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    shuffle = random.Random(seed)
    for _ in range(rounds):
        for name in shuffle.sample(list(readers), len(readers)):
            start = time.perf_counter(), time.process_time()
            readers[name](str(path), times_s)
            taken[name].append((time.perf_counter() - start[0], time.process_time() - start[1]))
    return taken


def load_average() -> float | None:
    """Return how many processes wanted a core in the last minute, this one's among them."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def summarise(taken: dict[str, list[tuple[float, float]]]) -> dict[str, Any]:
    """Return medians in milliseconds and the ratios the reader is held to, of passing and of processor time."""
    summary: dict[str, Any] = {}
    for column, kind in enumerate(("wall", "cpu")):
        medians = {name: 1e3 * float(np.median([pair[column] for pair in pairs])) for name, pairs in taken.items()}
        fastest = min((name for name in BARE if name in medians), key=medians.__getitem__)
        summary[kind] = {
            "median_ms": {name: round(value, 2) for name, value in medians.items()},
            "best_ms": {name: round(1e3 * min(pair[column] for pair in pairs), 2) for name, pairs in taken.items()},
            "fastest_bare": fastest,
            "time_over_fastest_bare": round(medians[OURS] / medians[fastest], 3),
            "speedup_over_transformers": round(medians[DEFAULT] / medians[OURS], 3),
            "speedup_over_transformers_same_frames": round(medians[SAME] / medians[OURS], 3),
        }
    return summary


def show(results: dict[str, dict[str, Any]], absent: dict[str, str]) -> None:
    """Print one table: passing time / processor time, what was left out and why, ratios last."""
    table = Table(title=f"{FRAMES} frames by timestamp: median ms that passed / ms of processor time")
    table.add_column("way")
    for clip in results:
        table.add_column(clip, justify="right")
    columns = list(results.values())
    for name in columns[0]["wall"]["median_ms"]:
        cells = (f"{c['wall']['median_ms'][name]:.0f} / {c['cpu']['median_ms'][name]:.0f}" for c in columns)
        table.add_row(name, *cells)
    for name, why in absent.items():
        table.add_row(f"{name}: left out, {why}")
    table.add_section()
    for label, key in (
        ("hfvla / fastest bare backend (goal <= 1.1)", "time_over_fastest_bare"),
        ("transformers / hfvla (goal >= 2)", "speedup_over_transformers"),
        ("the same, same frames", "speedup_over_transformers_same_frames"),
    ):
        table.add_row(label, *(f"{column['wall'][key]:.2f} / {column['cpu'][key]:.2f}" for column in columns))
    Console(width=150).print(table)


def main() -> None:
    """Run the benchmark."""
    parser = arguments(__file__, __doc__)
    parser.add_argument("--clips", type=Path, help="folder of mp4 files; the generated clips alone when absent")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--seconds", type=int, default=30, help="length of the generated clips")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    before = load_average()
    with tempfile.TemporaryDirectory(prefix="hfvla-video-") as work:
        clips = collect_clips(args.clips, Path(work), args.seconds)
        about = {name: probe(path) for name, path in clips.items()}
        results = {name: summarise(time_clip(path, args.rounds, args.seed)) for name, path in clips.items()}
    show(results, left_out())
    report = {
        "cpu": cpu_name(),
        "cores": cores(),
        "versions": versions("av", "decord", "torchcodec", "transformers", "torch"),
        "left_out": left_out(),
        "load_average": {"before": before, "after": load_average()},
        "frames": FRAMES,
        "rounds": args.rounds,
        "clips": {name: {**vars(about[name]), **result} for name, result in results.items()},
    }
    write_result(args.output, report)


if __name__ == "__main__":
    main()

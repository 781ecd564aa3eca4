"""Which frame a timestamp selects, and that every backend decodes the same pixels for it."""

import subprocess
import sys

import numpy as np
import pytest

from hfvla.data.video import BACKENDS, VideoReader, available_backends, probe, read_frames
from hfvla.data.video.records import Timeline
from hfvla.errors import DataError

from ..video_clips import EACH_BACKEND, FPS, HEIGHT, VARIABLE_MS, WIDTH, av, picture, read_number, write_clip


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("video")


@pytest.fixture(scope="module")
def constant(folder):
    return write_clip(folder / "constant.mp4")


@pytest.fixture(scope="module")
def variable(folder):
    return write_clip(folder / "variable.mp4", times_ms=VARIABLE_MS)


def decode_everything(path) -> dict[int, np.ndarray]:
    """Every frame through PyAV's plainest loop: no seeking, nothing skipped."""
    with av.open(str(path)) as container:
        return {frame.pts: frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)}


def needs(backend):
    if available_backends()[backend]:
        pytest.skip(f"{backend}: {available_backends()[backend]}")


def timeline(times_s, duration_s):
    pts = np.arange(len(times_s))
    return Timeline(pts, np.array(times_s), pts[:1], pts[:1], duration_s, 0.0)


def test_a_timestamp_selects_the_frame_on_display():
    line = timeline([0.0, 0.1, 0.3, 0.35], 0.5)
    indices, clamped = line.select([0.0, 0.0999, 0.1, 0.2999, 0.3, 0.34, 0.36, 0.5], where="x")
    assert indices.tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and clamped == 0


def test_rounding_below_a_microsecond_does_not_lose_a_frame():
    line = timeline([0.0, 1 / 3, 2 / 3], 1.0)
    assert line.select([0.333333, 0.666666, 0.3333], where="x")[0].tolist() == [1, 2, 0]


@pytest.mark.parametrize("backend", EACH_BACKEND)
def test_constant_rate(constant, backend):
    needs(backend)
    times = [0.0, 0.04, 0.0799, 0.5, 1.0, 1.59, 1.6]
    frames = read_frames(constant, times, backend=backend)
    assert [read_number(pixels) for pixels in frames.pixels] == [0, 1, 1, 12, 25, 39, 39]
    assert frames.indices.tolist() == [0, 1, 1, 12, 25, 39, 39]
    assert frames.times_s == pytest.approx([0.0, 0.04, 0.04, 0.48, 1.0, 1.56, 1.56], abs=1e-12)
    assert frames.pixels.shape == (7, HEIGHT, WIDTH, 3) and frames.pixels.dtype == np.uint8
    assert frames.backend == backend and frames.clamped == 0


@pytest.mark.parametrize("backend", EACH_BACKEND)
def test_variable_rate(variable, backend):
    needs(backend)
    starts = np.array(VARIABLE_MS) / 1000
    middles = (starts[:-1] + starts[1:]) / 2
    frames = read_frames(variable, np.concatenate([starts, middles]), backend=backend)
    assert [read_number(pixels) for pixels in frames.pixels] == [*range(16), *range(15)]
    assert frames.times_s[:16] == pytest.approx(starts, abs=1e-12)


CLIPS = {
    "b-frames.mp4": {"options": {"crf": "12", "g": "12", "bf": "3", "b-pyramid": "normal"}},
    "open-groups.mp4": {"options": {"crf": "12", "g": "8", "bf": "3", "x264-params": "open-gop=1:scenecut=0"}},
    "one-group.mp4": {"options": {"crf": "12", "g": "250", "bf": "3"}},
    "no-b-frames.mp4": {"options": {"crf": "12", "g": "10", "bf": "0"}},
    "full-chroma.mp4": {"pixel_format": "yuv444p"},
    "full-range.mp4": {"pixel_format": "yuvj420p"},
    "variable.mp4": {"times_ms": VARIABLE_MS},
    "late-start.mp4": {"times_ms": tuple(time + 700 for time in VARIABLE_MS)},
    "matroska.mkv": {},
    "mpeg4.mp4": {"codec": "mpeg4", "options": {"g": "12", "bf": "2"}},
    "h265.mp4": {"codec": "libx265", "options": {"x265-params": "log-level=none:keyint=12", "crf": "12"}},
}


@pytest.mark.parametrize("name", CLIPS)
def test_every_backend_equals_a_plain_decode(folder, name):
    path = write_clip(folder / f"equal-{name}", **CLIPS[name])
    plain = decode_everything(path)
    whole = [plain[pts] for pts in sorted(plain)]
    info = probe(path)
    assert info.frames == len(whole)
    times = np.random.default_rng(0).uniform(0, info.duration_s, 9)
    compared = []
    for backend in BACKENDS:
        if not available_backends()[backend]:
            frames = read_frames(path, times, backend=backend)
            assert all(np.array_equal(frames.pixels[i], whole[n]) for i, n in enumerate(frames.indices)), backend
            shown = [max(n for n in range(len(whole)) if frame_start(path, n) <= time) for time in times]
            assert frames.indices.tolist() == shown
            compared.append(backend)
    assert "pyav" in compared


def frame_start(path, number: int) -> float:
    """Seconds from the first frame, by PyAV's decoded frames."""
    if path not in STARTS:
        with av.open(str(path)) as container:
            times = sorted(frame.time for frame in container.decode(video=0))
        STARTS[path] = [time - times[0] for time in times]
    return STARTS[path][number]


STARTS: dict = {}


@pytest.mark.parametrize("threads", [1, 2, 5])
@pytest.mark.parametrize("name", ["b-frames.mp4", "open-groups.mp4", "one-group.mp4"])
def test_threads_do_not_change_a_pixel(folder, name, threads):
    path = write_clip(folder / f"threads-{threads}-{name}", **CLIPS[name])
    whole = [pixels for _, pixels in sorted(decode_everything(path).items())]
    with VideoReader(backend="pyav", threads=threads) as reader:
        for _ in range(2):  # the second read meets decoders that are open already
            frames = reader.read(path, np.arange(40) / FPS)
            assert np.array_equal(frames.pixels, np.stack(whole))


def test_frames_that_nothing_depends_on_are_skipped(folder, monkeypatch):
    path = write_clip(folder / "skipped.mp4", options={"crf": "12", "g": "40", "bf": "3", "b-pyramid": "none"})
    from hfvla.data.video import pyav

    decoded = []
    plain = pyav.PyAVDecoder._context

    class Counting:
        def __init__(self, context):
            object.__setattr__(self, "context", context)

        def __getattr__(self, name):
            return getattr(self.context, name)

        def __setattr__(self, name, value):
            setattr(self.context, name, value)

        def decode(self, packet):
            frames = self.context.decode(packet)
            decoded.extend(frames)
            return frames

    monkeypatch.setattr(pyav.PyAVDecoder, "_context", lambda *args: Counting(plain(*args)))
    frames = read_frames(path, [1.5], backend="pyav", threads=1)
    assert read_number(frames.pixels[0]) == 37
    assert len(decoded) < 25  # of the 38 up to there


@pytest.mark.parametrize("backend", EACH_BACKEND)
def test_order_and_repeats_are_the_callers(constant, backend):
    needs(backend)
    frames = read_frames(constant, [1.2, 0.1, 1.2, 0.6, 0.11], backend=backend)
    assert [read_number(pixels) for pixels in frames.pixels] == [30, 2, 30, 15, 2]


@pytest.mark.parametrize("backend", EACH_BACKEND)
@pytest.mark.parametrize(("rotation", "corner"), [(90, "bottom left"), (180, "bottom right"), (270, "top right")])
def test_rotation(folder, rotation, corner, backend):
    needs(backend)
    path = write_clip(folder / f"rotated{rotation}-{backend}.mp4", frames=14, rotation=rotation)
    info = probe(path, backend=backend)
    sideways = rotation != 180
    assert info.rotation == rotation and (info.width < info.height) == sideways
    with VideoReader(backend=backend, threads=2) as reader:
        pixels = reader.read(path, [0.0, 0.5]).pixels
        again = reader.read(path, [0.5, 0.0]).pixels
    assert np.array_equal(pixels, again[::-1])
    assert pixels.shape[1:3] == (info.height, info.width)
    upright = np.rot90(pixels, -rotation // 90, axes=(1, 2))
    assert [read_number(frame) for frame in upright] == [0, 12]
    row = 3 if "top" in corner else -4
    column = 3 if "left" in corner else -4
    assert pixels[0, row, column].min() > 200
    assert (read_frames(path, [0.0, 0.5], backend="pyav").pixels == pixels).all()


@pytest.mark.parametrize("backend", EACH_BACKEND)
def test_scaled_down_the_same(constant, backend):
    needs(backend)
    small = read_frames(constant, [0.3, 1.1], backend=backend, short_side=32).pixels
    assert small.shape == (2, 32, 48, 3)
    assert np.array_equal(small, read_frames(constant, [0.3, 1.1], backend="pyav", short_side=32).pixels)
    assert [read_number(pixels) for pixels in small] == [7, 27]
    assert read_frames(constant, [0.3], backend=backend, short_side=999).pixels.shape == (1, HEIGHT, WIDTH, 3)


@pytest.mark.parametrize("backend", EACH_BACKEND)
def test_probe(variable, constant, backend):
    needs(backend)
    info = probe(constant, backend=backend)
    assert (info.frames, info.width, info.height, info.rotation) == (40, WIDTH, HEIGHT, 0)
    assert info.duration_s == pytest.approx(1.6) and info.fps == pytest.approx(25) and info.start_s == 0
    assert (info.backend, info.codec, info.pixel_format) == (backend, "h264", "yuv420p")
    assert probe(variable, backend=backend).frames == 16
    assert probe(variable).duration_s > 1.74


def test_times_count_from_the_first_frame(folder):
    path = write_clip(folder / "late.mp4", times_ms=(500, 600, 900))
    info = probe(path)
    assert info.start_s == pytest.approx(0.5) and info.duration_s < 1
    assert [read_number(pixels) for pixels in read_frames(path, [0.0, 0.1, 0.39, 0.4]).pixels] == [0, 1, 1, 2]


def test_transport_stream_and_avi_through_pyav(folder):
    stream = write_clip(folder / "stream.ts")
    frames = read_frames(stream, [0.0, 0.5, 1.59])
    assert [read_number(pixels) for pixels in frames.pixels] == [0, 12, 39]
    old = write_clip(folder / "old.avi", codec="mpeg4", options={"bf": "2", "g": "12"})
    frames = read_frames(old, [1.59, 0.5, 0.0])
    assert [read_number(pixels) for pixels in frames.pixels] == [39, 12, 0]


ODD_CLIPS = {
    "stream.ts": {},
    "deep.mp4": {"pixel_format": "yuv420p10le"},
    "fields.mp4": {"options": {"crf": "12", "g": "12", "bf": "2", "x264-params": "interlaced=1"}},
}


@pytest.mark.parametrize("backend", [name for name in EACH_BACKEND if name != "pyav"])
@pytest.mark.parametrize("name", ["stream.ts", "deep.mp4", "fields.mp4"])
def test_backends_refuse_what_they_decode_otherwise(folder, name, backend):
    needs(backend)
    path = write_clip(folder / f"{backend}-{name}", **ODD_CLIPS[name])
    with pytest.raises(
        DataError, match=r"frame for frame; got .*(mpegts|yuv420p10le|interlaced).* Use backend=\"pyav\""
    ):
        read_frames(path, [0.5], backend=backend)
    assert read_number(read_frames(path, [0.5]).pixels[0]) == 12


def test_import_stays_light():
    code = (
        "import sys, hfvla.data.video\n"
        "print([m for m in ('torch', 'av', 'decord', 'torchcodec', 'transformers') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_reading_does_not_import_torch(constant):
    code = f"import sys, hfvla.data.video as v\nv.read_frames({str(constant)!r}, [0.1])\nprint('torch' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_pictures_spell_their_number():
    assert [read_number(picture(number)) for number in range(128)] == list(range(128))

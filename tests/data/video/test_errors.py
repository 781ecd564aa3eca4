"""Every video that cannot be read says what, where, got, expected and how to fix it; nothing is replaced."""

import struct
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from hfvla.data.video import VideoReader, available_backends, probe, read_frames
from hfvla.data.video.records import Timeline
from hfvla.errors import DataError, MissingExtraError

from ..video_clips import EACH_BACKEND, av, read_number, write_clip, write_sound


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("broken")


@pytest.fixture(scope="module")
def clip(folder):
    return write_clip(folder / "whole.mp4")


@pytest.fixture(params=EACH_BACKEND)
def backend(request):
    if available_backends()[request.param]:
        pytest.skip(available_backends()[request.param])
    return request.param


def front_index(path):
    """The same clip with its index before its frames, as players on the web want it."""
    target = path.with_name("front.mp4")
    with av.open(str(path)) as source, av.open(str(target), "w", options={"movflags": "faststart"}) as copy:
        stream = copy.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.dts is not None:
                packet.stream = stream
                copy.mux(packet)
    return target


@pytest.mark.parametrize("moment", [1.7, 60.0])
def test_past_the_end(clip, backend, moment):
    with pytest.raises(DataError, match=rf"whole.mp4: 1 of 2 .* past the end; got {moment}; expected .*0 to 1.600000"):
        read_frames(clip, [0.1, moment], backend=backend)


def test_past_the_end_clamped_and_counted(clip, backend):
    frames = read_frames(clip, [0.1, 1.7, 60.0], backend=backend, past_end="clamp")
    assert frames.clamped == 2 and frames.indices.tolist() == [2, 39, 39]
    assert [read_number(pixels) for pixels in frames.pixels] == [2, 39, 39]


@pytest.mark.parametrize(
    ("times", "problem"),
    [
        ([0.1, -0.5], "negative; got -0.5; expected seconds from 0 to 1.600000"),
        ([float("nan")], "not finite; got nan"),
        ([0.1, float("inf")], "not finite; got inf"),
        ([], "no list of timestamps"),
        ([[0.1]], "no list of timestamps"),
        (["soon"], "not numbers"),
    ],
)
def test_unusable_timestamps(clip, times, problem):
    with pytest.raises(DataError, match=problem):
        read_frames(clip, times, past_end="clamp")


def test_missing_empty_folder(folder, clip, backend):
    with pytest.raises(DataError, match="absent.mp4: video file cannot be read; got 'No such file"):
        read_frames(folder / "absent.mp4", [0.0], backend=backend)
    with pytest.raises(DataError, match="got 'a folder'"):
        read_frames(folder, [0.0], backend=backend)
    (folder / "empty.mp4").touch()
    with pytest.raises(DataError, match="empty.mp4: video file is empty; got '0 bytes'"):
        probe(folder / "empty.mp4", backend=backend)


@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_with_the_index_behind(folder, clip, backend, share):
    data = clip.read_bytes()
    cut = folder / "cut.mp4"
    cut.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(DataError, match=r"cut.mp4: the video is truncated; got .*(bytes|moov)"):
        read_frames(cut, [0.0], backend=backend)


def test_truncated_with_the_index_in_front(clip, backend):
    front = front_index(clip)
    assert read_number(read_frames(front, [0.5], backend=backend).pixels[0]) == 12
    data = front.read_bytes()
    front.with_name("front-cut.mp4").write_bytes(data[: len(data) * 2 // 3])
    with pytest.raises(DataError, match=rf"truncated; got '{len(data) * 2 // 3} bytes'; expected {len(data)} bytes"):
        read_frames(front.with_name("front-cut.mp4"), [0.0], backend=backend)


def test_truncated_where_the_boxes_do_not_tell(clip):
    """The box is shortened to the file; only the count of frames in the index still knows better."""
    data = front_index(clip).read_bytes()
    place = data.rindex(b"mdat") - 4
    end = place + (len(data) - place) * 2 // 3
    liar = clip.with_name("liar.mp4")
    liar.write_bytes(data[:place] + struct.pack(">I", end - place) + data[place + 4 : end])
    with pytest.raises(DataError, match="truncated"):
        read_frames(liar, [0.0])


def test_truncated_matroska(folder):
    whole = write_clip(folder / "whole.mkv", frames=100)
    data = whole.read_bytes()
    whole.with_name("cut.mkv").write_bytes(data[: len(data) // 2])
    with pytest.raises(DataError, match=r"cut.mkv: the video is truncated; got '.* s'; expected 4.000 s"):
        read_frames(whole.with_name("cut.mkv"), [0.0])


def damaged(path, name, flips, seed=0):
    """Turn bytes of the frames over, at places drawn from the seed."""
    data = bytearray(path.read_bytes())
    start = data.index(b"mdat") + 4
    stop = data.index(b"moov", start)
    for place in np.random.default_rng(seed).integers(start + (stop - start) // 3, stop - 8, flips):
        data[place] ^= 0xFF
    path.with_name(name).write_bytes(data)
    return path.with_name(name)


def test_damaged_frames_are_not_painted_over(clip):
    """FFmpeg's own habit is to fill holes from other frames; that is what the plain loop shows."""
    broken = damaged(clip, "damaged.mp4", 40)
    whole = read_frames(clip, np.arange(40) / 25).pixels
    with pytest.raises(DataError, match=r"damaged.mp4: \d+ of the frames asked for cannot be decoded; got .frame \d+"):
        read_frames(broken, np.arange(40) / 25)
    assert np.array_equal(read_frames(broken, [0.0]).pixels[0], whole[0])  # ahead of the damage


@pytest.mark.parametrize(
    ("name", "write"),
    [
        ("notes.txt", lambda path: path.write_text("a line of text\n" * 500)),
        ("notes.mp4", lambda path: path.write_text('{"a": 1}\n' * 500)),
        ("noise.mp4", lambda path: path.write_bytes(np.random.default_rng(0).bytes(50_000))),
        ("picture.jpg", lambda path: Image.new("RGB", (64, 64)).save(path)),
        ("picture.mp4", lambda path: Image.new("RGB", (64, 64)).save(path, format="png")),
    ],
)
def test_not_a_video(folder, name, write, backend):
    write(folder / name)
    with pytest.raises(DataError, match=rf"{name}: not a video; got .*; expected a video file \(mp4"):
        read_frames(folder / name, [0.0], backend=backend)


def test_sound_without_video(folder, backend):
    path = write_sound(folder / "sound.mp4")
    with pytest.raises(DataError, match=r"no video stream; got \['audio'\]"):
        read_frames(path, [0.0], backend=backend)


def test_no_frames(folder, backend):
    path = write_sound(folder / "none.mkv", empty_video=True)
    with pytest.raises(DataError, match="none.mkv: video has no frames; got '0 frames'"):
        read_frames(path, [0.0], backend=backend)


def test_frames_without_times(folder):
    path = write_clip(folder / "raw.h264")
    with pytest.raises(DataError, match="frames carry no times.*'h264'.*ffmpeg"):
        read_frames(path, [0.0])


def test_unknown_backend(clip):
    with pytest.raises(DataError, match="unknown video backend; got 'decrod'.*Did you mean 'decord'"):
        read_frames(clip, [0.0], backend="decrod")


@pytest.mark.parametrize("package", ["av", "decord", "torchcodec"])
def test_missing_backend_is_named(clip, monkeypatch, package):
    for module in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setattr(sys, "meta_path", [Absent(package), *sys.meta_path])
    name = "pyav" if package == "av" else package
    expected = DataError if package == "torchcodec" else MissingExtraError
    fix = "pip install torchcodec" if package == "torchcodec" else r"pip install \"hfvla\[video\]\""
    with pytest.raises(expected, match=rf"{package}'.*{fix}"):
        read_frames(clip, [0.0], backend=name)


class Absent:
    """Makes one package impossible to import."""

    def __init__(self, package, error=None):
        self.package = package
        self.error = error

    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == self.package:
            raise self.error or ModuleNotFoundError(f"No module named '{name}'", name=name)


def test_a_backend_that_does_not_load_is_explained(clip, monkeypatch):
    for module in [name for name in sys.modules if name.split(".")[0] == "torchcodec"]:
        monkeypatch.delitem(sys.modules, module)
    broken = Absent("torchcodec", RuntimeError("Could not load libtorchcodec.\nmore lines"))
    monkeypatch.setattr(sys, "meta_path", [broken, *sys.meta_path])
    with pytest.raises(DataError, match=r"'torchcodec' does not start; got 'Could not load libtorchcodec.'.*FFmpeg"):
        read_frames(clip, [0.0], backend="torchcodec")


def test_torchcodec_without_ffmpeg_does_not_start(clip, monkeypatch, tmp_path):
    """Its later releases can be imported without FFmpeg, and fail at each video."""
    for name in ("torchcodec", "torchcodec.decoders"):
        monkeypatch.setitem(sys.modules, name, SimpleNamespace(ffmpeg_major_version=None))
    (tmp_path / "torchcodec" / "decoders").mkdir(parents=True)
    (tmp_path / "torchcodec" / "__init__.py").write_text("ffmpeg_major_version = None\n")
    (tmp_path / "torchcodec" / "decoders" / "__init__.py").touch()
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    with pytest.raises(DataError, match=r"'torchcodec' does not start; got 'torchcodec found no FFmpeg.*system-libs"):
        read_frames(clip, [0.0], backend="torchcodec")
    available_backends.cache_clear()
    try:
        found = available_backends()
    finally:
        available_backends.cache_clear()
    assert found["torchcodec"] == "torchcodec found no FFmpeg that it can load" and not found["pyav"]


def test_looking_for_backends_survives_a_crash(monkeypatch, tmp_path):
    """A package that kills the process on import is reported like any other."""
    (tmp_path / "decord.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    (tmp_path / "torchcodec").mkdir()
    (tmp_path / "torchcodec" / "__init__.py").write_text("raise RuntimeError('no FFmpeg libraries')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    available_backends.cache_clear()
    try:
        found = available_backends()
    finally:
        available_backends.cache_clear()
    assert found == {"pyav": "", "torchcodec": "RuntimeError: no FFmpeg libraries", "decord": "exit code -11"}


def test_a_decoder_that_disagrees_on_times_is_refused(clip, monkeypatch):
    pytest.importorskip("decord")
    line = VideoReaderTimeline(clip)
    shifted = Timeline(**{**vars(line), "times_s": line.times_s + np.linspace(0, 0.02, len(line))})
    from hfvla.data.video.backends import open_decoder

    with pytest.raises(DataError, match=r"frame for frame; got 'frame 39 at 1.56\d+ s'; expected 1.58"):
        open_decoder(str(clip), "decord", shifted).decode([3])


def VideoReaderTimeline(path):  # noqa: N802
    from hfvla.data.video.backends import open_decoder

    decoder = open_decoder(str(path))
    decoder.close()
    return decoder.timeline


@pytest.mark.parametrize("options", [{"cache_bytes": -1}, {"open_files": -1}, {"threads": 0}])
def test_unusable_reader(options):
    with pytest.raises(DataError, match="no such video reader"):
        VideoReader(**options)


def test_unusable_size(clip):
    with pytest.raises(DataError, match="no such size; got 0"):
        read_frames(clip, [0.0], short_side=0)

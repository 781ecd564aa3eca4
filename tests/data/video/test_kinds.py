"""Clips as the world makes them: mirrored, with a cover picture, of changing resolution, larger than memory."""

import os
import struct
from fractions import Fraction

import numpy as np
import pytest

from hfvla.data.video import packets, probe, read_frames
from hfvla.errors import DataError

from ..video_clips import FPS, HEIGHT, WIDTH, picture, read_number, write_clip

av = pytest.importorskip("av")


def encoded(path, sizes=((WIDTH, HEIGHT),), *, matrix=None, cover=False, start=0, frames=20):
    """Encode numbered frames; before them, a picture as a video track of its own, of one frame."""
    with av.open(str(path), "w", format="mpegts" if path.suffix == ".ts" else None) as container:
        if cover:
            front = container.add_stream("mjpeg", rate=FPS)
            front.width, front.height, front.pix_fmt = 200, 100, "yuvj420p"
        stream = container.add_stream("libx264", rate=FPS, options={"crf": "8", "g": "5", "bf": "0"})
        (stream.width, stream.height), stream.pix_fmt = sizes[0], "yuv420p"
        if matrix:
            stream.set_display_matrix(matrix)
        if cover:
            green = av.VideoFrame.from_ndarray(np.full((100, 200, 3), (0, 255, 0), np.uint8), format="rgb24")
            container.mux(front.encode(green.reformat(format="yuvj420p")))
            container.mux(front.encode())
        for number in range(frames):
            frame = av.VideoFrame.from_ndarray(picture(start + number, *sizes[0]), format="rgb24")
            frame.pts, frame.time_base = start + number, Fraction(1, FPS)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


ONE = 1 << 16
MATRICES = {  # a, b, c, d and what a viewer shows
    "mirrored": ((-ONE, 0, 0, ONE), np.fliplr),
    "upside down": ((ONE, 0, 0, -ONE), np.flipud),
    "transposed": ((0, ONE, ONE, 0), lambda x: np.swapaxes(x, 0, 1)),
    "transversed": ((0, -ONE, -ONE, 0), lambda x: np.swapaxes(x[::-1, ::-1], 0, 1)),
    "left": ((0, -ONE, ONE, 0), np.rot90),
    "right": ((0, ONE, -ONE, 0), lambda x: np.rot90(x, -1)),
    "half": ((-ONE, 0, 0, -ONE), lambda x: x[::-1, ::-1]),
}


@pytest.mark.parametrize("name", MATRICES)
def test_display_matrices_turn_and_mirror(tmp_path, name):
    (a, b, c, d), shown = MATRICES[name]
    path = encoded(tmp_path / "a.mp4", matrix=[a, b, 0, c, d, 0, 0, 0, 1 << 30])
    plain = encoded(tmp_path / "plain.mp4")
    times = [0.0, 0.3, 0.7]
    expected = [shown(pixels) for pixels in read_frames(plain, times).pixels]
    np.testing.assert_array_equal(read_frames(path, times).pixels, expected)
    info = probe(path)
    assert (info.height, info.width) == expected[0].shape[:2]
    assert info.mirrored == (name in ("mirrored", "upside down", "transposed", "transversed"))


def test_an_odd_angle_is_refused(tmp_path):
    path = encoded(tmp_path / "a.mp4", matrix=[46341, 46341, 0, -46341, 46341, 0, 0, 0, 1 << 30])
    with pytest.raises(DataError, match=r"a.mp4: video is rotated by an odd angle; got .*0.707"):
        probe(path)


def test_a_cover_track_of_one_frame_is_not_the_clip(tmp_path):
    path = encoded(tmp_path / "a.mkv", cover=True)
    with av.open(str(path)) as container:
        assert [stream.codec_context.name for stream in container.streams.video] == ["mjpeg", "h264"]
    info = probe(path)
    assert (info.codec, info.frames, info.width, info.height) == ("h264", 20, WIDTH, HEIGHT)
    assert [read_number(pixels) for pixels in read_frames(path, [0.0, 0.4]).pixels] == [0, 10]
    with pytest.raises(DataError, match="2 video streams|not installed|does not start"):
        read_frames(path, [0.0], backend="decord")


def box(kind, content):
    return struct.pack(">I4s", 8 + len(content), kind) + content


def boxes(content, start, end):
    while start + 8 <= end:
        size, kind = struct.unpack(">I4s", content[start : start + 8])
        yield kind, content[start : start + size]
        start += size


def with_cover(content, jpeg):
    """Put a cover picture (iTunes' covr) into an MP4 whose index comes last, ahead of its track."""
    found = b""
    for kind, whole in boxes(content, 0, len(content)):
        if kind == b"moov":
            handler = box(b"hdlr", bytes(8) + b"mdirappl" + bytes(9))
            data = box(b"data", struct.pack(">II", 13, 0) + jpeg)
            udta = box(b"udta", box(b"meta", bytes(4) + handler + box(b"ilst", box(b"covr", data))))
            parts = [part for name, part in boxes(whole, 8, len(whole)) if name != b"udta"]
            whole = box(b"moov", parts[0] + udta + b"".join(parts[1:]))
        found += whole
    return found


def test_an_attached_cover_picture_is_not_the_clip(tmp_path):
    import io

    from PIL import Image

    buffer = io.BytesIO()
    Image.new("RGB", (200, 100), (0, 255, 0)).save(buffer, "JPEG")
    path = tmp_path / "cover.mp4"
    path.write_bytes(with_cover(encoded(tmp_path / "a.mp4").read_bytes(), buffer.getvalue()))
    with av.open(str(path)) as container:
        assert container.streams.video[0].codec_context.name == "mjpeg", "the cover comes first"
    info = probe(path)
    assert (info.codec, info.frames, info.width) == ("h264", 20, WIDTH)
    assert read_number(read_frames(path, [0.4]).pixels[0]) == 10


def joined(path, *parts):
    """Put the packets of clips one after the other, as `ffmpeg -c copy` does."""
    with av.open(str(path), "w") as target:
        stream = None
        for part in parts:
            with av.open(str(part)) as source:
                stream = stream or target.add_stream_from_template(source.streams.video[0])
                for packet in source.demux(video=0):
                    if packet.dts is not None:
                        packet.stream = stream
                        target.mux(packet)
    return path


def test_frames_of_a_clip_whose_resolution_changes_are_of_one_size(tmp_path, caplog):
    parts = encoded(tmp_path / "a.ts"), encoded(tmp_path / "b.ts", ((2 * WIDTH, 2 * HEIGHT),), start=20)
    path = joined(tmp_path / "joined.ts", *parts)
    assert probe(path).frames == 40
    found = read_frames(path, [0.2, 0.4, 1.2])
    assert found.pixels.shape == (3, 2 * HEIGHT, 2 * WIDTH, 3)
    assert [read_number(pixels) for pixels in found.pixels] == [5, 10, 30]
    assert "joined.ts changes its resolution" in caplog.text
    assert read_frames(path, [0.2]).pixels.shape == (1, HEIGHT, WIDTH, 3)


class _Counted:
    """A packet that counts how many of its kind are alive."""

    alive = most = 0

    def __init__(self, packet):
        self.packet = packet
        _Counted.alive += 1
        _Counted.most = max(_Counted.most, _Counted.alive)

    def __del__(self):
        _Counted.alive -= 1

    def __getattr__(self, name):
        return getattr(self.packet, name)


def test_the_frame_table_keeps_no_packet(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", frames=60)
    read = packets._packets
    monkeypatch.setattr(packets, "_packets", lambda *args: map(_Counted, read(*args)))
    _Counted.most = 0
    container, stream = packets.open_video(str(path))
    line = packets.build_timeline(container, stream, str(path))
    container.close()
    assert len(line) == 60 and 1 <= _Counted.most <= 3


@pytest.mark.parametrize("limit", [0, 600, 3000])
def test_long_runs_of_packets_are_decoded_as_they_are_read(tmp_path, monkeypatch, limit):
    path = write_clip(tmp_path / "a.mp4", frames=60)
    times = [0.0, 0.36, 0.8, 1.32, 1.96, 2.36]
    expected = read_frames(path, times).pixels
    monkeypatch.setattr(packets, "_RUN_BYTES", limit)
    for threads in (1, 3):
        np.testing.assert_array_equal(read_frames(path, times, threads=threads).pixels, expected)


def test_a_pipe_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "a.mp4")
    with pytest.raises(DataError, match=r"a\.mp4: not a video file; got 'no regular file'"):
        probe(tmp_path / "a.mp4")
    for path in ("x" * 100_000, "a\x00.mp4"):
        with pytest.raises(DataError, match="video file cannot be read"):
            probe(path)


def test_an_error_of_ffmpeg_wherever_it_comes_names_the_file(tmp_path, monkeypatch):
    path = write_clip(tmp_path / "a.mp4", frames=10)

    def fail(*args, **options):
        raise av.error.PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(packets, "_run_packets", fail)
    with pytest.raises(DataError, match=r"a\.mp4: video cannot be decoded; got 'Operation not permitted'"):
        read_frames(path, [0.1])

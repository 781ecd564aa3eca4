"""The reader's memories: frames by bytes, decoders kept open, many files at once, forks and pickles."""

import copy
import gc
import multiprocessing
import os
import threading

import numpy as np
import pytest

from hfvla.data.video import FrameRequest, VideoReader, read_frames
from hfvla.data.video.cache import DecoderPool, FrameCache
from hfvla.data.video.pyav import PyAVDecoder
from hfvla.errors import DataError

from ..video_clips import HEIGHT, WIDTH, read_number, write_clip

FRAME_BYTES = HEIGHT * WIDTH * 3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("reader")


@pytest.fixture(scope="module")
def clips(folder):
    return [write_clip(folder / f"camera{number}.mp4", frames=20 + number) for number in range(4)]


@pytest.fixture
def counts(monkeypatch):
    """How many files were opened and frames decoded."""
    seen = {"opened": 0, "frames": 0, "closed": 0}
    opening, decoding, closing = PyAVDecoder.__init__, PyAVDecoder.decode, PyAVDecoder.close

    def init(self, *args, **options):
        seen["opened"] += 1
        opening(self, *args, **options)

    def decode(self, indices, threads=1):
        seen["frames"] += len(indices)
        return decoding(self, indices, threads)

    def close(self):
        seen["closed"] += 1
        closing(self)

    monkeypatch.setattr(PyAVDecoder, "__init__", init)
    monkeypatch.setattr(PyAVDecoder, "decode", decode)
    monkeypatch.setattr(PyAVDecoder, "close", close)
    return seen


def test_decoders_stay_open(clips, counts):
    with VideoReader(open_files=2) as reader:
        for _ in range(3):
            for clip in clips[:2]:
                assert read_number(reader.read(clip, [0.4]).pixels[0]) == 10
        assert counts == {"opened": 2, "frames": 6, "closed": 0}
        reader.read(clips[2], [0.4])
        assert counts["opened"] == 3 and counts["closed"] == 1 and len(reader.decoders) == 2
        reader.read(clips[0], [0.4])  # the one that had to go
        assert counts["opened"] == 4
    assert counts["closed"] == 4


def test_nothing_stays_open_by_itself(clips, counts):
    read_frames(clips[0], [0.4])
    assert counts == {"opened": 1, "frames": 1, "closed": 1}


def test_frames_are_remembered(clips, counts):
    reader = VideoReader(cache_bytes=10 * FRAME_BYTES)
    first = reader.read(clips[0], [0.0, 0.4, 0.4])
    second = reader.read(clips[0], [0.41, 0.2, 0.0])
    assert counts["frames"] == 3  # 0, 10, and then only 5
    assert [read_number(pixels) for pixels in second.pixels] == [10, 5, 0]
    assert np.array_equal(second.pixels[0], first.pixels[1])
    reader.read(clips[0], [0.2], short_side=32)
    assert counts["frames"] == 4 and reader.cache.hits == 2
    assert reader.read(clips[0], [0.2], short_side=32).pixels.shape == (1, 32, 48, 3)
    assert counts["frames"] == 4 and counts["opened"] == 1


def test_frames_are_located_without_being_decoded(clips, counts):
    with VideoReader(backend="pyav") as reader:
        times = [0.1, 0.5, 9.0]
        located = reader.locate(clips[0], times, past_end="clamp")
        assert counts["frames"] == 0
        seen = reader.read(clips[0], times, past_end="clamp")
        assert (
            located.tolist() == seen.indices.tolist() == [read_number(frame) for frame in seen.pixels] == [2, 12, 19]
        )
        with pytest.raises(DataError, match="1 of 3 timestamps lie past the end"):
            reader.locate(clips[0], times)


def test_a_frame_handed_out_is_the_callers(clips):
    reader = VideoReader(cache_bytes=10 * FRAME_BYTES)
    reader.read(clips[0], [0.4]).pixels[:] = 0
    frames = reader.read(clips[0], [0.4])
    frames.pixels[:] = 0
    assert read_number(reader.read(clips[0], [0.4]).pixels[0]) == 10


def test_memory_is_bounded(clips, counts):
    reader = VideoReader(cache_bytes=3 * FRAME_BYTES + 1)
    reader.read(clips[0], np.arange(20) / 25)
    assert len(reader.cache) == 3 and reader.cache.bytes == 3 * FRAME_BYTES
    assert read_frames(clips[0], [0.0]).pixels.tobytes() == reader.read(clips[0], [0.0]).pixels.tobytes()


def test_a_changed_file_is_read_again(folder, counts):
    path = write_clip(folder / "changing.mp4", frames=10)
    reader = VideoReader(cache_bytes=10 * FRAME_BYTES)
    before = reader.read(path, [0.36])
    assert before.indices.tolist() == [9]
    write_clip(path, times_ms=(0, 40, 300, 380))
    os.utime(path, ns=(1, 1))
    after = reader.read(path, [0.36])
    assert after.indices.tolist() == [2] and read_number(after.pixels[0]) == 2
    assert counts["opened"] == 2


def test_the_frame_cache_drops_what_was_unused_longest():
    cache = FrameCache(250)
    for name in "abc":
        cache.put(name, np.zeros(100, np.uint8))
        cache.get("a")
    assert cache.get("b") is None and cache.get("a") is not None and cache.get("c") is not None
    assert cache.bytes == 200
    cache.put("a", np.zeros(40, np.uint8))
    assert cache.bytes == 140
    cache.put("huge", np.zeros(300, np.uint8))
    assert cache.get("huge") is None and cache.bytes == 140


def test_many_files_at_once(clips):
    with VideoReader(cache_bytes=1 << 20, open_files=3) as reader:
        requests = [FrameRequest(clips[i % 4], [0.04 * (i % 20), 0.4], 32) for i in range(40)]
        results = reader.read_many(requests, workers=6)
        assert reader.read_many([]) == []
    for i, result in enumerate(results):
        assert [read_number(pixels) for pixels in result.pixels] == [i % 20, 10]
        assert result.pixels.shape == (2, 32, 48, 3)


def test_files_are_read_side_by_side(clips, monkeypatch):
    """Both reads must be under way at once for the barrier to open."""
    barrier = threading.Barrier(2, timeout=20)
    decoding = PyAVDecoder.decode

    def decode(self, indices, threads=1):
        barrier.wait()
        return decoding(self, indices, threads)

    monkeypatch.setattr(PyAVDecoder, "decode", decode)
    results = VideoReader().read_many([FrameRequest(clip, [0.4]) for clip in clips[:2]], workers=2)
    assert [read_number(result.pixels[0]) for result in results] == [10, 10]


def test_a_broken_file_among_many(clips, folder):
    (folder / "junk.mp4").write_bytes(b"junk" * 1000)
    requests = [FrameRequest(clips[0], [0.4]), FrameRequest(folder / "junk.mp4", [0.4]), FrameRequest(clips[1], [9.0])]
    with pytest.raises(DataError, match="junk.mp4: not a video"):
        VideoReader().read_many(requests, workers=2)
    good, junk, late = VideoReader().read_many(requests, workers=2, on_error="return")
    assert read_number(good.pixels[0]) == 10
    assert isinstance(junk, DataError) and "junk.mp4" in str(junk)
    assert isinstance(late, DataError) and "past the end" in str(late)


def test_a_decoder_that_failed_is_not_kept(clips, counts):
    with VideoReader() as reader:
        with pytest.raises(DataError, match="past the end"):
            reader.read(clips[0], [9.0])
        assert len(reader.decoders) == 0 and counts["closed"] == 1


def test_pool_lends_a_decoder_to_one_at_a_time():
    class Fake:
        def close(self): ...

    pool = DecoderPool(2)
    first = pool.borrow("a", Fake)
    assert pool.borrow("a", Fake) is not first
    pool.give_back("a", first)
    assert pool.borrow("b", Fake) is not first
    assert pool.borrow("a", Fake) is first


def test_copies_carry_settings_only(clips):
    reader = VideoReader(cache_bytes=1000, open_files=3, threads=2)
    reader.read(clips[0], [0.4])
    twin = copy.deepcopy(reader)  # by __reduce__, as pickling does
    assert len(reader.decoders) == 1 and len(twin.decoders) == 0 and twin.threads == 2
    assert read_number(twin.read(clips[0], [0.4]).pixels[0]) == 10


def _read_in_child(reader, path, answers):
    gc.collect()
    answers.put((len(reader.decoders), read_number(reader.read(path, [0.4]).pixels[0])))


@pytest.mark.distributed
def test_a_forked_worker_opens_its_own(clips, tmp_path):
    reader = VideoReader(threads=2, cache_bytes=1 << 20)
    reader.read(clips[0], [0.0, 0.75])
    gc.disable()
    write_clip(tmp_path / "encoder.mp4")  # leaves its encoder, with threads, in the garbage
    context = multiprocessing.get_context("fork")
    answers = context.Queue()
    child = context.Process(target=_read_in_child, args=(reader, clips[0], answers))
    child.start()
    try:
        assert answers.get(timeout=60) == (0, 10)
    finally:
        gc.enable()
        child.join(10)
        child.kill()
    assert child.exitcode == 0 and len(reader.decoders) == 1

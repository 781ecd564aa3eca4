"""Which moments are read, and what becomes of them within the token budget."""

import numpy as np
import pytest
import torch
from transformers import GotOcr2ImageProcessor

from hfvla.data.video import VideoReader
from hfvla.errors import DataError
from hfvla.models.internvl_video_qa.configuration_internvl_video_qa import FRAMES
from hfvla.models.internvl_video_qa.frames import Clip, choose_times, cut_tiles


def test_support_frames_are_kept_and_surrounded():
    times, kept = choose_times([4.4, 2.0], 10.0, FRAMES)
    assert len(times) == 4 and times.min() >= 1.5 and times.max() <= 4.9  # clamp(2 x 2, 4, 6), half a second around
    assert times[list(kept)].tolist() == [2.0, 4.4] and (np.diff(times) > 0).all()
    assert len(choose_times([1, 2, 3], 10.0, FRAMES)[0]) == len(choose_times([1, 2, 3, 4], 10.0, FRAMES)[0]) == 6
    assert choose_times([5.0, 5.0], 10.0, FRAMES)[1] == choose_times([5.0], 10.0, FRAMES)[1]


def test_without_support_frames_the_whole_clip_is_seen():
    for support, mode in (([], "support"), ([4.4], "segments")):
        times, kept = choose_times(support, 8.0, FRAMES, mode)
        assert times.tolist() == [1.0, 3.0, 5.0, 7.0] and kept == ()
    assert len(choose_times([], 11.0, FRAMES)[0]) == 6  # one every two seconds
    assert choose_times([4.4], 8.0, FRAMES, "middle")[0].tolist() == [4.0]
    assert len(choose_times([4.4], 8.0, FRAMES, "none")[0]) == 0


def test_impossible_choices_are_refused():
    with pytest.raises(DataError, match=r"no such way to choose frames; got 'segment'. Did you mean 'segments'"):
        choose_times([], 8.0, FRAMES, "segment")
    with pytest.raises(DataError, match=r"q7: a support frame lies outside the clip; got 9.0"):
        choose_times([9.0], 8.0, FRAMES, where="q7")


@pytest.fixture
def image_processor():
    return GotOcr2ImageProcessor(size={"height": 32, "width": 32})


def clip(path, frames, height, width, favour=()):
    stream = np.random.default_rng(len(path) + frames)
    pixels = stream.integers(0, 255, (frames, height, width, 3), dtype=np.uint8)
    return Clip(path, pixels, tuple(range(frames)), favour)


def test_tiles_stay_within_the_budget(image_processor):
    wide = clip("a", 3, 64, 128, favour=(1,))  # 2 x 1 tiles and a thumbnail where there is room
    for budget, counts in ((9 * 4, (3, 3, 3)), (5 * 4, (1, 3, 1)), (3 * 4, (1, 1, 1))):
        found = cut_tiles([wide], image_processor, {"most_tiles": 6, "token_budget": budget}, tokens_per_tile=4)
        assert found.counts == (counts,) and found.pixel_values.shape == (sum(counts), 3, 32, 32)
        assert sorted(found.index.tolist()) == list(range(sum(counts)))
    with pytest.raises(DataError, match="frames do not fit the token budget"):
        cut_tiles([wide], image_processor, {"most_tiles": 6, "token_budget": 8}, tokens_per_tile=4)


def test_tiles_come_in_the_order_of_their_places(image_processor):
    """Also where frames have different numbers of tiles, and clips different sizes."""
    clips = [clip("a", 3, 64, 128, favour=(1,)), clip("bb", 2, 32, 32)]
    tiling = {"most_tiles": 6, "token_budget": 20}
    together = cut_tiles(clips, image_processor, tiling, tokens_per_tile=4)
    assert together.counts == ((1, 3, 1), (1, 1))
    placed = together.pixel_values[together.index]
    parts = [cut_tiles([one], image_processor, tiling, tokens_per_tile=4) for one in clips]
    torch.testing.assert_close(placed, torch.cat([part.pixel_values[part.index] for part in parts]))
    plain = image_processor([clips[0].pixels[2]], return_tensors="pt").pixel_values
    torch.testing.assert_close(placed[4], plain[0])


def test_a_frame_that_two_clips_show_is_cut_once(image_processor):
    one = clip("a", 2, 32, 32)
    found = cut_tiles([one, one], image_processor, {"most_tiles": 1, "token_budget": 8}, tokens_per_tile=4)
    assert len(found.pixel_values) == 2 and found.index.tolist() == [0, 1, 0, 1]


def test_no_frames_are_no_tiles(image_processor):
    empty = Clip("a", np.zeros((0, 1, 1, 3), np.uint8), ())
    found = cut_tiles([empty], image_processor, {"most_tiles": 1, "token_budget": 8}, tokens_per_tile=4)
    assert found.pixel_values is None and found.counts == ((),) and len(found.index) == 0


def test_the_processor_reads_the_frames_on_display(processor, rows):
    row = rows[0]
    read = processor.read_clip(row["video"], row["support_frames"])
    times, favour = choose_times(row["support_frames"], row["duration"], processor.frames)
    found = VideoReader().read(row["video"], times)
    assert read.indices == tuple(found.indices.tolist()) and read.favour == favour
    assert np.array_equal(read.pixels, found.pixels)


def test_a_changed_file_is_measured_again(processor, rows, tmp_path):
    import os
    import shutil

    video = tmp_path / "clip.mp4"
    shutil.copy(rows[0]["video"], video)
    assert processor.duration_s(str(video)) == pytest.approx(6.0)
    video.write_bytes(b"no video")
    os.utime(video, (1, 1))
    with pytest.raises(DataError, match=r"clip\.mp4"):
        processor.duration_s(str(video))


def test_forgotten_videos_are_read_from_the_file_again(processor, rows, monkeypatch):
    video = rows[0]["video"]
    processor.read_clip(video)
    probed, probe = [], processor.reader.probe
    monkeypatch.setattr(processor.reader, "probe", lambda path: probed.append(path) or probe(path))
    processor.duration_s(video)
    assert not probed and len(processor.reader.cache) > 0
    processor.forget()
    assert len(processor.reader.cache) == 0
    processor.read_clip(video)
    assert probed == [video]

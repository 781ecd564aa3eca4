"""Which moments of a clip are read, and how many tiles they may cost; by hand-computed numbers."""

import numpy as np
import pytest

from hfvla.data.video import (
    closest_grid,
    duration_frame_count,
    plan_tiles,
    sample_times,
    segment_centres,
    support_frame_count,
    support_times,
    support_window,
)
from hfvla.errors import DataError


def test_segment_centres():
    # 12 s in 4 segments of 3 s: middles at 1.5, 4.5, 7.5, 10.5
    assert segment_centres(0, 12, 4).tolist() == [1.5, 4.5, 7.5, 10.5]
    assert segment_centres(2, 3, 2).tolist() == [2.25, 2.75]
    assert segment_centres(0, 1, 1).dtype == np.float64


@pytest.mark.parametrize(("duration", "count"), [(1, 4), (8, 4), (8.1, 5), (10, 5), (11, 6), (15, 6), (60, 6)])
def test_frames_by_duration(duration, count):
    assert duration_frame_count(duration) == count


def test_frames_by_duration_with_other_bounds():
    assert duration_frame_count(60, seconds_per_frame=5, fewest=1, most=32) == 12


@pytest.mark.parametrize(("supports", "count"), [(1, 4), (2, 4), (3, 6), (5, 6), (6, 6), (7, 7)])
def test_frames_by_support(supports, count):
    assert support_frame_count(supports) == count


def test_support_window_reaches_half_a_second_and_stays_in_the_clip():
    assert support_window([4.0, 6.0], 10) == (3.5, 6.5)
    assert support_window([0.2, 9.8], 10) == (0.0, 10.0)
    assert support_window([4.0], 10, margin_s=2) == (2.0, 6.0)


def test_support_times_keep_every_support_frame():
    # window [3.927402, 4.927402], centres at +0.125, 0.375, 0.625, 0.875; both middle ones are equally near, within
    # rounding: the support frame takes one of them.
    times = support_times([4.427402], 12)
    assert len(times) == 4 and 4.427402 in times
    assert times[0] == pytest.approx(4.052402) and times[3] == pytest.approx(4.802402)
    # window [0.5, 9.5], six centres 1.25, 2.75, 4.25, 5.75, 7.25, 8.75: 1.0 and 9.0 move the outer two, 5.0 the third
    assert support_times([9.0, 1.0, 4.9], 12).tolist() == [1.0, 2.75, 4.9, 5.75, 7.25, 9.0]


def test_close_support_frames_take_different_places():
    times = support_times([5.0, 5.01, 5.02], 10)
    assert len(times) == 6 and {5.0, 5.01, 5.02} <= set(times.tolist())
    assert (np.diff(times) > 0).all()
    assert len(support_times([5.0, 5.0], 10)) == 4


def test_sample_times_use_support_frames_when_there_are_some():
    assert sample_times(12).tolist() == [1.0, 3.0, 5.0, 7.0, 9.0, 11.0]
    assert sample_times(12, []).tolist() == sample_times(12).tolist()
    assert sample_times(12, count=2).tolist() == [3.0, 9.0]
    assert sample_times(12, [6.0]).tolist() == support_times([6.0], 12).tolist()
    assert 6.0 in sample_times(12, [6.0], count=5) and len(sample_times(12, [6.0], count=5)) == 5


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: segment_centres(0, 5, 0), "no frame to place; got 0"),
        (lambda: segment_centres(5, 5, 3), r"no time to place frames in; got \(5, 5\)"),
        (lambda: segment_centres(0, float("inf"), 3), "no time to place"),
        (lambda: duration_frame_count(0), "not positive"),
        (lambda: duration_frame_count(5, fewest=7), r"no such range of frames; got \(7, 6\)"),
        (lambda: support_window([], 5), "no support frame"),
        (
            lambda: support_window([1.0, 5.5], 5, where="q7"),
            "q7: a support frame lies outside.*got 5.5.*0 to 5.000000",
        ),
        (lambda: support_window([-0.1], 5), "outside the clip; got -0.1"),
        (lambda: support_window([float("nan")], 5), "outside the clip; got nan"),
        (lambda: support_times([1, 2, 3], 5, count=2), "fewer frames than support frames; got 2; expected count >= 3"),
    ],
)
def test_sampling_errors(call, problem):
    with pytest.raises(DataError, match=problem):
        call()


SIZES = [(1280, 720), (720, 1280), (640, 480), (448, 448), (1920, 1080), (960, 540), (300, 299), (2000, 300)]


@pytest.mark.parametrize("bound", [1, 2, 4, 6, 12])
def test_grids_are_those_of_transformers(bound):
    got_ocr2 = pytest.importorskip("transformers.models.got_ocr2.image_processing_got_ocr2")
    for width, height in SIZES:
        columns, rows = got_ocr2.get_optimal_tiled_canvas((height, width), (448, 448), 1, bound)
        grid = closest_grid(width, height, bound)
        assert (grid.columns, grid.rows) == (columns, rows)
        assert grid.tiles == columns * rows + (columns * rows > 1)


def test_a_plan_spends_no_more_than_the_budget():
    # 4:3 with up to 6 tiles is nearest to 1x1 or 3x2; 1024x768 has 3x2 = 1.5 off by 0.167, 1x1 off by 0.333
    assert closest_grid(1024, 768, 6).tiles == 7
    # six frames x 7 tiles x 256 = 10752
    assert plan_tiles([(1024, 768)] * 6, 10_752).tokens == 10_752
    # one token less: bounds 5 and 4 give 2x2 and a thumbnail (off by 0.333, as 1x1, but larger): 6 x 5 x 256 = 7680
    coarse = plan_tiles([(1024, 768)] * 6, 10_751)
    assert coarse.tokens == 7680 and set(coarse.max_tiles) == {5}
    # what is left refines the favoured frames, in their order: 7 tiles for 5 cost 2 x 256 = 512 more
    some = plan_tiles([(1024, 768)] * 6, 10_751, favour=[4, 1])
    assert some.max_tiles == (5, 6, 5, 5, 6, 5) and some.tokens == 7680 + 2 * 512
    one = plan_tiles([(1024, 768)] * 6, 7680 + 512, favour=[4, 1])
    assert one.max_tiles == (5, 5, 5, 5, 6, 5) and one.grids[4].tiles == 7


def test_thumbnails_count():
    assert closest_grid(1280, 720, 6).tiles == 3  # 2x1 and the whole
    assert closest_grid(1280, 720, 6, thumbnail=False).tiles == 2
    assert plan_tiles([(1280, 720)] * 4, 4 * 3 * 64, tokens_per_tile=64).tokens == 768


@pytest.mark.parametrize(
    ("call", "problem"),
    [
        (lambda: plan_tiles([], 1000), "no frame to tile"),
        (lambda: plan_tiles([(640, 480)] * 5, 1000), r"do not fit.*got '1000 tokens'; expected >= 1280 \(5 frames"),
        (lambda: plan_tiles([(640, 480)], 1000, favour=[1]), "no such frame to favour; got 1"),
        (lambda: closest_grid(0, 480, 6), "no such tiling"),
        (lambda: closest_grid(640, 480, 0), "no such tiling"),
    ],
)
def test_tiling_errors(call, problem):
    with pytest.raises(DataError, match=problem):
        call()

"""Sensor windows: by hand, never from the future, gaps named or masked, seconds since 1970 kept apart."""

import numpy as np
import pytest

from hfvla.data.signals.sensors import SensorSeries, window_times
from hfvla.errors import DataError

TIMES = np.array([0.0, 0.1, 0.2, 0.3, 0.8, 0.9, 1.0])
VALUES = np.array([0.0, 1.0, 2.0, 3.0, 8.0, 9.0, 10.0])
METHODS = ["previous", "linear"]


def series(times=TIMES, values=VALUES, name="run7/force"):
    return SensorSeries(times, values, name)


def test_times_by_hand():
    np.testing.assert_allclose(window_times(2.0, 4, 10.0), [1.7, 1.8, 1.9, 2.0])
    assert window_times(1.7e9, 650, 650.0)[-1] == 1.7e9


def test_hold_by_hand():
    found = series().window(0.27, 3, 10.0, tolerance_s=0.1)  # points 0.07, 0.17, 0.27
    assert found.values.ravel().tolist() == [0.0, 1.0, 2.0] and found.mask.all()
    assert found.values.dtype == np.float32 and found.values.shape == (3, 1) and found.times.dtype == np.float64


def test_line_by_hand():
    found = series().window(0.27, 3, 10.0, tolerance_s=0.1001, method="linear")
    # 0.07 lies between 0 and 1: 0.7; 0.17: 1.7; at 0.27 the next sample, 0.3, is in the future: the last one, 2
    np.testing.assert_allclose(found.values.ravel(), [0.7, 1.7, 2.0], atol=1e-6)


def test_gaps_are_masked():
    found = series().window(0.9, 6, 10.0, tolerance_s=0.15)  # points 0.4 to 0.9, samples at 0.3 0.8 0.9
    assert found.mask.tolist() == [True, False, False, False, True, True]
    assert np.isnan(found.values[1:4]).all()  # no number that looks like data
    assert found.values[found.mask].ravel().tolist() == [3.0, 8.0, 9.0]
    across = series().window(0.9, 6, 10.0, tolerance_s=0.15, method="linear")
    assert across.values[0] == 3.0  # no line across the gap: its far end is 0.5 s away


def test_before_the_first_sample():
    found = series().window(0.1, 4, 10.0, tolerance_s=0.5)  # -0.2, -0.1, 0.0, 0.1
    assert found.mask.tolist() == [False, False, True, True] and found.values[2:].ravel().tolist() == [0.0, 1.0]


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("end_s", [-0.5, 0.0, 0.05, 0.3, 0.5, 0.85, 1.0, 1.2])
def test_never_from_the_future(method, end_s):
    """Whatever comes after the end, other values, other times or nothing at all, the window is the same."""
    options = {"tolerance_s": 0.2, "method": method}
    whole = series().window(end_s, 20, 50.0, **options)
    later = end_s < TIMES
    poisoned = series(values=np.where(later, 1e6, VALUES)).window(end_s, 20, 50.0, **options)
    np.testing.assert_array_equal(whole.values, poisoned.values)
    moved = series(times=np.where(later, end_s + 1e-4 + 1e-3 * np.cumsum(later), TIMES))
    np.testing.assert_array_equal(whole.values, moved.window(end_s, 20, 50.0, **options).values)
    if (~later).any():
        live = series(TIMES[~later], VALUES[~later]).window(end_s, 20, 50.0, **options)
        np.testing.assert_array_equal(whole.values, live.values)
        np.testing.assert_array_equal(whole.mask, live.mask)


@pytest.mark.parametrize("method", METHODS)
def test_seconds_since_1970_at_650_hz(method):
    """The points of the samples' own times give the samples back, though seconds are large; float32 is refused."""
    start = 1_763_700_000.0
    times = start + np.arange(1300) / 650.0
    values = np.arange(1300.0)[:, None] * [1.0, -1.0]
    found = series(times, values).window(times[-1], 650, 650.0, tolerance_s=0.001, method=method)
    assert found.mask.all()
    np.testing.assert_allclose(found.values, values[-650:], atol=1e-3)
    with pytest.raises(DataError, match="type of the times; got 'float32'; expected float64 seconds"):
        series(times.astype(np.float32), values)


@pytest.mark.parametrize("method", METHODS)
def test_half_a_microsecond_after_the_end_is_after_it(method):
    found = series(np.array([0.0, 0.1, 0.1000005]), np.array([1.0, 2.0, 99.0]))
    assert found.window(0.1, 2, 10.0, tolerance_s=0.1, method=method).values.ravel().tolist() == [1.0, 2.0]


def test_a_faster_series_is_thinned():
    times = np.arange(1001) / 1000.0
    found = series(times, times).window(1.0, 11, 10.0, tolerance_s=0.01)
    np.testing.assert_allclose(found.values.ravel(), np.arange(11) / 10, atol=1e-6)


def test_of_equal_times_the_last_counts():
    found = series(np.array([0.0, 0.1, 0.1]), np.array([1.0, 2.0, 3.0]))
    for method in METHODS:
        assert found.window(0.1, 1, 10.0, tolerance_s=0.1, method=method).values.item() == 3.0


def test_errors_of_gaps():
    with pytest.raises(DataError, match=r"run7/force: 3 of 6 points have no sample within 0.15 s, the first at 0.5"):
        series().window(0.9, 6, 10.0, tolerance_s=0.15, on_gap="error")
    with pytest.raises(
        DataError, match=r"do not overlap: the window is 49.9 to 50.0 s; got 'samples from 0.0 to 1.0 s"
    ):
        series().window(50.0, 2, 10.0, tolerance_s=0.15, on_gap="error")
    with pytest.raises(DataError, match="do not overlap"):
        series().window(-5.0, 2, 10.0, tolerance_s=0.15, on_gap="error")
    assert not series().window(-5.0, 2, 10.0, tolerance_s=0.15).mask.any()
    assert series().window(0.3, 4, 10.0, tolerance_s=0.05, on_gap="error").mask.all()


def test_bad_series():
    bad = VALUES.copy()
    bad[3], bad[5] = np.nan, np.inf
    with pytest.raises(
        DataError, match="run7/force: 2 values are not finite, the first in sample 3, channel 0; got nan"
    ):
        series(values=bad)
    with pytest.raises(DataError, match="time of sample 4 falls or is not finite; got 0.2"):
        series(times=np.array([0.0, 0.1, 0.2, 0.3, 0.2, 0.9, 1.0]))
    with pytest.raises(DataError, match="time of sample 0"):
        series(times=np.array([np.nan, *TIMES[1:]]))
    with pytest.raises(DataError, match=r"times and values do not fit; got \(\(7,\), \(6, 1\)\)"):
        series(values=VALUES[:6])
    with pytest.raises(DataError, match="times and values do not fit"):
        series(TIMES[:0], VALUES[:0])


@pytest.mark.parametrize(
    ("arguments", "options"),
    [
        ((1.0, 0, 10.0), {}),
        ((1.0, 5, 0.0), {}),
        ((np.nan, 5, 10.0), {}),
        ((1.0, 5, 10.0), {"method": "cubic"}),
        ((1.0, 5, 10.0), {"on_gap": "zero"}),
        ((1.0, 5, 10.0), {"tolerance_s": -1.0}),
    ],
)
def test_bad_arguments(arguments, options):
    with pytest.raises(DataError, match="window of a sensor|resampling"):
        series().window(*arguments, **({"tolerance_s": 0.1} | options))

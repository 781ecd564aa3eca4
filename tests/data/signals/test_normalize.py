"""Normalisation: statistics by hand and in one pass, exact inverses, constant dimensions, no clamping unasked."""

import json

import numpy as np
import pytest

from hfvla.data.signals.normalize import FeatureStatistics, Normalizer, StatisticsFitter, fit_statistics
from hfvla.errors import DataError

ROWS = np.random.default_rng(0).normal([1e6, -2.0, 0.0], [3.0, 1e-3, 50.0], size=(5000, 3))


def test_by_hand():
    # 1 2 3 6: mean 3, squares 4 + 1 + 0 + 9 = 14, std sqrt(14 / 4). Quantile 0.5 is 2.5; 0 is the smallest.
    found = fit_statistics([np.array([[1.0], [2.0]]), np.array([[3.0], [6.0]])], levels=(0.0, 0.5), names=["x_mm"])
    assert found.mean == [3.0] and found.std == [pytest.approx(3.5**0.5)] and found.count == 4
    assert (found.minimum, found.maximum, found.low, found.high) == ([1.0], [6.0], [1.0], [2.5])
    assert found.names == ["x_mm"] and found.levels == [0.0, 0.5]


def cut(rows, sizes):
    bounds = np.cumsum([0, *sizes, len(rows) - sum(sizes)])
    return [rows[a:b] for a, b in zip(bounds, bounds[1:], strict=False)]


@pytest.mark.parametrize("sizes", [[], [1], [7, 0, 1993], [2500], [100] * 40])
def test_one_pass_equals_numpy(sizes):
    found = fit_statistics(cut(ROWS, sizes))
    np.testing.assert_allclose(found.mean, ROWS.mean(0), rtol=1e-12)
    np.testing.assert_allclose(found.std, ROWS.std(0), rtol=1e-9)  # 3 beside 1e6: a sum of squares would lose it
    np.testing.assert_array_equal(found.low, np.quantile(ROWS, 0.01, axis=0))
    np.testing.assert_array_equal(found.high, np.quantile(ROWS, 0.99, axis=0))
    np.testing.assert_array_equal([found.minimum, found.maximum], [ROWS.min(0), ROWS.max(0)])


def test_sampled_quantiles():
    options = {"sample_rows": 1000, "levels": (0.1, 0.9)}
    ways = [fit_statistics(cut(ROWS, sizes), **options) for sizes in ([], [100] * 40, [2001, 2])]
    assert ways[0].low == ways[1].low == ways[2].low and ways[0].high == ways[1].high == ways[2].high
    for level, values in ((0.1, ways[0].low), (0.9, ways[0].high)):
        ranks = (values > ROWS).mean(0)
        assert np.abs(ranks - level).max() < 4 * np.sqrt(0.09 / 1000)
    assert ways[0].low != fit_statistics([ROWS], seed=1, **options).low
    fitter = StatisticsFitter(sample_rows=10)
    for row in ROWS[:500]:
        fitter.update(row[None])
        assert sum(map(len, fitter._rows)) <= 20  # rows kept do not grow with the data


@pytest.mark.parametrize("mode", ["mean_std", "quantile", "min_max"])
def test_applied_and_inverted(mode):
    normalizer = Normalizer(fit_statistics([ROWS]), mode)
    normalised = normalizer.apply(ROWS.reshape(50, 100, 3))
    assert normalised.dtype == np.float64
    back = normalizer.invert(normalised).reshape(-1, 3)
    assert np.abs(back - ROWS).max(0) == pytest.approx(0.0, abs=3e-10)  # 1e6 in float64 is known to 1e-10
    flat = normalised.reshape(-1, 3)
    if mode == "mean_std":
        assert np.abs(flat.mean(0)).max() < 1e-6 and np.abs(flat.std(0) - 1).max() < 1e-9
    elif mode == "min_max":
        np.testing.assert_allclose([flat.min(0), flat.max(0)], [[-1] * 3, [1] * 3], atol=1e-9)
    else:
        np.testing.assert_allclose(np.quantile(flat, [0.01, 0.99], axis=0), [[-1] * 3, [1] * 3], atol=1e-9)
        assert flat.max() > 1.2  # outliers are not clamped


def test_by_hand_of_each_mode():
    statistics = FeatureStatistics(4, [3.0], [2.0], [1.0], [9.0], [2.0], [6.0], [0.01, 0.99], [])
    assert Normalizer(statistics).apply([[7.0]]).item() == 2.0  # (7 - 3) / 2
    assert Normalizer(statistics, "quantile").apply([[7.0]]).item() == 1.5  # (7 - 4) / 2
    assert Normalizer(statistics, "min_max").apply([[7.0]]).item() == 0.5  # (7 - 5) / 4
    clipped = Normalizer(statistics, "quantile", clip=1.0)
    assert clipped.apply([[7.0]]).item() == 1.0 and clipped.invert([[1.0]]).item() == 6.0


@pytest.mark.parametrize("mode", ["mean_std", "quantile", "min_max"])
@pytest.mark.parametrize("value", [0.0, 0.1, -250.3])
def test_constant_dimensions(mode, value):
    rows = np.stack([np.full(1001, np.float32(value)), np.arange(1001)], 1)
    normalizer = Normalizer(fit_statistics([rows]), mode)
    assert normalizer.constant.tolist() == [True, False]
    normalised = normalizer.apply(rows)
    assert np.abs(normalised[:, 0]).max() < 1e-9 and np.isfinite(normalised).all()
    other = np.array([[value + 2.0, 5.0]])
    np.testing.assert_allclose(normalizer.invert(normalizer.apply(other)), other, atol=1e-9)
    assert normalizer.apply(other)[0, 0] == pytest.approx(2.0, abs=1e-5)  # shifted, not scaled


def test_a_gripper_that_is_nearly_always_closed():
    rows = np.zeros((1000, 1))
    rows[0] = 1.0
    normalizer = Normalizer(fit_statistics([rows]), "quantile")
    assert normalizer.apply([[0.0], [1.0]]).ravel().tolist() == [-1.0, 1.0] and not normalizer.constant[0]
    rows[1] = -3.0  # now both quantiles, 0, are inside of the range -3 to 1
    normalizer = Normalizer(fit_statistics([rows]), "quantile")
    assert normalizer.apply([[-3.0], [0.0], [1.0]]).ravel().tolist() == [-1.0, 0.5, 1.0]


def test_saved_as_json():
    normalizer = Normalizer(fit_statistics([ROWS], names=["a", "b", "c"]), "quantile", clip=3.0)
    loaded = Normalizer.from_dict(json.loads(json.dumps(normalizer.to_dict())))
    assert loaded.statistics == normalizer.statistics and (loaded.mode, loaded.clip) == ("quantile", 3.0)
    np.testing.assert_array_equal(loaded.apply(ROWS), normalizer.apply(ROWS))


def test_bad_rows():
    fitter = StatisticsFitter("run7 action", names=["x"])
    with pytest.raises(DataError, match="run7 action: no rows"):
        fitter.finish()
    fitter.update(np.zeros((4, 2)))
    bad = np.zeros((3, 2))
    bad[1, 1], bad[2, 0] = np.nan, np.inf
    with pytest.raises(DataError, match="2 values are not finite, the first in row 5, dimension 1; got nan"):
        fitter.update(bad)
    with pytest.raises(DataError, match=r"run7 action: wrong shape; got \(1, 3\); expected \[N, 2\]"):
        fitter.update(np.zeros((1, 3)))
    assert fitter.finish().count == 4
    with pytest.raises(DataError, match=r"quantile levels; got \(0.9, 0.1\)"):
        StatisticsFitter(levels=(0.9, 0.1))


def test_bad_statistics():
    statistics = fit_statistics([ROWS])
    saved = statistics.to_dict()
    with pytest.raises(DataError, match="action: keys of the statistics differ.*Fit them anew"):
        FeatureStatistics.from_dict({key: value for key, value in saved.items() if key != "std"}, "action")
    with pytest.raises(DataError, match="'std' is unusable"):
        FeatureStatistics.from_dict(saved | {"std": [1.0]})
    with pytest.raises(DataError, match="'low' is unusable.*nan"):
        FeatureStatistics.from_dict(saved | {"low": [1.0, float("nan"), 0.0]})
    with pytest.raises(DataError, match="normalizer: keys differ"):
        Normalizer.from_dict(saved)
    with pytest.raises(DataError, match="got 'meanstd'; expected mean_std"):
        Normalizer(statistics, "meanstd")
    with pytest.raises(DataError, match="got 0"):
        Normalizer(statistics, clip=0)
    with pytest.raises(DataError, match=r"wrong number of dimensions; got \(2, 4\); expected \[..., 3\]"):
        Normalizer(statistics).invert(np.zeros((2, 4)))

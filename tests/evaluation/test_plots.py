"""Figures become PNGs that show the data they were given."""

import io

import numpy as np
import pytest
from PIL import Image

from hfvla.evaluation.plots import HTML_KINDS, KINDS, render
from hfvla.family import Figure

BINS = {"low": [0.4, 0.8], "high": [0.6, 1.0], "confidence": [0.5, 0.9], "accuracy": [0.7, 0.6], "count": [3, 9]}
DATA = {
    "confusion": {"matrix": [[3, 1], [0, 0]], "rows": ["a", "b"], "columns": ["a", "b"]},
    "reliability": {"bins": BINS, "ece": 0.1, "mce": 0.3},
    "radar": {"axes": ["a", "b", "c"], "series": {"F1": [0.2, 0.9, 0.5]}},
    "bars": {"groups": ["a", "b"], "series": {"x": [0.1, None]}, "errors": {"x": [[0.0, 0.3], None]}, "ylim": [0, 1]},
    "curves": {"panels": [{"title": "loss", "series": {"train": {"x": [0, 1], "y": [2.0, 1.0]}}}] * 5},
    "progression": {"stages": ["one", "two"], "series": {"exact": [0.1, 0.4], "other": [None, 0.2]}},
}


def _pixels(png):
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


def test_every_kind_with_a_png_is_tested():
    assert set(DATA) | set(HTML_KINDS) == set(KINDS)


@pytest.mark.parametrize("kind", sorted(DATA))
def test_kind_is_drawn(kind):
    pixels = _pixels(render(Figure(kind, kind, kind, DATA[kind])))
    assert pixels.shape[0] > 300 and pixels.shape[1] > 300
    assert (pixels < 250).any(axis=2).mean() > 0.005  # something is drawn on the white


def test_data_shows_in_the_picture_and_drawing_repeats():
    low, high = ({"groups": ["a"], "series": {"x": [value]}, "ylim": [0, 1]} for value in (0.1, 0.9))
    first, second = (_pixels(render(Figure("bars", "bars", "t", data))) for data in (low, high))
    blue = np.array([0x00, 0x72, 0xB2])
    share = [(np.abs(pixels.astype(int) - blue).max(axis=2) < 4).mean() for pixels in (first, second)]
    assert share[1] > 5 * share[0]
    assert render(Figure("bars", "bars", "t", low)) == render(Figure("bars", "bars", "t", low))


def test_unknown_kinds_and_html_kinds_are_refused():
    with pytest.raises(ValueError, match=r"'konfusion'.*Did you mean 'confusion'"):
        render(Figure("x", "konfusion", "t", {}))
    with pytest.raises(ValueError, match="'table' cannot be drawn as PNG: it is HTML"):
        render(Figure("x", "table", "t", {}))

"""Figures become PNGs that show the data they were given."""

import io

import numpy as np
import pytest
from PIL import Image

from hfvla.evaluation.plots import HTML_KINDS, KINDS, draw, render
from hfvla.family import Figure

BINS = {"low": [0.4, 0.8], "high": [0.6, 1.0], "confidence": [0.5, 0.9], "accuracy": [0.7, 0.6], "count": [3, 9]}
DATA = {
    "confusion": {"matrix": [[3, 1], [0, 0]], "rows": ["a", "b"], "columns": ["a", "b"]},
    "reliability": {"bins": BINS, "ece": 0.1, "mce": 0.3},
    "radar": {"axes": ["a", "b", "c"], "series": {"F1": [0.2, 0.9, 0.5]}},
    "bars": {"groups": ["a", "b"], "series": {"x": [0.1, None]}, "errors": {"x": [[0.0, 0.3], None]}, "ylim": [0, 1]},
    "curves": {"panels": [{"title": "loss", "series": {"train": {"x": [0, 1], "y": [2.0, 1.0]}}}] * 5},
    "heatmap": {"matrix": [[0.9, 0.1], [0.2, 0.8]], "rows": ["a", "b"], "columns": ["a", "b"], "label": "cosine"},
    "scatter": {
        "series": {"pictures": {"x": [0.0, 1.0], "y": [0.0, 1.0]}, "texts": {"x": [0.2], "y": [0.1]}},
        "pairs": [[[0.0, 0.0], [0.2, 0.1]]],
    },
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


HOSTILE = "$5 or $\\frac{$ a\x00b \ud800 _^{}~#%& \\alpha"


@pytest.mark.parametrize("kind", sorted(DATA))
def test_texts_are_drawn_literally(kind):
    def named(value):
        if isinstance(value, dict):
            return {key if key in KEYS else key + HOSTILE: named(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [named(entry) for entry in value[:2]]
        return value + HOSTILE if isinstance(value, str) else value

    assert _pixels(render(Figure(kind, kind, kind, named(DATA[kind])))).size


KEYS = {"matrix", "rows", "columns", "bins", "low", "high", "confidence", "accuracy", "count", "ece", "mce", "axes",
        "series", "groups", "errors", "ylim", "panels", "title", "x", "y", "stages", "a", "one", "train", "exact",
        "other", "F1"}  # fmt: skip


def test_a_dollar_is_no_formula():
    def bars(name):
        return _pixels(render(Figure("bars", "bars", "t", {"groups": [name], "series": {"x": [0.5]}})))

    assert (bars("$a$") < 128).sum() > (bars("a") < 128).sum()  # two more letters than in italics without them


@pytest.mark.parametrize("labels", [21, 80, 300])
def test_a_matrix_of_many_labels_has_a_bounded_picture(labels):
    names = [f"Robot {number} of the fleet" for number in range(labels)]
    data = {"matrix": np.eye(labels, dtype=int).tolist(), "rows": names, "columns": names}
    pixels = _pixels(render(Figure("confusion", "confusion", "t", data)))
    assert pixels.shape[0] * pixels.shape[1] < 4_000_000


def test_a_plot_that_cannot_be_drawn_is_said_and_left_out(caplog):
    assert draw(Figure("bad", "bars", "t", {"groups": ["a"], "series": {"x": [1, 2, 3]}})) is None
    assert "the plot 'bad' cannot be drawn: ValueError" in caplog.text

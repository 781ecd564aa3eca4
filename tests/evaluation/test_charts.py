"""Figures as SVG: they show the data they were given, stand alone, and escape what they are given."""

import json
import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from hfvla.evaluation.charts.canvas import shown, ticks
from hfvla.evaluation.charts.draw import SVG_KINDS, draw_svg
from hfvla.evaluation.plots import HTML_KINDS, KINDS
from hfvla.family import Figure

from .test_plots import DATA

SVG = "{http://www.w3.org/2000/svg}"


def draw(kind, data):
    text = draw_svg(Figure("name", kind, "A <title>", data))
    assert text is not None
    return ElementTree.fromstring(text)


def tips(tree):
    return [element.get("data-tip") for element in tree.iter() if element.get("data-tip")]


def hovered(tree):
    return [point for group in tree.iter(f"{SVG}g") for point in json.loads(group.get("data-points", "[]"))]


def test_every_kind_with_a_picture_has_an_svg():
    assert set(SVG_KINDS) == set(KINDS) - set(HTML_KINDS)


@pytest.mark.parametrize("kind", sorted(DATA))
def test_kind_is_drawn_alone(kind):
    tree = draw(kind, DATA[kind])
    _, _, width, height = map(float, tree.get("viewBox").split())
    assert tree.get("aria-label") == "A <title>" and width > 300 and height > 150
    marks = [one for name in ("rect", "circle", "path") for one in tree.iter(f"{SVG}{name}")]
    assert marks
    for text in tree.iter(f"{SVG}text"):
        assert -5 <= float(text.get("x")) <= width + 5 and -5 <= float(text.get("y")) <= height + 5


def test_bars_are_as_high_as_their_values_and_say_them():
    tree = draw("bars", {"groups": ["a", "b"], "series": {"x": [0.25, 0.5]}, "errors": {"x": [[0.2, 0.3], None]},
                         "ylim": [0, 1]})  # fmt: skip
    boxes = [box for box in tree.iter(f"{SVG}rect") if box.get("data-tip")]
    heights = [float(box.get("height")) for box in boxes]
    assert heights[1] == pytest.approx(2 * heights[0], rel=0.01)
    assert tips(tree) == ["x, a: 0.25 (0.2 to 0.3)", "x, b: 0.5"]


def test_a_matrix_says_counts_and_shares():
    found = tips(draw("confusion", {"matrix": [[3, 1], [0, 0]], "rows": ["a", "b"], "columns": ["a", "b"]}))
    assert found[:2] == ["a → a: 3 (75% of 4)", "a → b: 1 (25% of 4)"] and len(found) == 4


def test_lines_say_their_numbers_and_leave_gaps():
    series = {
        "train": {"x": [0, 1, 2, 3], "y": [2.0, float("nan"), 1.0, None]},
        "eval": {"x": [0, 3], "y": [1.5, 1.25]},
    }
    tree = draw("curves", {"panels": [{"title": "loss", "xlabel": "step", "series": series}]})
    assert [text for _, _, text in hovered(tree)] == [
        "train: 2 at step 0", "train: 1 at step 2", "eval: 1.5 at step 0", "eval: 1.25 at step 3"
    ]  # fmt: skip
    lines = [path.get("d") for path in tree.iter(f"{SVG}path")]
    assert lines[0].count("M") == 2  # the gap
    empty = draw("curves", {"panels": [{"title": "x", "series": {"a": {"x": [1], "y": [float("inf")]}}}]})
    assert "no finite value" in "".join(empty.itertext())


def test_many_points_are_drawn_and_some_can_be_pointed_at():
    x = list(range(5000))
    tree = draw("curves", {"panels": [{"title": "t", "series": {"a": {"x": x, "y": np.sin(x)}}}]})
    (line,) = tree.iter(f"{SVG}path")
    assert line.get("d").count("L") == 4999 and 100 < len(hovered(tree)) <= 200


def test_26_panels_stand_apart_in_their_order():
    panels = [{"title": f"joint {n}", "series": {"a": {"x": [0, 1], "y": [n, n + 1]}}} for n in range(26)]
    tree = draw("curves", {"panels": panels})
    titles = [
        (float(t.get("x")), float(t.get("y")), t.text) for t in tree.iter(f"{SVG}text") if "joint" in (t.text or "")
    ]
    assert [text for _, _, text in titles] == [f"joint {n}" for n in range(26)]
    assert len({(x, y) for x, y, _ in titles}) == 26


HOSTILE = "</text><script>alert(1)</script> & \" ' \x00 \ud800 $x$"


@pytest.mark.parametrize("kind", sorted(DATA))
def test_texts_are_escaped(kind):
    keys = re.findall(r'"(\w+)":', json.dumps(DATA[kind]))

    def named(value):
        if isinstance(value, dict):
            return {key if key in keys else key + HOSTILE: named(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [named(entry) for entry in value]
        return value + HOSTILE if isinstance(value, str) else value

    text = draw_svg(Figure("x", kind, HOSTILE, named(DATA[kind])))
    assert "<script" not in text
    ElementTree.fromstring(text)


def test_what_cannot_be_drawn_is_said(caplog):
    assert draw_svg(Figure("bad", "bars", "t", {"groups": ["a"], "series": {"x": [1, 2, 3]}})) is None
    assert "the plot 'bad' cannot be drawn: ValueError: 3 values of 'x' for 1 groups" in caplog.text


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [(0, 1, [0, 0.25, 0.5, 0.75, 1]), (3, 17, [0, 5, 10, 15, 20]), (2, 2, [1, 1.5, 2, 2.5, 3])],
)
def test_ticks_are_round_and_hold_the_values(low, high, expected):
    assert ticks(low, high) == expected


def test_numbers():
    assert [shown(value) for value in (1234.0, 0.12345, None, float("nan"), 3)] == ["1,234", "0.1235", "–", "–", "3"]

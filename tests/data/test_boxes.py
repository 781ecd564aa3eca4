"""Boxes and the relations between them: by hand, against a naive loop, and every box that is none."""

import numpy as np
import pytest

from hfvla.data.boxes import (
    HORIZONTAL,
    VERTICAL,
    box_from_points,
    box_problem,
    clip_box,
    relation_labels,
    relation_words,
)

CENTRE = (0.5, 0.5, 0.4, 0.2)


@pytest.mark.parametrize(
    ("other", "words"),
    [
        # 0.5 wA = 0.2 and 0.5 hA = 0.1; dx = xA - xB.
        ((0.2, 0.2, 0.1, 0.1), ("left", "upper")),  # dx = 0.3, dy = 0.3
        ((0.8, 0.55, 0.1, 0.1), ("right", "middle")),  # dx = -0.3, |dy| = 0.05
        ((0.65, 0.9, 0.1, 0.1), ("centre", "lower")),  # |dx| = 0.15, dy = -0.4
        ((0.5, 0.5, 0.9, 0.9), ("centre", "middle")),
    ],
)
def test_place_of_the_second_as_seen_from_the_first(other, words):
    assert relation_words(CENTRE, other) == words


def test_a_pair_is_judged_by_the_size_of_its_first_box():
    small = (0.35, 0.5, 0.1, 0.1)
    assert relation_words(CENTRE, small) == ("centre", "middle")  # |0.15| < 0.2
    assert relation_words(small, CENTRE) == ("right", "middle")  # |-0.15| > 0.05


def test_exactly_half_a_width_is_beside():
    assert relation_words((0.5, 0.5, 0.5, 0.5), (0.25, 0.75, 0.1, 0.1)) == ("left", "lower")


def test_all_pairs_equal_a_naive_loop():
    boxes = np.random.default_rng(0).uniform(0.05, 0.95, (40, 4))
    labels = relation_labels(boxes)
    for a, first in enumerate(boxes):
        for b, second in enumerate(boxes):
            for axis, names in ((0, HORIZONTAL), (1, VERTICAL)):
                difference = first[axis] - second[axis]
                expected = 1 if abs(difference) < 0.5 * first[2 + axis] else (0 if difference > 0 else 2)
                assert labels[a, b, axis] == expected, (names, first, second)


def test_labels_are_those_of_the_loss():
    torch = pytest.importorskip("torch")
    from hfvla.losses.spatial import spatial_labels

    boxes = np.random.default_rng(1).uniform(0.05, 0.95, (20, 3, 4))
    theirs = spatial_labels(torch.tensor(boxes), torch.ones(20, 3, dtype=torch.bool)).numpy()
    ours = np.stack([relation_labels(one) for one in boxes])
    off_diagonal = ~np.eye(3, dtype=bool)
    assert (theirs[:, off_diagonal] == ours[:, off_diagonal]).all()


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ([0.5, 0.5, 1.0, 1.0], ""),
        ([0.739, 0.832, 0.522, 0.335], ""),  # right edge 1.0000, lower edge 0.9995
        ([0.9, 0.5, 0.205, 0.1], ""),  # right edge 1.0025: rounding
        ([0.9, 0.5, 0.3, 0.1], "outside 0..1"),
        ([0.5, -0.2, 0.3, 0.1], "outside 0..1"),
        ([320, 240, 64, 64], "outside 0..1"),
        ([0.5, 0.5, 0.0, 0.1], "no area"),
        ([0.5, 0.5, 0.1, -0.1], "no area"),
        ([0.5, 0.5, 0.1, float("nan")], "not finite"),
        ([0.5, 0.5, 0.1, 10**400], "not finite"),
        ([0.5, 0.5, 0.1], "not four numbers"),
        ([0.5, 0.5, 0.1, None], "not four numbers"),
        ([0.5, 0.5, 0.1, True], "not four numbers"),
        ("0.50", "not four numbers"),
        (0.5, "not four numbers"),
    ],
)
def test_what_is_no_box(value, problem):
    assert box_problem(value) == problem


def test_clipping_and_boxes_around_points():
    assert clip_box((0.9, 0.5, 0.4, 0.2)) == pytest.approx((0.85, 0.5, 0.3, 0.2))  # x from 0.7 to 1.1
    assert clip_box((1.5, 0.5, 0.2, 0.2))[2] == 0.0
    assert clip_box((0.3, 0.4, 0.2, 0.1)) == pytest.approx((0.3, 0.4, 0.2, 0.1))
    assert box_from_points(np.array([[0.1, 0.9], [0.3, 0.5]])) == pytest.approx((0.2, 0.7, 0.2, 0.4))

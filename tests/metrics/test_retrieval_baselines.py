"""Baselines without a network find what colours and words tell, and nothing else."""

import numpy as np
import pytest
from PIL import Image

from hfvla.metrics.retrieval_baselines import (
    fit_colour_layout,
    fit_sentence_boxes,
    fit_sentence_relations,
    picture_features,
)

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (30, 40, 220), "white": (240, 240, 240)}


def places(count, seed):
    """Two halves of one colour each, named in the caption: pictures' features, captions, groups."""
    generator = np.random.default_rng(seed)
    features, captions = [], []
    for _ in range(count):
        left, right = generator.choice(list(COLOURS), 2)
        picture = Image.new("RGB", (30, 30), COLOURS[left])
        picture.paste(COLOURS[right], (15, 0, 30, 30))
        features.append(picture_features(picture))
        captions.append([f"left-{left} and right-{right}"])
    return np.stack(features), captions, [str(number) for number in range(count)]


def test_colours_and_places_are_found():
    fitted = fit_colour_layout(*places(120, seed=0))
    features, captions, _ = places(30, seed=1)
    texts = [each[0] for each in captions]
    scores = fitted.texts(texts) @ fitted.images(features).T
    same = np.array([[one == other for other in texts] for one in texts])
    best = np.where(same, scores, -np.inf).max(1)
    assert (best >= np.where(same, -np.inf, scores).max(1)).mean() > 0.9
    with pytest.raises(ValueError, match="2 different training groups; got 1"):
        fit_colour_layout(features, captions, ["one"] * 30)


def test_a_sentence_tells_its_box_and_relation():
    words = {"left": (0.2, 0.5, 0.2, 0.2), "right": (0.8, 0.5, 0.2, 0.2)}
    sentences = [f"A pool on the {word}." for word in words for _ in range(6)]
    boxes = np.array([words[word] for word in words for _ in range(6)])
    found = fit_sentence_boxes(sentences, boxes)(["A pool on the right.", "Nothing known"])
    assert found[0] == pytest.approx(words["right"], abs=0.1) and (found[:, 2:] > 0).all()
    pairs = [(one, other) for one in sentences for other in sentences if one != other]
    labels = np.array([[2 if "right" in other else 0, 1] for _, other in pairs])
    told = fit_sentence_relations(pairs, labels)([("A pool on the left.", "A pool on the right.")])
    assert told.tolist() == [[2, 1]], "the vertical relation never changed"

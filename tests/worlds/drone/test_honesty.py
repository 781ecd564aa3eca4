"""What the generated scenes give away: nothing by names, little by words alone, all by looking."""

import itertools
import re
from functools import cache

import numpy as np
import pytest
from PIL import Image
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression, Ridge

from hfvla.data.boxes import relation_labels
from hfvla.worlds.drone import DroneOptions, draw_buildings
from hfvla.worlds.drone.builder import draw_images
from hfvla.worlds.drone.picture import draw_picture

SIDE = 12
TRAIN, TEST = 450, 200


@cache
def data(split, buildings):
    """Small pictures [N, F], captions, and the building's index of each, one drone view a building."""
    images = draw_images(DroneOptions(buildings=buildings, split=split, views=1, captions=2), 0)
    pixels = [draw_picture(image.building, image.view, 48) for image in images]
    small = [np.asarray(Image.fromarray(one).resize((SIDE, SIDE), Image.Resampling.BOX)).ravel() for one in pixels]
    captions = [[wording.caption for wording in image.wordings] for image in images]
    return np.stack(small).astype(np.float64) / 255, captions


@cache
def baseline_scores():
    """Cosine between a caption's words and those that a ridge regression sees in the picture: [texts, images]."""
    (train_pictures, train_captions), (pictures, captions) = data("train", TRAIN), data("test", TEST)
    words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"[\w-]+", binary=True, min_df=8)
    first = words.fit_transform(texts[0] for texts in train_captions).toarray()
    train_words = np.maximum(first, words.transform(texts[1] for texts in train_captions).toarray())
    mean = train_words.mean(axis=0)
    seen = Ridge(alpha=5.0).fit(train_pictures, train_words).predict(pictures) - mean
    told = words.transform(texts[0] for texts in captions).toarray() - mean
    seen, told = (part / np.linalg.norm(part, axis=1, keepdims=True) for part in (seen, told))
    return told @ seen.T


def recall_at_10(scores):
    own = np.diagonal(scores)[:, None]
    return float(((scores > own).sum(axis=1) < 10).mean())


def test_a_classical_baseline_finds_held_out_buildings():
    assert recall_at_10(baseline_scores()) > 4 * 10 / TEST


def test_without_its_own_picture_a_caption_finds_nothing():
    shifted = np.roll(baseline_scores(), 1, axis=1)
    assert recall_at_10(shifted) < 2 * 10 / TEST


@pytest.mark.parametrize("name", ["roof", "shape", "ground", "road"])
def test_a_buildings_number_says_nothing_about_it(name):
    buildings = draw_buildings(2000, "train", 0)
    values = [getattr(building, name) for building in buildings]
    chance = 1 / len(set(values))
    same = np.mean([one == other for one, other in zip(values, values[1:], strict=False)])
    assert same == pytest.approx(chance, abs=0.05)
    digits = np.array([[int(digit) for digit in building.name] for building in buildings])
    onehot = np.concatenate([np.eye(10)[digits[:, place]] for place in range(4)], axis=1)
    model = LogisticRegression(max_iter=200).fit(onehot[::2], values[::2])
    assert model.score(onehot[1::2], values[1::2]) < chance + 0.06


def overlap(one, other):
    """Intersection over union of cxcywh boxes: [N, 4] and [N, 4] to [N]."""
    low = np.maximum(one[:, :2] - one[:, 2:] / 2, other[:, :2] - other[:, 2:] / 2)
    high = np.minimum(one[:, :2] + one[:, 2:] / 2, other[:, :2] + other[:, 2:] / 2)
    common = np.clip(high - low, 0, None).prod(axis=1)
    return common / (one[:, 2:].prod(axis=1) + other[:, 2:].prod(axis=1) - common)


def test_a_sentence_without_place_does_not_tell_its_box():
    def boxed(split):
        images = draw_images(DroneOptions(buildings=120, split=split), 0)
        return [slot for image in images for wording in image.wordings for slot in wording.slots if slot[1]]

    train, test = boxed("train"), boxed("test")
    words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"[\w-]+")
    model = Ridge(alpha=1.0).fit(words.fit_transform(text for text, _ in train), [box for _, box in train])
    predicted = model.predict(words.transform(text for text, _ in test))
    scores = overlap(predicted, np.array([box for _, box in test]))
    placed = np.array([bool(re.search(r"upper|lower|middle", text)) for text, _ in test])
    objects = np.array(["building" not in text for text, _ in test])
    assert scores[objects & ~placed].mean() < 0.2, "without a place one must look"
    assert scores[objects & placed].mean() > 0.3
    assert scores.mean() < 0.5
    assert 0.3 < (objects & ~placed).mean() < 0.55


def test_sentences_alone_do_not_tell_relations():
    def pairs(split):
        texts, labels = [], []
        for image in draw_images(DroneOptions(buildings=80, split=split, captions=1), 0):
            for wording in image.wordings:
                slots = [(sentence, box) for sentence, box in wording.slots if box]
                relations = relation_labels([box for _, box in slots])
                for a, b in itertools.permutations(range(len(slots)), 2):
                    words = [f"{side}:{word}" for side, i in (("a", a), ("b", b)) for word in slots[i][0].split()]
                    texts.append(" ".join(words))
                    labels.append(relations[a, b, 0])
        return texts, np.array(labels)

    (train, train_labels), (test, labels) = pairs("train"), pairs("test")
    words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", min_df=3)
    model = LogisticRegression(C=0.5, max_iter=60, tol=1e-3).fit(words.fit_transform(train), train_labels)
    assert np.bincount(labels).max() / len(labels) < 0.45, "no relation is a safe guess"
    assert model.score(words.transform(test), labels) < 0.68

"""Text baselines: they learn what words say, and only that."""

import numpy as np
import pytest

from hfvla.metrics.baselines import BASELINES, fit_encoder_logreg, fit_majority, fit_tfidf_logreg
from hfvla.metrics.selection import predicted_sets

PLACES = {"harbour": [0], "warehouse": [1], "mountain": [2], "flooded mine": [0, 2]}


def _tasks(n):
    places = list(PLACES)
    tasks = [f"Inspect site number {i} at the {places[i % 4]} before winter {i * 7}" for i in range(n)]
    gold = np.zeros((n, 4), dtype=bool)  # the fourth robot never occurs
    for i in range(n):
        gold[i, PLACES[places[i % 4]]] = True
    return tasks, gold


def test_majority_is_the_share_of_each_robot():
    _, gold = _tasks(40)
    probabilities = fit_majority([], gold).probabilities(["anything", "else"])
    # robot 0 in 2 of 4 places, 1 in 1 of 4, 2 in 2 of 4, 3 never (clipped)
    assert probabilities[0] == pytest.approx([0.5, 0.25, 0.5, 1e-4])
    assert (probabilities[0] == probabilities[1]).all()


def test_tfidf_learns_sets_from_words_of_unseen_tasks():
    tasks, gold = _tasks(48)
    baseline = fit_tfidf_logreg(tasks[:32], gold[:32])
    probabilities = baseline.probabilities(tasks[32:])
    assert probabilities.shape == (16, 4)
    assert (predicted_sets(probabilities, baseline.threshold) == gold[32:]).all()
    assert probabilities[:, 3].max() < 0.01


def test_tfidf_is_deterministic():
    tasks, gold = _tasks(24)
    first, second = (fit_tfidf_logreg(tasks, gold, seed=5).probabilities(tasks[:3]) for _ in range(2))
    assert (first == second).all()


def test_tuning_keeps_groups_together():
    # labels are noise, each task occurs four times: without grouping the held-out copies would be known by heart,
    # and the chosen temperature would trust the memory
    generator = np.random.default_rng(0)
    tasks = [f"task {word} {word * 2}" for word in "abcdefghijkl"] * 4
    gold = np.zeros((12, 3), dtype=bool)
    gold[np.arange(12), generator.integers(3, size=12)] = True
    gold = np.tile(gold, (4, 1))
    grouped = fit_tfidf_logreg(tasks, gold, groups=tasks)
    leaking = fit_tfidf_logreg(tasks, gold, groups=[str(i) for i in range(48)])
    assert grouped.probabilities(tasks).max(axis=1).mean() < leaking.probabilities(tasks).max(axis=1).mean() - 0.1


def test_one_task_is_refused_and_the_names_are_public():
    with pytest.raises(ValueError, match="got 1"):
        fit_tfidf_logreg(["same", "same"], np.ones((2, 2), bool))
    assert list(BASELINES) == ["majority", "tfidf_logreg"]


def test_an_encoder_tells_what_its_vectors_tell_and_reads_each_text_once():
    tasks, gold = _tasks(48)
    read = []

    def encode(texts):
        read.extend(texts)
        return np.array([[place in text for place in PLACES] for text in texts], dtype=float)

    baseline = fit_encoder_logreg(tasks[:32], gold[:32], encode=encode)
    probabilities = baseline.probabilities(tasks[32:])
    assert (predicted_sets(probabilities, baseline.threshold) == gold[32:]).all()
    assert sorted(read) == sorted(tasks)
    blind = fit_encoder_logreg(tasks[:32], gold[:32], encode=lambda texts: np.ones((len(texts), 2)))
    assert np.ptp(blind.probabilities(tasks[32:]), axis=0).max() < 1e-9
    with pytest.raises(ValueError, match="got 1"):
        fit_encoder_logreg(["a", "a"], gold[:2], encode=encode)

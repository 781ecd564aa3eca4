"""Robot selection on the real records: what a pretrained sentence encoder reaches on the folds of `make crossval`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from hfvla.data.rows.splits import grouped_folds
from hfvla.data.samples.robots import ROBOTS, normalise_task
from hfvla.data.sources.robot_selection import RobotSelectionOptions, build_robot_selection
from hfvla.metrics.baselines import TextBaseline, fit_encoder_logreg, fit_majority, fit_tfidf_logreg
from hfvla.metrics.selection import predicted_sets, selection_scores, set_matrix
from hfvla.worlds.fleet import FleetOptions, generate_task

METRICS = ("top1_in_set", "exact_match", "jaccard", "macro_f1")
FOLDS, FOLD_SEED = 5, 0  # of `make crossval`

Fit = Callable[[list[str], np.ndarray, list[str]], TextBaseline]


def records(file: Path) -> tuple[list[str], np.ndarray, list[str]]:
    """Return the tasks, gold sets [N, R] and groups of a single-robot file, as the reader takes them."""
    rows = build_robot_selection(RobotSelectionOptions(path=str(file))).dataset
    tasks = list(rows["task"])
    return tasks, set_matrix(list(rows["robots"]), ROBOTS), [normalise_task(task) for task in tasks]


def generated(size: int, seed: int) -> tuple[list[str], np.ndarray, list[str]]:
    """Return the same of generated tasks."""
    options = FleetOptions(size=size, images=False)
    tasks = [generate_task(index, options, seed) for index in range(size)]
    return (
        [task.task for task in tasks],
        set_matrix([task.robots for task in tasks], ROBOTS),
        [task.group for task in tasks],
    )


def crossval(
    file: Path, encode: Callable[[Sequence[str]], np.ndarray], size: int, seed: int, folds: int = FOLDS
) -> dict[str, list[dict]]:
    """Return the scores of each fold by system.

    Args:
        file: single-robot file.
        encode: maps texts to vectors.
        size: generated tasks that some systems learn from, too.
        seed: of the generated tasks, and of the systems.
        folds: how many.
    """
    tasks, gold, groups = records(file)
    more = generated(size, seed)
    fits: dict[str, tuple[bool, Fit]] = {
        "sentence encoder + logistic regression, generated + real": (
            True, lambda *rows: fit_encoder_logreg(*rows, seed=seed, encode=encode),
        ),
        "sentence encoder + logistic regression, real": (
            False, lambda *rows: fit_encoder_logreg(*rows, seed=seed, encode=encode),
        ),
        "TF-IDF + logistic regression, real": (False, lambda *rows: fit_tfidf_logreg(*rows, seed=seed)),
        "majority": (False, lambda *rows: fit_majority(*rows)),
    }  # fmt: skip
    found: dict[str, list[dict]] = {name: [] for name in fits}
    for test in grouped_folds(groups, folds, FOLD_SEED):
        train = np.setdiff1d(np.arange(len(tasks)), test)
        own = [tasks[row] for row in train], gold[train], [groups[row] for row in train]
        both = own[0] + more[0], np.concatenate([own[1], more[1]]), own[2] + more[2]
        for name, (with_generated, fit) in fits.items():
            fitted = fit(*(both if with_generated else own))
            probabilities = fitted.probabilities([tasks[row] for row in test])
            chosen = predicted_sets(probabilities, fitted.threshold)
            found[name].append(selection_scores(gold[test], chosen, probabilities))
    return found


def main_file(folder: Path) -> Path:
    """Return the single-robot file of a folder.

    Raises:
        FileNotFoundError: it has none.
    """
    file = folder / "single_robot_selection.json"
    if not file.is_file():
        raise FileNotFoundError(f"no {file.name} in {folder}")
    return file

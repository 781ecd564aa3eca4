"""Next actions of a real robot: what a ridge and the nearest training step say on the frozen tower's features."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import bridge
import numpy as np
import torch

from hfvla.metrics.actions import action_scores, hold_last, mean_action

ERROR, SCORES = (
    "error by mean action's",
    ("error by mean action's", "first action", "gripper", "motion", "correlation"),
)
_STRENGTHS = (1.0, 1e1, 1e2, 1e3, 1e4, 1e5)
_FOLDS = 5
_HOLD, _MEAN = "hold the last action", "mean action"


@torch.inference_mode()
def tower_features(tower: Path, rows: Sequence[Mapping[str, Any]], side: int) -> np.ndarray:
    """Return the last map of a timm network of every row's picture, flat: [N, C x cells]."""
    import timm
    from PIL import Image
    from timm.data import resolve_model_data_config

    from hfvla.data.samples.actions import FrameRef
    from hfvla.data.signals.frame_loader import FrameLoader

    refs = [FrameRef(**{k: v for k, v in row["views"][0].items() if k != "name"}) for row in rows]
    pictures = [np.asarray(Image.fromarray(one).resize((side, side))) for one in FrameLoader().load(refs)]
    network = timm.create_model(f"local-dir:{tower}", pretrained=True, num_classes=0, global_pool="").eval()
    known = resolve_model_data_config(network)
    mean, deviation = (torch.tensor(known[name]).view(3, 1, 1) for name in ("mean", "std"))
    pixels = (torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255 - mean) / deviation
    return torch.cat([network(part) for part in pixels.split(32)]).flatten(1).numpy()


class Steps:
    """Rows as arrays.

    Attributes:
        actions: [N, H, A] of the robot.
        mask: [N, H] bool; True = within the episode.
        before: [N, A] the action before each, NaN at an episode's start.
        known: [N, F] state and which instruction it is.
        groups: [N] episode.
    """

    def __init__(self, rows: Sequence[Mapping[str, Any]]) -> None:
        self.actions = np.array([row["actions"] for row in rows], dtype=np.float64)
        self.mask = np.array([row["action_mask"] for row in rows], dtype=bool)
        width = self.actions.shape[2]
        self.before = np.array([list(row["previous_action"]) or [np.nan] * width for row in rows], dtype=np.float64)
        tasks = sorted({row["task"] for row in rows})
        told = np.array([[row["task"] == task for task in tasks] for row in rows], dtype=np.float64)
        self.known = np.concatenate([np.array([row["state"] for row in rows], dtype=np.float64), told], axis=1)
        self.groups = np.array([bridge.episode_of(row) for row in rows])


def _beside(known: np.ndarray, features: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Return both, centred and scaled by the training rows: a map by one number, so that it varies as much as states.

    A cell of a map that hardly ever answers is no better known for that, so cells keep their scale.
    """
    deviation = known[train].std(0)
    state = (known - known[train].mean(0)) / np.where(deviation > 1e-8, deviation, np.inf)
    centred = features - features[train].mean(0)
    return np.concatenate([state, centred * np.sqrt(state[train].var(0).sum() / centred[train].var(0).sum())], axis=1)


def _ridge(gram: np.ndarray, steps: Steps, train: np.ndarray, test: np.ndarray, strength: float) -> np.ndarray:
    """Return chunks [T, H, A] of test rows: a ridge for each step of the horizon, from the rows that have it.

    Args:
        gram: [N, N] products of all rows' features.
        steps: the rows.
        train: which of them are fitted.
        test: which are predicted.
        strength: of the ridge.
    """
    found = np.zeros((len(test), *steps.actions.shape[1:]))
    for step in range(found.shape[1]):
        own = train[steps.mask[train, step]]
        target, common = steps.actions[own, step], gram[np.ix_(own, own)].mean(0)
        seen, asked = gram[np.ix_(own, own)], gram[np.ix_(test, own)]
        kernel = seen - common[:, None] - common + common.mean()
        weights = np.linalg.solve(kernel + strength * np.eye(len(own)), target - target.mean(0))
        found[:, step] = (asked - asked.mean(1)[:, None] - common + common.mean()) @ weights + target.mean(0)
    return found


def ridge(features: np.ndarray, steps: Steps, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return chunks [T, H, A] of test rows; the strength is chosen by folds of the training episodes."""
    episodes, gram = np.unique(steps.groups[train]), features @ features.T
    scale = steps.actions[train].reshape(-1, steps.actions.shape[2]).std(0)
    errors = dict.fromkeys(_STRENGTHS, 0.0)
    for fold in range(_FOLDS):
        held = np.isin(steps.groups[train], episodes[fold::_FOLDS])
        inner, outer = train[~held], train[held]
        for strength in _STRENGTHS:
            wrong = (_ridge(gram, steps, inner, outer, strength) - steps.actions[outer]) / scale
            errors[strength] += float(np.square(wrong)[steps.mask[outer]].sum())
    return _ridge(gram, steps, train, test, min(errors, key=lambda strength: errors[strength]))


def nearest(features: np.ndarray, steps: Steps, train: np.ndarray, test: np.ndarray) -> np.ndarray:
    """Return the chunk [H, A] of the training row whose features are nearest, of rows with whole chunks."""
    whole = train[steps.mask[train].all(1)]
    distance = np.square(features[test][:, None] - features[whole][None]).sum(2)
    return steps.actions[whole[distance.argmin(1)]]


def baselines(
    rows: Sequence[Mapping[str, Any]], features: np.ndarray, split: Mapping[str, Sequence[int]]
) -> dict[str, dict[str, float]]:
    """Return the scores of what stands beside the model, on the test episodes of one split.

    Args:
        rows: of all episodes.
        features: of their pictures, `tower_features`.
        split: episodes of "train" and "test".
    """
    steps = Steps(rows)
    train, test = (np.flatnonzero(np.isin(steps.groups, split[part])) for part in ("train", "test"))
    both = _beside(steps.known, features, train)
    alone = both[:, : steps.known.shape[1]]
    average = steps.actions[train][steps.mask[train]].mean(0)
    horizon = steps.actions.shape[1]
    last = np.where(np.isnan(steps.before[test]), average, steps.before[test])
    chunks = {
        _MEAN: mean_action(average, len(test), horizon),
        _HOLD: hold_last(last, horizon),
        "nearest training step, tower and state": nearest(both, steps, train, test),
        "ridge on state and instruction": ridge(alone, steps, train, test),
        "ridge on the tower's map, state and instruction": ridge(both, steps, train, test),
    }
    scored = {
        name: action_scores(chunk, steps.actions[test], steps.mask[test], bridge.CHANNELS)
        for name, chunk in chunks.items()
    }
    return {name: relative(one, scored[_MEAN]) for name, one in scored.items()}


def relative(scores: Mapping[str, float], mean: Mapping[str, float]) -> dict[str, float]:
    """Return squared errors as shares of the mean action's, so that channels of all units count alike; see `SCORES`.

    Args:
        scores: of `action_scores`, by channel.
        mean: those of the mean action on the same rows.
    """
    share = {name: scores[f"mse/{name}"] / mean[f"mse/{name}"] for name in bridge.CHANNELS}
    first = [scores[f"first_mse/{name}"] / mean[f"first_mse/{name}"] for name in bridge.CHANNELS]
    return {
        ERROR: float(np.mean(list(share.values()))),
        "first action": float(np.mean(first)),
        "gripper": share["gripper"],
        "motion": float(np.mean([share[name] for name in bridge.MOTION])),
        "correlation": scores.get("correlation", float("nan")),
    }


def of_run(run: Path) -> dict[str, dict[str, float]]:
    """Return the scores of a run of the real recipe, as it was and with a part of its input taken away."""
    metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
    found = metrics["sets"]["held_out"] if "sets" in metrics else metrics
    mean = found["baselines"]["mean_action"]
    shown = {"": found} | {
        f", {name.replace('_', ' ')}": scores for name, scores in sorted(found.get("ablations", {}).items())
    }
    return {name: relative(scores, mean) for name, scores in shown.items()}

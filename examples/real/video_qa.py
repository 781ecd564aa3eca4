"""Questions on drives past traffic signs: what a ridge on the frozen tower's maps answers, told how to use them."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import signs
import torch
from sign_names import SIGNS

from hfvla.metrics.qa_baselines import Question, fit_question_only

_STRENGTHS = (1e2, 1e3, 1e4, 1e5)
_FOLDS = 4


@torch.inference_mode()
def tower_maps(tower: Path, pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Return the last map of a timm network for pictures [H, W, 3] uint8, flat: [N, C x cells]."""
    import timm
    from timm.data import resolve_model_data_config

    network = timm.create_model(f"local-dir:{tower}", pretrained=True, num_classes=0, global_pool="").eval()
    known = resolve_model_data_config(network)
    mean, deviation = (torch.tensor(known[name]).view(3, 1, 1) for name in ("mean", "std"))
    found = []
    for start in range(0, len(pictures), 32):
        pixels = torch.from_numpy(np.stack(pictures[start : start + 32])).permute(0, 3, 1, 2).float() / 255
        found.append(network((pixels - mean) / deviation).flatten(1).numpy())
    return np.concatenate(found)


def fit_ridge(features: np.ndarray, labels: np.ndarray) -> Any:
    """Return a ridge classifier of the signs; its strength is chosen by folds of the training tracks."""
    from sklearn.linear_model import RidgeClassifier
    from sklearn.model_selection import GridSearchCV

    search = GridSearchCV(RidgeClassifier(), {"alpha": list(_STRENGTHS)}, cv=_FOLDS)
    return search.fit(features, labels).best_estimator_


def ridge_scores(archive: Path, tower: Path) -> tuple[dict[tuple[int, int], np.ndarray], float]:
    """Return how much each test track looks like each sign, [43], by (sign, number); and how often it is right.

    Every track is seen at the frame that the middle of its second shows.
    """
    with zipfile.ZipFile(archive) as opened:
        parts = signs.split_tracks(signs.tracks_of(opened))
        frame = signs.TRACK_FRAMES // 2
        pictures = {
            part: [signs.picture(opened, track.files[frame]) for track in tracks] for part, tracks in parts.items()
        }
    labels = {part: np.array([track.sign for track in tracks]) for part, tracks in parts.items()}
    ridge = fit_ridge(tower_maps(tower, pictures["train"]), labels["train"])
    decided = ridge.decision_function(tower_maps(tower, pictures["test"]))
    scores = np.full((len(decided), len(SIGNS)), -np.inf)
    scores[:, ridge.classes_] = decided
    right = float((scores.argmax(1) == labels["test"]).mean())
    return {(track.sign, track.number): row for track, row in zip(parts["test"], scores, strict=True)}, right


def ridge_answer(record: Mapping[str, Any], scores: Mapping[tuple[int, int], np.ndarray]) -> int:
    """Return the choice that the scores of a drive's four tracks speak for: the rule of each kind is given."""
    seen = np.stack([scores[key] for key in zip(record["signs"], record["tracks"], strict=True)])  # [4, 43]
    texts, names = choices_of(record), {name: sign for sign, both in enumerate(SIGNS) for name in both}
    kind, place = record["kind"], record["place"]
    if kind == "when":
        second = int(seen[:, record["signs"][place]].argmax()) + 1
        return next(number for number, text in enumerate(texts) if text.endswith(f" {second}"))
    asked = [names[text] for text in texts]
    return int(seen[:, asked].max(0).argmax() if kind == "which" else seen[place, asked].argmax())


def choices_of(record: Mapping[str, Any]) -> list[str]:
    """Return the texts of a record's choices without their letters."""
    return [choice.partition(". ")[2] for choice in record["choices"]]


def load(file: Path) -> list[dict[str, Any]]:
    """Return the records of a question file."""
    return json.loads(file.read_text(encoding="utf-8"))["data"]


def by_kind(records: Sequence[Mapping[str, Any]], answers: Sequence[int]) -> dict[str, float]:
    """Return the accuracy of all questions, and of each kind."""
    gold = np.array([record["choices"].index(record["answer"]) for record in records])
    right = np.asarray(answers) == gold
    kinds = np.array([record["kind"] for record in records])
    return {"all": float(right.mean()), **{kind: float(right[kinds == kind].mean()) for kind in signs.KINDS}}


def of_runs(runs: Sequence[Path]) -> dict[str, dict[str, list[float]]]:
    """Return accuracies by kind of each run, by what the model was shown: all frames, one, or none; and its bias.

    Args:
        runs: output folders of the real recipe.
    """
    found: dict[str, dict[str, list[float]]] = {"": {}, ", middle frame only": {}, ", no frame": {}}
    for run in runs:
        metrics = json.loads((run / "metrics.json").read_text(encoding="utf-8"))
        shown = (metrics, metrics["baselines"]["single_frame"], metrics["ablations"]["no_frames"])
        for kept, scores in zip(found.values(), shown, strict=True):
            for kind in ("all", *signs.KINDS):
                value = scores.get("accuracy" if kind == "all" else f"accuracy_by_kind/{kind}")
                if value is not None:
                    kept.setdefault(kind, []).append(value)
        bias = found.setdefault(", position bias (points) under all cyclic orders", {})
        bias.setdefault("all", []).append(metrics["position_bias"] / 100)
    return found


def baselines(archive: Path, tower: Path, folder: Path) -> dict[str, dict[str, float]]:
    """Return accuracies of what stands beside the model: a ridge, and the question's words alone.

    Args:
        archive: zip of the tracks.
        tower: folder of the pretrained network.
        folder: that `signs.build_signs` made.
    """
    train, test = load(folder / "train.json"), load(folder / "test.json")
    scores, right = ridge_scores(archive, tower)
    questions = [[Question(one["question"], tuple(choices_of(one))) for one in records] for records in (train, test)]
    gold = [one["choices"].index(one["answer"]) for one in train]
    asked = fit_question_only(questions[0], gold, [one["video_path"] for one in train])(questions[1])
    return {
        f"ridge on the tower's maps, told each kind's rule (names {100 * right:.1f} % of signs)": by_kind(
            test, [ridge_answer(record, scores) for record in test]
        ),
        "question alone": by_kind(test, asked),
        "chance": dict.fromkeys(("all", *signs.KINDS), 0.25),
    }

"""Paired bootstrap intervals of an evaluation: videos are resampled, with all their questions."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hfvla.family import EvaluationContext
from hfvla.metrics.bootstrap import bootstrap_intervals
from hfvla.metrics.functions.qa import position_bias
from hfvla.models.internvl_video_qa.scoring_internvl_video_qa import Answers, Gold, Permuted

__all__ = ["all_intervals"]


def all_intervals(
    gold: Gold,
    systems: Mapping[str, Answers],
    context: EvaluationContext,
    permuted: Permuted | None = None,
    supported: Answers | None = None,
) -> dict[str, tuple[float, float]]:
    """Bootstrap the accuracy of every system over the same resampled videos.

    Args:
        gold: of N rows.
        systems: answers by name; the model itself is "".
        context: seed and number of resamples.
        permuted: answers under other orders, for the interval of the position bias.
        supported: answers with support frames, for the interval of `accuracy_with_support`.

    Returns:
        `dict`: (low, high) by metric for the model, "baselines/<name>/<metric>" for the others, and
        "difference/<name>/<metric>" for the model minus the other, paired.
    """
    right = {f"right_{name}": answers.predicted == gold.answer for name, answers in systems.items()}
    members = {
        f"by_{name}/{value}": np.array([found == value for found in values])
        for name, values in gold.by.items()
        for value in sorted(set(values) - {""})
    }

    def scores(**sample: np.ndarray) -> dict[str, float]:
        flat = {}
        for suffix in ("", *members):
            chosen = sample[suffix] if suffix else np.ones(len(sample["right_"]), dtype=bool)
            metric = f"accuracy_{suffix}" if suffix else "accuracy"
            if not chosen.any():
                continue
            ours = float(sample["right_"][chosen].mean())
            flat[metric] = ours
            for name in systems:
                if name:
                    theirs = float(sample[f"right_{name}"][chosen].mean())
                    flat |= {f"baselines/{name}/{metric}": theirs, f"difference/{name}/{metric}": ours - theirs}
        return flat

    samples, seed = context.bootstrap_samples, context.seed
    found = bootstrap_intervals(scores, {**right, **members}, gold.groups, samples, seed)
    if not found:  # no resamples are wanted
        return {}
    found["accuracy_without_support"] = found["accuracy"]
    if supported is not None:
        with_support = bootstrap_intervals(
            lambda right: {"accuracy_with_support": float(right.mean())},
            {"right": supported.predicted == gold.answer},
            gold.groups,
            samples,
            seed,
        )
        found |= with_support
    if permuted is not None and len(permuted.index):
        chosen = permuted.index
        arrays = {"gold": gold.answer[chosen], "letters": permuted.letters, "counts": gold.counts[chosen]}
        groups = [gold.groups[row] for row in chosen]
        bias = bootstrap_intervals(position_bias, arrays, groups, samples, seed)
        found |= {name: bounds for name, bounds in bias.items() if "/" not in name}
    return found

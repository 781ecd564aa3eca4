"""Plots of an evaluation as data; `hfvla.evaluation.plots` draws them."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hfvla.data.boxes import HORIZONTAL, VERTICAL
from hfvla.data.pictures import data_uri, read_picture
from hfvla.family import EvaluationResult, Figure
from hfvla.metrics.report_figures import mistakes_figure
from hfvla.metrics.retrieval import RetrievalRanks
from hfvla.metrics.spatial import confusion_matrices

if TYPE_CHECKING:
    from hfvla.models.internvl_retrieval.modeling_internvl_retrieval import InternVLForRetrieval

__all__ = [
    "Clock",
    "ablation_figure",
    "platform_figure",
    "recall_figure",
    "relation_figures",
    "search_mistakes",
    "sweep_figure",
]

_CURVE = (1, 2, 3, 5, 7, 10, 15, 20, 30, 50)
_TITLES = {"t2i": "text to image", "i2t": "image to text"}


def recall_figure(systems: Mapping[str, RetrievalRanks], chance: Mapping[str, float]) -> Figure:
    """Recall at k of each system, both ways; chance where it is known."""
    panels = []
    for way, title in _TITLES.items():
        series: dict[str, dict[str, list[float]]] = {}
        for name, ranks in systems.items():
            rank = ranks.t2i if way == "t2i" else ranks.i2t
            valid = ranks.text_has_hit if way == "t2i" else ranks.image_has_hit
            series[name] = {"x": list(_CURVE), "y": [float(((rank < k) & valid).mean()) for k in _CURVE]}
        known = (1, 5, 10)
        series["chance"] = {"x": list(known), "y": [chance[f"{way}_r{k}"] for k in known]}
        panels.append({"title": title, "xlabel": "k", "ylabel": "R@k", "series": series})
    caption = "Share of queries with an item of the same building among the first k."
    return Figure("recall_at_k", "curves", "Recall at k", {"panels": panels}, caption)


def sweep_figure(recalls: Mapping[int, float], without: float) -> Figure:
    """Mean recall by the number of items that the matching head puts in order."""
    lengths = sorted(recalls)
    series = {
        "re-ranked": {"x": lengths, "y": [recalls[k] for k in lengths]},
        "similarity alone": {"x": lengths, "y": [without] * len(lengths)},
    }
    panel = {"title": "", "xlabel": "items re-ranked", "ylabel": "mean recall", "series": series}
    caption = "The matching head reads the first items of each list again, and puts them in order."
    return Figure("rerank_sweep", "curves", "Re-ranking by the matching head", {"panels": [panel]}, caption)


def relation_figures(predicted: np.ndarray, wanted: np.ndarray) -> list[Figure]:
    """Confusion of the horizontal and of the vertical relation."""
    matrices = confusion_matrices(predicted, wanted)
    found = []
    for axis, names in (("horizontal", HORIZONTAL), ("vertical", VERTICAL)):
        data: dict[str, Any] = {"matrix": matrices[axis].tolist(), "rows": list(names), "columns": list(names)}
        data |= {"row_title": "from the boxes", "column_title": "predicted"}
        caption = "Where the second object of an ordered pair lies from the first; counts of pairs."
        found.append(Figure(f"relations_{axis}", "confusion", f"Relations, {axis}", data, caption))
    return found


def ablation_figure(ablations: Mapping[str, Mapping[str, float]]) -> Figure:
    """Recall and boxes, where they are known, under each change of the input."""
    names = list(ablations)
    metrics = [
        metric for metric in ("mean_recall", "box_iou", "spatial_accuracy")
        if any(metric in scores for scores in ablations.values())
    ]  # fmt: skip
    series = {metric.replace("_", " "): [ablations[name].get(metric) for name in names] for metric in metrics}
    data = {"groups": [name.replace("_", " ") for name in names], "series": series, "ylim": [0, 1]}
    caption = "The same model on changed input; 1 and 2 are the weaker and the stronger change."
    return Figure("ablations", "bars", "What the scores need", data, caption)


def platform_figure(result: EvaluationResult, platforms: Sequence[str]) -> Figure:
    """Recall at 10 of queries from each platform, both ways."""
    series = {
        title: [result.metrics.get(f"{platform}/{way}_r10") for platform in platforms]
        for way, title in _TITLES.items()
    }
    groups = [f"{platform}\n(n={result.metrics[f'{platform}/n']:.0f})" for platform in platforms]
    data = {"groups": groups, "series": series, "ylabel": "R@10", "ylim": [0, 1]}
    caption = "Queries of one platform against everything; n counts captions."
    return Figure("platforms", "bars", "Recall at 10 by platform", data, caption)


def search_mistakes(
    rows: Sequence[Mapping[str, Any]],
    paths: Sequence[str],
    ranks: RetrievalRanks,
    found: np.ndarray,
    right: np.ndarray,
) -> Figure | None:
    """Return the captions whose picture stands furthest down, with what was found first beside the right one.

    Args:
        rows: N captions.
        paths: I pictures.
        ranks: of the captions; those without any hit are left out.
        found: [N] number of the picture that each caption finds first.
        right: [N] number of its own picture.
    """

    def describe(number: int) -> dict[str, Any]:
        pair = [read_picture(paths[int(which[number])], str(rows[number]["id"])) for which in (found, right)]
        height = min(len(picture) for picture in pair)
        both = np.concatenate([picture[:height] for picture in pair], axis=1)
        facts = [
            ["Place of the first hit", str(int(ranks.t2i[number]) + 1)],
            ["Pictures", "found first | the right one"],
            ["Found first", paths[int(found[number])]],
            ["Right", paths[int(right[number])]],
        ]
        return {"title": rows[number]["caption"], "image": data_uri(both), "facts": facts}

    badness = np.where(ranks.text_has_hit, ranks.t2i, 0)
    return mistakes_figure(badness, describe, "the place of the first hit")


@dataclass
class Clock:
    """Times named parts, with how many items each had.

    Attributes:
        parts: (seconds, items) by name of what is counted.
    """

    parts: dict[str, tuple[float, int]] = field(default_factory=dict)

    @contextmanager
    def measure(self, name: str, items: int, device: torch.device) -> Iterator[None]:
        """Add a block's seconds to a part.

        Args:
            name: what is counted, e.g. "images".
            items: how many of them the block handles.
            device: where; a GPU is waited for.
        """
        started = time.perf_counter()
        yield
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        seconds, count = self.parts.get(name, (0.0, 0))
        self.parts[name] = (seconds + time.perf_counter() - started, count + items)

    def metrics(self, model: InternVLForRetrieval) -> dict[str, float]:
        """Return `efficiency/...`: <items>_per_s and <items>_s of each part, parameters and memory."""
        found = {}
        for name, (seconds, count) in self.parts.items():
            found[f"efficiency/{name}_per_s"] = count / max(seconds, 1e-9)
            found[f"efficiency/{name}_s"] = seconds
        parameters = list(model.parameters())
        found["efficiency/million_parameters"] = sum(one.numel() for one in parameters) / 1e6
        device = parameters[0].device
        if device.type == "cuda":
            found["efficiency/peak_memory_gib"] = torch.cuda.max_memory_allocated(device) / 2**30
        return found

"""Figures of pictures and texts in one space: the similarities of pairs, a map of all, and what is found for a text.

Shapes: N pairs, D width; picture n belongs to text n.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hfvla.family.evaluation import Figure

__all__ = ["embedding_map", "found_pictures", "similarity_heatmap"]

_MOST_CELLS = 24
_MOST_POINTS = 400
_FEW = 8
_EXAMPLES = 4
_FOUND = 3


def similarity_heatmap(images: np.ndarray, texts: np.ndarray, names: Sequence[str], seed: int = 0) -> Figure:
    """Return the cosines of up to 24 pairs, drawn by the seed; right pairs lie on the diagonal.

    Args:
        images: [N, D] unit vectors.
        texts: [N, D] unit vectors.
        names: N texts.
        seed: which pairs are shown.
    """
    kept = _drawn(len(names), _MOST_CELLS, seed)
    cosines = texts[kept] @ images[kept].T
    shown = [names[n] for n in kept]
    data = {
        "matrix": cosines.tolist(),
        "rows": shown,
        "columns": [f"picture {number + 1}" for number in range(len(kept))],
        "row_title": "text",
        "column_title": "its picture, in the same order",
        "label": "cosine",
    }
    off = cosines[~np.eye(len(kept), dtype=bool)]
    other = f" and of others {off.mean():.3f}" if len(off) else ""
    caption = f"Right pairs lie on the diagonal: their mean cosine is {np.diagonal(cosines).mean():.3f}{other}."
    return Figure("similarity_heatmap", "heatmap", "Similarity of texts and pictures", data, caption)


def embedding_map(images: np.ndarray, texts: np.ndarray, seed: int = 0) -> Figure:
    """Return a map of up to 400 pairs in a plane, by t-SNE; by their two main directions where there are few.

    Args:
        images: [N, D] unit vectors.
        texts: [N, D] unit vectors.
        seed: which pairs are shown, and t-SNE's.
    """
    kept = _drawn(len(images), _MOST_POINTS, seed)
    both = np.concatenate([images[kept], texts[kept]]).astype(np.float64)
    way, places = _plane(both, seed)
    half = len(kept)
    series = {
        name: {"x": part[:, 0].tolist(), "y": part[:, 1].tolist()}
        for name, part in (("pictures", places[:half]), ("texts", places[half:]))
    }
    pairs = [[places[n].tolist(), places[half + n].tolist()] for n in range(half)]
    data = {"series": series, "pairs": pairs, "xlabel": f"{way} 1", "ylabel": f"{way} 2"}
    caption = (
        f"{half} pairs by {way}; a line joins a text with its picture. Short lines mean that they are neighbours."
    )
    return Figure("embedding_map", "scatter", "Pictures and texts in one space", data, caption)


def _plane(points: np.ndarray, seed: int) -> tuple[str, np.ndarray]:
    """Return the name of the projection, and the points in the plane, [2N, 2]."""
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    if len(points) < 2 * _FEW or not np.ptp(points, axis=0).any():
        return "main direction", _main_directions(points, PCA)
    found = TSNE(
        perplexity=min(30.0, (len(points) - 1) / 3), init="pca", learning_rate="auto", random_state=seed
    ).fit_transform(points.astype(np.float32))
    return "t-SNE", np.asarray(found, dtype=float)


def _main_directions(points: np.ndarray, decomposition: Callable[..., object]) -> np.ndarray:
    if min(points.shape) < 2:
        return np.stack([points[:, 0], np.zeros(len(points))], axis=1)
    return decomposition(n_components=2).fit_transform(points)  # type: ignore[attr-defined]


def found_pictures(
    images: np.ndarray, texts: np.ndarray, names: Sequence[str], picture: Callable[[int], str | None], seed: int = 0
) -> Figure:
    """Return up to four texts with the pictures that are found first for them, the right one marked.

    Args:
        images: [N, D] unit vectors.
        texts: [N, D] unit vectors.
        names: N texts.
        picture: the n-th picture as a data URI.
        seed: which texts are shown.
    """
    examples: list[dict[str, Any]] = []
    for number in _drawn(len(names), _EXAMPLES, seed):
        cosines = images @ texts[number]
        order = np.argsort(-cosines, kind="stable")
        rank = int(np.flatnonzero(order == number)[0])
        for place, other in enumerate(order[:_FOUND]):
            right = int(other) == number
            examples.append(
                {
                    "title": names[number] if place == 0 else f"... found as number {place + 1}",
                    "badge": "right" if right else "wrong",
                    "image": picture(int(other)),
                    "bars": {},
                    "facts": [
                        ["Cosine", f"{cosines[other]:.3f}"],
                        ["Place of the right picture", str(rank + 1)],
                    ],
                    "text": "" if right else names[int(other)],
                }
            )
    caption = f"What is found first among {len(names)} pictures; below a wrong one the text that belongs to it."
    return Figure("found_pictures", "text_examples", "Pictures found for a text", {"examples": examples}, caption)


def _drawn(count: int, most: int, seed: int) -> np.ndarray:
    return np.sort(np.random.default_rng(seed).permutation(count)[:most])

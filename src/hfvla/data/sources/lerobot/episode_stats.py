"""Statistics of one episode, under the names that LeRobot v3.0 keeps them by."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from hfvla.data.sources.lerobot.episodes import Stats

__all__ = ["array_stats", "episode_stats", "thumbnail"]

_QUANTILES = {"q01": 0.01, "q10": 0.1, "q50": 0.5, "q90": 0.9, "q99": 0.99}
_THUMBNAIL = 32


def thumbnail(pixels: np.ndarray) -> np.ndarray:
    """Take every n-th pixel of [H, W, 3], at most 32 a side: what the statistics of pictures are made of."""
    stride = -(-max(pixels.shape[:2]) // _THUMBNAIL)
    return pixels[::stride, ::stride].copy()


def array_stats(values: np.ndarray, count: int) -> dict[str, np.ndarray]:
    """Describe each channel of [N, C] numbers.

    Args:
        values: [N, C].
        count: of steps.

    Returns:
        min, max, mean, std (of the population) and quantiles: [C] float64; count [1].
    """
    values = values.astype(np.float64)
    stats = {
        "min": values.min(axis=0),
        "max": values.max(axis=0),
        "mean": values.mean(axis=0),
        "std": values.std(axis=0),
        "count": np.array([count]),
    }
    found = np.quantile(values, list(_QUANTILES.values()), axis=0)
    return stats | dict(zip(_QUANTILES, found, strict=True))


def episode_stats(columns: Mapping[str, np.ndarray], pictures: Mapping[str, list[np.ndarray]]) -> Stats:
    """Describe an episode.

    Args:
        columns: feature to [N, ...] numbers; all axes but the last one count as steps.
        pictures: camera to N thumbnails, uint8.

    Returns:
        statistics by feature; of a camera [3, 1, 1] by colour, in 0..1.
    """
    stats: Stats = {}
    for name, values in columns.items():
        width = values.shape[-1] if values.ndim > 1 else 1
        stats[name] = array_stats(values.reshape(-1, width), len(values))
    for name, thumbnails in pictures.items():
        colours = array_stats(np.stack(thumbnails).reshape(-1, 3) / 255.0, len(thumbnails))
        stats[name] = {key: value if key == "count" else value.reshape(3, 1, 1) for key, value in colours.items()}
    return stats

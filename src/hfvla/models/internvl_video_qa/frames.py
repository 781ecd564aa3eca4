"""Which frames of a clip a question is answered from, and how they become tiles."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from hfvla.data.video import duration_frame_count, plan_tiles, segment_centres, support_frame_count, support_times
from hfvla.errors import DataError, did_you_mean

if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["FRAME_MODES", "Clip", "FrameMode", "Tiles", "choose_times", "cut_tiles"]

FrameMode = Literal["support", "segments", "middle", "none"]
FRAME_MODES: tuple[str, ...] = get_args(FrameMode)
"""Around the support frames where there are some; spread over the clip; the middle frame alone; no frame at all."""


@dataclass(frozen=True)
class Clip:
    """Frames read for one question.

    Attributes:
        path: the video file.
        pixels: [T, H, W, 3] uint8.
        indices: [T] number of each frame in the file.
        favour: positions of the support frames, which get finer tiles first.
    """

    path: str
    pixels: np.ndarray
    indices: tuple[int, ...]
    favour: tuple[int, ...] = ()


@dataclass(frozen=True)
class Tiles:
    """Tiles of several clips; a tile that several clips show is there once.

    Attributes:
        pixel_values: [N, 3, S, S] normalised, or None without any frame.
        index: [M] long, which of the N stands at each place, clip after clip, frame after frame.
        counts: tiles of each frame, by clip.
    """

    pixel_values: Tensor | None
    index: Tensor
    counts: tuple[tuple[int, ...], ...]


def choose_times(
    support_s: Sequence[float], duration_s: float, frames: Mapping[str, float], mode: str = "support", where: str = ""
) -> tuple[np.ndarray, tuple[int, ...]]:
    """Return the moments to read, and the positions of the support frames among them.

    With support frames: clamp(2 x their number, fewest, most) moments from `margin_s` before the first to `margin_s`
    after the last, every support time among them. Without: segment centres over the clip, one for every
    `seconds_per_frame`, from fewest to most.

    Args:
        support_s: seconds; may be empty.
        duration_s: of the clip.
        frames: a config's `frames`.
        mode: one of `FRAME_MODES`.
        where: sample, for errors.

    Returns:
        [T] float64 seconds, ascending; positions in it.

    Raises:
        DataError: an unknown mode; a support time outside the clip.
    """
    if mode not in FRAME_MODES:
        raise DataError("no such way to choose frames", got=mode, fix=did_you_mean(mode, FRAME_MODES))
    if mode == "none":
        return np.zeros(0), ()
    if mode == "middle":
        return np.array([duration_s / 2]), ()
    fewest, most = int(frames["fewest"]), int(frames["most"])
    if mode == "support" and len(support_s):
        kept = np.unique(np.asarray(support_s, dtype=np.float64))
        count = support_frame_count(len(kept), fewest=fewest, most=most)
        times = support_times(kept.tolist(), duration_s, count=count, margin_s=frames["margin_s"], where=where)
        return times, tuple(int(place) for place in np.flatnonzero(np.isin(times, kept)))
    pace = frames["seconds_per_frame"]
    count = duration_frame_count(duration_s, seconds_per_frame=pace, fewest=fewest, most=most)
    return segment_centres(0.0, duration_s, count), ()


def cut_tiles(
    clips: Sequence[Clip], image_processor: BaseImageProcessor, tiling: Mapping[str, int], tokens_per_tile: int
) -> Tiles:
    """Cut the frames of clips into tiles within each clip's token budget.

    Args:
        clips: frames of each question.
        image_processor: InternVL's; its `size` is a tile's.
        tiling: a config's `tiling`.
        tokens_per_tile: what the model spends on one tile.

    Raises:
        DataError: the budget is below one tile a frame.
    """
    places: list[list[tuple[str, int, int]]] = []  # by clip: (file, frame, most tiles) of each frame
    pixels: dict[tuple[str, int, int], np.ndarray] = {}
    for clip in clips:
        bounds = _bounds(clip, image_processor, tiling, tokens_per_tile)
        keys = [(clip.path, frame, bound) for frame, bound in zip(clip.indices, bounds, strict=True)]
        pixels.update(zip(keys, clip.pixels, strict=True))
        places.append(keys)
    values: list[Tensor] = []
    tiles_of: dict[tuple[str, int, int], range] = {}
    for bound in sorted({key[2] for key in pixels}):
        keys = [key for key in pixels if key[2] == bound]
        cropping = {"crop_to_patches": True, "max_patches": bound} if bound > 1 else {"crop_to_patches": False}
        # Named in the call: among the processor's own settings some releases ignore it.
        found = image_processor([pixels[key] for key in keys], return_tensors="pt", **cropping)
        counts = [int(count) for count in found["num_patches"]] if bound > 1 else [1] * len(keys)
        start = sum(len(part) for part in values)
        for key, count in zip(keys, counts, strict=True):
            tiles_of[key] = range(start, start + count)
            start += count
        values.append(found["pixel_values"])
    index = [tile for keys in places for key in keys for tile in tiles_of[key]]
    return Tiles(
        torch.cat(values) if values else None,
        torch.tensor(index, dtype=torch.long),
        tuple(tuple(len(tiles_of[key]) for key in keys) for keys in places),
    )


def _bounds(
    clip: Clip, image_processor: BaseImageProcessor, tiling: Mapping[str, int], tokens_per_tile: int
) -> tuple[int, ...]:
    """Return the most tiles of each frame."""
    if not len(clip.pixels):
        return ()
    height, width = clip.pixels.shape[1:3]
    return plan_tiles(
        [(width, height)] * len(clip.pixels),
        tiling["token_budget"],
        max_tiles=tiling["most_tiles"],
        tokens_per_tile=tokens_per_tile,
        tile_px=image_processor.size["height"],
        favour=clip.favour,
    ).max_tiles

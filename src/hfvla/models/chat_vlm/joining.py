"""Several conversations that were encoded one by one, as one padded batch.

A processor pads what it encodes together, but takes videos of several lengths together in a few models only; and what
belongs to pictures lies side by side in all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from hfvla.data.packing import pack_batch
from hfvla.errors import DataError
from hfvla.losses.text import IGNORE_INDEX
from hfvla.models.chat_vlm.tower import IMAGES, VIDEOS

__all__ = ["ROW_AXES", "check_together", "join_rows", "picture_axes"]

_TOKENS = ("input_ids", "attention_mask", "labels", "mm_token_type_ids", "token_type_ids")

ROW_AXES = {IMAGES.pixels: 1, "pixel_attention_mask": 1, IMAGES.tiles: 1}
"""Along which pictures follow one another where pixels begin with the rows of a batch (Idefics' kind)."""


def picture_axes(rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return along which axis pictures follow one another, by key, where it is not the first.

    Args:
        rows: encoded conversations.
    """
    wide = any("pixel_attention_mask" in one and one[IMAGES.pixels].ndim == 5 for one in rows)
    return dict(ROW_AXES) if wide else {}


def check_together(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> None:
    """Refuse videos of different lengths where a model takes them as one tensor [videos, frames, ...].

    Args:
        rows: encoded conversations.
        names: of the rows, for errors.

    Raises:
        DataError: naming two of them (LLaVA-OneVision).
    """
    frames: dict[int, str] = {}
    for row, name in zip(rows, names, strict=True):
        shape = (row[VIDEOS.tiles] if VIDEOS.tiles in row else row.get(VIDEOS.pixels, torch.empty(0))).shape
        if len(shape) == 5 or (VIDEOS.tiles in row and len(shape) == 2):
            frames.setdefault(shape[1], name)
    if len(frames) > 1:
        raise DataError(
            "this model takes videos of equal numbers of frames in one batch",
            where=" and ".join(frames.values()),
            got=" and ".join(f"{count} frames" for count in frames),
            fix="Set model.options.frames, and leave out clips of fewer frames than that.",
        )


def join_rows(
    rows: Sequence[Mapping[str, Tensor]],
    names: Sequence[str],
    pad_token_id: int,
    *,
    left: bool = False,
    axes: Mapping[str, int] | None = None,
) -> dict[str, Tensor]:
    """Return encoded conversations as one batch, the shorter ones padded.

    Args:
        rows: batches of one conversation each.
        names: of the rows, for errors.
        pad_token_id: for `input_ids`.
        left: pad before the conversation, not behind it.
        axes: see `picture_axes`, which features that were kept cannot tell.

    Raises:
        DataError: videos that a model cannot take together.
    """
    check_together(rows, names)
    width = max(row["input_ids"].shape[1] for row in rows)
    fill = {"input_ids": pad_token_id, "labels": IGNORE_INDEX}
    batch = {}
    for key in _TOKENS:
        if any(key in row for row in rows):
            batch[key] = torch.cat([_padded(row, key, width, fill.get(key, 0), left) for row in rows])
    others = [{key: value for key, value in row.items() if key not in _TOKENS} for row in rows]
    tokens = [{"input_ids": row["input_ids"][:, :1]} for row in rows]
    packs = [[{**token, **other}] for token, other in zip(tokens, others, strict=True)]
    joined = pack_batch(packs, pad_token_id, "rows", picture_axes(rows) if axes is None else axes)
    return batch | {key: value for key, value in joined.items() if any(key in other for other in others)}


def _padded(row: Mapping[str, Tensor], key: str, width: int, value: int, left: bool) -> Tensor:
    """Return one of a conversation's token tensors [1, width]."""
    given = row.get(key)
    if given is None:
        given = torch.full_like(row["input_ids"], value)
    room = width - given.shape[1]
    return torch.nn.functional.pad(given, (room, 0) if left else (0, room), value=value)

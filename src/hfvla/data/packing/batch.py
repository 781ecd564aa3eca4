"""From samples encoded one by one to a batch of packed sequences.

    pack 0:  [sample 0 | sample 1 | sample 2 | padding]     input_ids     [B, T]
    pack 1:  [sample 3 | sample 4 | padding          ]      position_ids  [B, T], from 0 in each sample
                                                            pixel_values  pictures of all samples, in their order

There is no attention mask: where positions begin anew a sequence begins, and transformers builds block-diagonal causal
masks from that (eager, SDPA, flex attention), or hands the borders to flash attention as `cu_seqlens`. Padding is a
sequence of its own, without labels.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from hfvla.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["SEQUENCE_IDS", "layout_for", "pack_batch"]

SEQUENCE_IDS = "sequence_ids"
"""Key of a packed batch: [B, T] number of the sample each token belongs to, within the batch; -1 for padding."""

_IGNORE_INDEX = -100  # of losses.text, and of all of transformers
_TOKEN_KEYS = ("input_ids", "labels", "mm_token_type_ids", "token_type_ids")
_REBUILT = ("attention_mask", "position_ids")

Encoded = Mapping[str, Any]


def layout_for(attn_implementation: str | None) -> Literal["rows", "flat"]:
    """Return how packs lie in a batch for an attention implementation.

    Flash attention takes the borders of sequences in a batch of one row only; a mask over one long row would cost the
    others the square of it.
    """
    return "flat" if "flash" in (attn_implementation or "") else "rows"


def pack_batch(
    packs: Sequence[Sequence[Encoded]],
    pad_token_id: int,
    layout: Literal["rows", "flat"] = "rows",
    picture_axes: Mapping[str, int] | None = None,
    token_keys: Sequence[str] = (),
    first_position: int = 0,
) -> dict[str, Tensor]:
    """Put encoded samples into packed sequences.

    Args:
        packs: for each sequence its samples, each as a processor returns it for one conversation: token tensors
            [1, T] or [T] (`input_ids`, `labels` where there are any, ...), other tensors of its pictures and videos.
        pad_token_id: for `input_ids` behind a sequence that is shorter than the longest.
        layout: "rows", one sequence a row [B, T]; "flat", all in one row [1, total] (`layout_for`).
        picture_axes: axis along which the pictures of samples follow one another, by key, where it is not 0: SmolVLM's
            and Idefics3's `pixel_values` and `pixel_attention_mask` are [1, pictures, ...], so 1.
        token_keys: further keys with one value a token; padded with 0.
        first_position: position of the first token of each sample.

    Returns:
        `dict`: `input_ids`, `labels` (the first token of each sample has none: the sample before cannot predict it),
        `position_ids`, `sequence_ids` and the other token keys, [B, T] long; and what belongs to pictures,
        concatenated in the order of the samples. A key that only some samples have is that of those samples.

    Raises:
        DataError: no sample, a sample without tokens, or token tensors of different lengths.
    """
    packs = [list(members) for members in packs if members]
    if not packs:
        raise DataError("nothing to pack", got="no sample")
    if layout == "flat":
        packs = [[sample for members in packs for sample in members]]
    samples = [sample for members in packs for sample in members]
    per_token = [key for key in (*_TOKEN_KEYS, *token_keys) if any(key in sample for sample in samples)]
    batch = _tokens(packs, per_token, pad_token_id, first_position)
    others = dict.fromkeys(key for sample in samples for key in sample)
    for key in others:
        if key not in per_token and key not in _REBUILT:
            joined = _pictures(packs, key, (picture_axes or {}).get(key, 0))
            if joined is not None:
                batch[key] = joined
    return batch


def _tokens(
    packs: Sequence[Sequence[Encoded]], keys: Sequence[str], pad_token_id: int, first_position: int
) -> dict[str, Tensor]:
    import torch

    sizes = [[_size(sample, keys) for sample in members] for members in packs]
    width = max(sum(row) for row in sizes)
    fill = {"input_ids": pad_token_id, "labels": _IGNORE_INDEX}
    batch = {key: torch.full((len(packs), width), fill.get(key, 0)) for key in keys}
    positions = torch.zeros(len(packs), width, dtype=torch.long)
    numbers = torch.full((len(packs), width), -1)
    count = 0
    for row, (members, lengths) in enumerate(zip(packs, sizes, strict=True)):
        start = 0
        for sample, length in zip(members, lengths, strict=True):
            place = slice(start, start + length)
            for key in keys:
                if key in sample:
                    batch[key][row, place] = torch.as_tensor(sample[key]).reshape(-1).long()
            if "labels" in batch:
                batch["labels"][row, start] = _IGNORE_INDEX
            positions[row, place] = torch.arange(first_position, first_position + length)
            numbers[row, place] = count
            start, count = start + length, count + 1
        positions[row, start:] = torch.arange(first_position, first_position + width - start)
    return {**batch, "position_ids": positions, SEQUENCE_IDS: numbers}


def _size(sample: Encoded, keys: Sequence[str]) -> int:
    import torch

    found = {key: torch.as_tensor(sample[key]).numel() for key in keys if key in sample}
    if not found.get("input_ids"):
        raise DataError("a sample without tokens cannot be packed", got=sorted(sample), expected="input_ids [1, T]")
    if len(set(found.values())) > 1:
        raise DataError("a sample's token tensors differ in length", got=found)
    return found["input_ids"]


def _pictures(packs: Sequence[Sequence[Encoded]], key: str, axis: int) -> Tensor | None:
    """Return one tensor of all samples' pictures; sizes that differ are filled up with zeros, as processors do."""
    import torch

    def present(members: Sequence[Encoded]) -> list[Tensor]:
        return [torch.as_tensor(sample[key]) for sample in members if sample.get(key) is not None]

    if axis == 0:
        parts = present([sample for members in packs for sample in members])
        return torch.cat(_same_size(parts, 0)) if parts else None
    rows = [present(members) for members in packs]
    flat = _same_size([part for row in rows for part in row], axis)
    if not flat:
        return None
    counts, found = [len(row) for row in rows], []
    for count in counts:
        row, flat = flat[:count], flat[count:]
        found.append(torch.cat(row, dim=axis) if row else None)
    example = next(row for row in found if row is not None)
    longest = max(row.shape[axis] for row in found if row is not None)
    blank = example.new_zeros([longest if dim == axis else size for dim, size in enumerate(example.shape)])
    return torch.cat([blank if row is None else _grown(row, list(blank.shape)) for row in found])


def _same_size(parts: Sequence[Tensor], axis: int) -> list[Tensor]:
    """Return tensors filled up with zeros behind, in every dimension but `axis`."""
    if not parts:
        return []
    largest = [max(part.shape[dim] for part in parts) for dim in range(parts[0].ndim)]
    return [
        _grown(part, [part.shape[dim] if dim == axis else size for dim, size in enumerate(largest)]) for part in parts
    ]


def _grown(part: Tensor, shape: Sequence[int]) -> Tensor:
    if list(part.shape) == list(shape):
        return part
    grown = part.new_zeros(shape)
    grown[tuple(slice(size) for size in part.shape)] = part
    return grown

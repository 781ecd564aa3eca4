"""Does this text belong to this image: hard negatives, and the loss on matched and mismatched pairs."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from hfvla.losses.contrastive import same_group

__all__ = ["HardNegatives", "MatchingPairs", "draw_negatives", "hard_negatives", "matching_loss", "matching_pairs"]


class HardNegatives(NamedTuple):
    """One wrong partner a row.

    Attributes:
        text_index (`Tensor`): [B] long, a text of another group for image i.
        image_index (`Tensor`): [B] long, an image of another group for text i.
        valid (`Tensor`): [B] bool; False where the batch has no other group, so that both indices mean nothing.
    """

    text_index: Tensor
    image_index: Tensor
    valid: Tensor

    @property
    def left_out(self) -> int:
        """How many rows have no possible negative."""
        return int((~self.valid).sum())


class MatchingPairs(NamedTuple):
    """M pairs of an image and a text, B that belong together and up to 2B that do not.

    Attributes:
        image_index (`Tensor`): [M] long.
        text_index (`Tensor`): [M] long.
        labels (`Tensor`): [M] long; 1 = they belong together.
    """

    image_index: Tensor
    text_index: Tensor
    labels: Tensor


def draw_negatives(
    similarity: Tensor,
    groups: Tensor,
    candidate_groups: Tensor,
    generator: torch.Generator | None = None,
    uniform: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Draw a candidate of another group for each row, with probability `softmax(similarity)` among those.

    Shapes: B rows, N candidates (N > B where they were gathered over processes).

    Args:
        similarity (`Tensor`): [B, N] logits (divided by the temperature); used without gradient.
        groups (`Tensor`): [B] long; ids below 0 are groups of their own.
        candidate_groups (`Tensor`): [N] long. A row must not find itself: where ids are below 0, exclude it by giving
            its own column the similarity -inf.
        generator (`torch.Generator`, *optional*): default: torch's own stream, which checkpoints keep.
        uniform (`Tensor`, *optional*): [B] in [0, 1), drawn for each row, in place of a generator: then a row's
            candidate does not depend on which rows are drawn for beside it.

    Returns:
        `tuple`: [B] long index of the candidate, and [B] bool; False = there is none, and the index means nothing.

    Raises:
        ValueError: shapes do not fit.
    """
    if similarity.shape != (len(groups), len(candidate_groups)):
        raise ValueError(
            f"draw_negatives: similarity {tuple(similarity.shape)} does not fit {len(groups)} rows and "
            f"{len(candidate_groups)} candidates"
        )
    logits = similarity.detach().float()
    possible = ~same_group(groups, candidate_groups) & (logits > -torch.inf)
    valid = possible.any(1)
    logits = logits.masked_fill(~possible, -torch.inf).masked_fill(~valid[:, None], 0.0)
    # No draw may be 0 and so unlucky: the softmax is over the possible ones alone, and its largest is at least 1 / N.
    weights = logits.softmax(dim=1)
    if uniform is not None:
        reached = weights.double().cumsum(1)
        drawn = uniform.to(reached)[:, None] * reached[:, -1:]
        return torch.searchsorted(reached, drawn, right=True).squeeze(1).clamp(max=weights.shape[1] - 1), valid
    if generator is not None:
        weights = weights.to(generator.device)
    index = torch.multinomial(weights, 1, generator=generator).squeeze(1)
    return index.to(similarity.device), valid


def hard_negatives(similarity: Tensor, groups: Tensor, generator: torch.Generator | None = None) -> HardNegatives:
    """Draw for each image a wrong text and for each text a wrong image, hard ones more often.

    Shapes: B batch.

    Args:
        similarity (`Tensor`): [B, B] logits, images by texts; used without gradient.
        groups (`Tensor`): [B] long; partners of the same group are never drawn. Ids below 0 are groups of their own.
        generator (`torch.Generator`, *optional*): default: torch's own stream, which checkpoints keep.

    Returns:
        `HardNegatives`: of both sides; `left_out` counts rows for which the batch has none.

    Raises:
        ValueError: shapes do not fit.

    Source: Li et al. 2021 (ALBEF), section 3.3. Differs: a whole group is masked, not the pair alone.
    """
    if similarity.ndim == 2 and similarity.shape[0] == similarity.shape[1]:
        own = torch.eye(len(similarity), dtype=torch.bool, device=similarity.device)
        similarity = similarity.detach().masked_fill(own, -torch.inf)
    text_index, valid = draw_negatives(similarity, groups, groups, generator)
    image_index, _ = draw_negatives(similarity.T, groups, groups, generator)
    return HardNegatives(text_index, image_index, valid)


def matching_pairs(negatives: HardNegatives, offset: int = 0) -> MatchingPairs:
    """Return pairs to be told apart: each row's own, then image i with a wrong text, then a wrong image with text i.

    Args:
        negatives: of B rows; rows that are not valid give a positive pair only.
        offset: where the rows begin among the candidates, if these were gathered over processes.
    """
    rows = torch.arange(len(negatives.valid), device=negatives.valid.device) + offset
    used = rows[negatives.valid]
    images = torch.cat([rows, used, negatives.image_index[negatives.valid]])
    texts = torch.cat([rows, negatives.text_index[negatives.valid], used])
    labels = torch.cat([torch.ones_like(rows), torch.zeros_like(used), torch.zeros_like(used)])
    return MatchingPairs(images, texts, labels)


def matching_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of "do they belong together", averaged over pairs.

    Shapes: M pairs.

    Args:
        logits (`Tensor`): [M, 2]; column 1 = they belong together.
        labels (`Tensor`): [M] long, 0 or 1.

    Returns:
        `Tensor`: [] scalar, nats.

    Raises:
        ValueError: shapes do not fit, or there is no pair.
    """
    if logits.shape != (len(labels), 2) or not len(labels):
        raise ValueError(f"matching_loss: logits {tuple(logits.shape)} and {tuple(labels.shape)} labels do not fit")
    return F.cross_entropy(logits.float(), labels)

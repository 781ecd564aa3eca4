"""The deciding half of `InternVLForRetrieval`: matching, boxes, relations, and the loss terms on them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.functional import normalize

from hfvla.losses.boxes import box_loss
from hfvla.losses.contrastive import cosine_logits, group_infonce, same_group
from hfvla.losses.gathering import gather_with_gradient, gathered_offset, gathered_rows
from hfvla.losses.matching import HardNegatives, draw_negatives, matching_loss, matching_pairs
from hfvla.losses.spatial import spatial_labels, spatial_loss
from hfvla.nn.noise import RowGenerator

__all__ = ["RetrievalObjectives"]


class RetrievalObjectives:
    """Heads on encoded features; nothing here runs a tower."""

    config: Any
    training: bool
    temperature: Tensor
    queue: Any
    grid_attention: Any
    itm_head: Any
    bbox_head: Any
    spatial_head: Any

    def fuse(self, image_embed: Tensor, grid: Tensor | None, texts: Tensor) -> Tensor:
        """Return what each text finds in its image.

        Args:
            image_embed: [B, D].
            grid: [B, G, D] for heads over the grid, else None.
            texts: [B, S, D].

        Returns:
            `Tensor`: [B, S, D].
        """
        if self.grid_attention is not None:
            return self.grid_attention(texts, grid)
        return image_embed[:, None] + texts

    def match_logits(self, image_embed: Tensor, grid: Tensor | None, texts: Tensor) -> Tensor:
        """Return [B, S, 2] logits of each image with S texts; column 1 = they belong together.

        The head sees what the text finds in the image, and in which directions of the shared space both agree (the
        product of the unit vectors, whose sum is the cosine).

        Args:
            image_embed: [B, D], as in `features`.
            grid: [B, G, D] for heads over the grid, else None.
            texts: [B, S, D], as `text_embed` in `features`.
        """
        agreement = normalize(image_embed, dim=-1)[:, None] * normalize(texts, dim=-1) * image_embed.shape[-1]
        return self.itm_head(torch.cat([self.fuse(image_embed, grid, texts), agreement], dim=-1))

    def locate(self, features: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return boxes [B, S, 4] of the sentences, and relations [B, S, S, 6] of their ordered pairs (A, B)."""
        sentences = features["sentence_embed"]
        fused = self.fuse(features["image_embed"], features.get("grid"), sentences)
        boxes = self.bbox_head(torch.cat([fused, sentences], dim=-1)).float().sigmoid()
        slots = fused.shape[1]
        first = fused[:, :, None].expand(-1, -1, slots, -1)
        second = fused[:, None, :].expand(-1, slots, -1, -1)
        return boxes, self.spatial_head(torch.cat([first, second], dim=-1)).float()

    def pair_terms(self, features: dict[str, Tensor], group_ids: Tensor, seeds: Tensor | None) -> dict[str, Tensor]:
        """Return `itc`, and `itm` where the batch has seeds for its hard negatives."""
        image, text = features["image_embed"], features["text_embed"]
        terms = {"itc": group_infonce(image, text, self.temperature, group_ids, self.queue)}
        if seeds is not None:
            terms["itm"] = self._matching(features, group_ids, seeds)
        if self.queue is not None and self.training:
            self.queue.push(image, text, group_ids)
        return terms

    def term_counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return what each loss term of a batch is a mean over: pairs to match, boxes, pairs of boxes; `itc` by rows.

        With `negatives.gather` every process must call it at the same time.
        """
        counts: dict[str, Tensor] = {}
        if batch.get("box_mask") is not None:
            boxes = batch["box_mask"].bool().sum(1)
            counts |= {"bbox": boxes.sum(), "spatial": (boxes * (boxes - 1)).sum()}
        if batch.get("group_ids") is not None and batch.get("negative_seeds") is not None:
            groups, offset = batch["group_ids"], 0
            candidates = groups
            if self.config.negatives["gather"]:
                offset, candidates = gathered_offset(gathered_rows(groups)), gather_with_gradient(groups)
            others = ~same_group(groups, candidates)
            rows = torch.arange(len(groups), device=groups.device)
            others[rows, rows + offset] = False
            counts["itm"] = len(groups) + 2 * others.any(1).sum()  # a row without a negative is one pair, not three
        return counts

    def _matching(self, features: dict[str, Tensor], group_ids: Tensor, seeds: Tensor) -> Tensor:
        """Tell each image's own text from a hard wrong one, and each text's own image from a hard wrong one."""
        image, text, grid = features["image_embed"], features["text_embed"], features.get("grid")
        groups, offset, own = group_ids, 0, torch.arange(len(image), device=image.device)
        if self.config.negatives["gather"]:
            offset = gathered_offset(gathered_rows(image))
            own = own + offset
            image, text, groups = (gather_with_gradient(part) for part in (image, text, groups))
            grid = None if grid is None else gather_with_gradient(grid)
        negatives = self._negatives(image, text, own, group_ids, groups, seeds)
        pairs = matching_pairs(negatives, offset)
        chosen = None if grid is None else grid[pairs.image_index]
        logits = self.match_logits(image[pairs.image_index], chosen, text[pairs.text_index][:, None])
        return matching_loss(logits[:, 0], pairs.labels)

    @torch.no_grad()
    def _negatives(
        self, image: Tensor, text: Tensor, own: Tensor, group_ids: Tensor, groups: Tensor, seeds: Tensor
    ) -> HardNegatives:
        """Draw a wrong text for each of our images, and a wrong image for each of our texts.

        Args:
            image: [N, D] candidates, of all processes where they are gathered.
            text: [N, D].
            own: [B] where our rows are among the candidates.
            group_ids: [B] of our rows.
            groups: [N] of the candidates.
            seeds: [B] long.
        """
        if image.is_meta:  # a plan has sizes and no values to draw by
            others = (torch.arange(len(seeds)) + 1) % len(image)
            return HardNegatives(others, others, torch.ones(len(seeds), dtype=torch.bool))
        itself = torch.arange(len(image), device=image.device) == own[:, None]
        generator, seed = RowGenerator(seeds), self.config.negatives["seed"]
        drawn = []
        for first, second, side in ((image, text, "texts"), (text, image, "images")):
            uniform = generator.uniform((len(seeds),), f"negative {side} {seed}")
            scores = cosine_logits(first[own], second, self.temperature)
            drawn.append(draw_negatives(scores.masked_fill(itself, -torch.inf), group_ids, groups, uniform=uniform))
        (texts, valid), (images, _) = drawn
        return HardNegatives(texts, images, valid)

    def place_terms(self, predicted: Tensor, logits: Tensor, boxes: Tensor, box_mask: Tensor) -> dict[str, Tensor]:
        """Return `bbox` (L1 + 1 - GIoU) and `spatial`, each where the batch has boxes, or pairs of boxes.

        Where several processes train, a term is 0 instead of absent: all must go through the same parameters.
        """
        mask = box_mask.bool()
        together = self.training and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
        terms = {}
        if predicted.is_meta:  # torchvision's overlap branches on values, and a plan has none
            terms["bbox"] = (predicted - boxes).abs().mean()
        elif together or mask.any():
            parts = box_loss(predicted, boxes.float(), mask)
            terms["bbox"] = parts.l1 + parts.giou
        if together or (mask.sum(1) > 1).any():
            terms["spatial"] = spatial_loss(logits, spatial_labels(boxes, mask))
        return terms

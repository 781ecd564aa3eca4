"""The loss terms of `EmberVLMForRobotSelection`, and what each of them is a mean over."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from hfvla.losses.contrastive import bounded_temperature, symmetric_infonce
from hfvla.losses.gathering import gathered_rows
from hfvla.losses.precision import full_precision
from hfvla.losses.selection import multilabel_loss
from hfvla.losses.text import IGNORE_INDEX, sequence_cross_entropy, text_by_row, text_count

__all__ = ["TEXT_KINDS", "RobotObjectives"]

TEXT_KINDS: tuple[str, ...] = ("caption", "instruct", "reasoning")
"""What a sequence's labels teach; `text_kind` in a batch indexes this, and each kind is a loss term of its own."""

_LEAST_TEMPERATURE = 0.01  # as CLIP's logit scale of at most 100


class RobotObjectives:
    """Losses on what the model has computed; nothing here runs a tower."""

    config: Any
    language_model: Any
    log_temperature: Tensor
    embed_captions: Any

    def term_counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return what each loss term of a batch is a mean over: sequences (or tokens), gold sets, pairs."""
        counts: dict[str, Tensor] = {}
        labels, kind, gold = batch.get("labels"), batch.get("text_kind"), batch.get("robot_mask")
        if labels is not None and kind is not None:
            for index, name in enumerate(TEXT_KINDS):
                counts[name] = text_count(labels, kind == index, self.config.text_loss_reduction)
        if gold is not None:
            counts["selection"] = gold.sum()
        if batch.get("verdict_positions") is not None:
            counts["consistency"] = (batch["verdict_positions"] >= 0).any(1).sum()
        if batch.get("caption_input_ids") is not None:
            captions = batch["caption_input_ids"]
            counts["itc"] = torch.tensor(float(len(captions)), device=captions.device)
        return counts

    def _selection_loss(self, logits: Tensor, targets: Tensor) -> Tensor:
        gamma = self.config.focal_gamma if self.config.selection_loss == "focal" else 0.0
        return multilabel_loss(logits, targets, label_smoothing=self.config.label_smoothing, focal_gamma=gamma)

    def _text_losses(
        self, hidden: Tensor, labels: Tensor, kind: Tensor | None, by_row: bool = False
    ) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
        if kind is None:
            raise ValueError("labels need text_kind [B], the index into TEXT_KINDS of what each sequence teaches")
        rows, columns = (labels[:, 1:] != IGNORE_INDEX).nonzero(as_tuple=True)
        logits = self.language_model.lm_head(hidden[rows, columns])  # [N, V], the state before the predicted token
        targets, kinds, terms, each = labels[rows, columns + 1], kind[rows], {}, {}
        for index, name in enumerate(TEXT_KINDS):
            chosen = kinds == index
            if chosen.any():
                own = (logits[chosen], targets[chosen], rows[chosen], len(labels), self.config.text_loss_reduction)
                terms[name] = sequence_cross_entropy(*own)
                if by_row:
                    each[name] = text_by_row(*own)
        return logits, terms, each

    def _verdicts(self, hidden: Tensor, positions: Tensor) -> Tensor:
        """Return [B, R] log-odds of yes over no, read just before each verdict token."""
        index = (positions - 1).clamp_min(0)[..., None].expand(-1, -1, hidden.shape[-1])
        states = hidden.gather(1, index)  # [B, R, D]
        words = self.language_model.lm_head.weight[[self.config.yes_token_id, self.config.no_token_id]]  # [2, D]
        with full_precision(states):  # the difference of two large numbers
            scores = states.float() @ words.float().T
        return scores[..., 0] - scores[..., 1]

    def _contrastive(self, shown: Tensor | None, captions: Tensor, attention_mask: Tensor | None) -> dict[str, Tensor]:
        """Return `itc` of K pictures [K, tokens, D] and captions [K, C]; absent where no process has any.

        A process without captions takes part all the same: the others wait for it.
        """
        mask = torch.ones_like(captions) if attention_mask is None else attention_mask
        if not sum(gathered_rows(captions)):
            return {}
        if shown is None or not len(captions):
            pictures = texts = self.log_temperature.new_zeros(0, self.config.text_config.hidden_size)
        else:
            pictures, texts = shown.mean(1), self.embed_captions(captions, mask)
        temperature = bounded_temperature(self.log_temperature, _LEAST_TEMPERATURE, 1.0)
        return {"itc": symmetric_infonce(pictures, texts, temperature)}

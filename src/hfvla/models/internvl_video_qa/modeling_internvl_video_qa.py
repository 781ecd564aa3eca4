"""InternVL that answers multiple-choice questions on video by scoring the letters of the choices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, AutoModelForImageTextToText
from transformers.utils import ModelOutput

from hfvla.losses.text import IGNORE_INDEX, sequence_cross_entropy, text_count
from hfvla.losses.weighing import weighted_sum
from hfvla.models.internvl_video_qa.answering import VideoAnswerMixin
from hfvla.models.internvl_video_qa.configuration_internvl_video_qa import InternVLVideoQAConfig
from hfvla.nn.loading import AlignedPreTrainedModel

__all__ = ["InternVLForVideoQA", "InternVLVideoQAOutput", "InternVLVideoQAPreTrainedModel"]


@dataclass
class InternVLVideoQAOutput(ModelOutput):
    """Output of `InternVLForVideoQA`.

    Shapes: B questions, L letters (A to D).

    Args:
        loss (`Tensor`, *optional*): [] weighted sum of `loss_terms` by `config.loss_weights`.
        loss_terms (`dict[str, Tensor]`, *optional*): unweighted scalars by name.
        letter_logits (`Tensor`): [B, L] log-likelihood of each letter as the next token, over the whole vocabulary;
            -inf where the question has no such choice. Their softmax is the answer's distribution.
    """

    loss: Tensor | None = None
    loss_terms: dict[str, Tensor] | None = None
    letter_logits: Tensor | None = None


class InternVLVideoQAPreTrainedModel(AlignedPreTrainedModel):
    """Base class: what transformers asks a model class to state."""

    config_class = InternVLVideoQAConfig
    base_model_prefix = "internvl_video_qa"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _no_split_modules = ("InternVLVisionLayer", "Qwen2DecoderLayer")
    _supports_sdpa = True
    _supports_flash_attn = True


class InternVLForVideoQA(VideoAnswerMixin, InternVLVideoQAPreTrainedModel):
    """transformers' InternVL with letter scoring; the backbone is wrapped as it is.

    A question's answer is the letter with the highest likelihood after the prompt, among the letters that the
    question has: one forward pass, nothing to parse.
    """

    def __init__(self, config: InternVLVideoQAConfig) -> None:
        super().__init__(config)
        self.backbone = AutoModelForImageTextToText.from_config(config.backbone_config)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding of the language model."""
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding of the language model."""
        self.backbone.set_input_embeddings(value)

    def get_output_embeddings(self) -> nn.Module:
        """Return the output layer of the language model."""
        return self.backbone.get_output_embeddings()

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        """Encode tiles [N, 3, S, S] to [N, tokens_per_tile, D]: vision tower, pixel shuffle, projector."""
        return self._pooled(self._projected(pixel_values))

    def _projected(self, pixel_values: Tensor) -> Tensor:
        return self.backbone.model.get_image_features(pixel_values=pixel_values, return_dict=True).pooler_output

    def _pooled(self, tokens: Tensor) -> Tensor:
        """Average the square neighbourhoods of a tile's tokens [N, side x side, D]; see `config.tile_pool`."""
        pool = self.config.tile_pool
        if pool == 1:
            return tokens
        count = math.isqrt(tokens.shape[1]) // pool
        grid = tokens.reshape(tokens.shape[0], count, pool, count, pool, tokens.shape[2])
        return grid.mean(dim=(2, 4)).flatten(1, 2)

    def get_tower_features(self, pixel_values: Tensor) -> Tensor:
        """Encode tiles [N, 3, S, S] to [N, tokens, C]: what `project` makes language tokens of."""
        found: list[Tensor] = []
        # Each backbone shuffles and cuts in its own way before its projector: taken where the projector takes it.
        hook = self.backbone.model.multi_modal_projector.register_forward_pre_hook(
            lambda _, given: found.append(given[0])
        )
        try:
            self._projected(pixel_values)
        finally:
            hook.remove()
        return found[0]

    def project(self, tower_features: Tensor) -> Tensor:
        """Turn `get_tower_features` [M, tokens, C] into language tokens [M, tokens_per_tile, D]."""
        projector = self.backbone.model.multi_modal_projector
        # A cache keeps half precision.
        return self._pooled(projector(tower_features.to(next(projector.parameters()).dtype)))

    def embed(self, input_ids: Tensor, image_features: Tensor | None) -> Tensor:
        """Embed tokens and write image features [M, tokens, D] over the image placeholders, in order.

        Returns:
            `Tensor`: [B, T, D].

        Raises:
            ValueError: placeholders and features do not match in number.
        """
        embeddings = self.get_input_embeddings()(input_ids)
        image_mask = input_ids == self.config.backbone_config.image_token_id
        tiles, tokens = (0, 0) if image_features is None else image_features.shape[:2]
        if int(image_mask.sum()) != tiles * tokens:
            raise ValueError(
                f"{int(image_mask.sum())} image placeholders in input_ids but {tiles * tokens} image features "
                f"({tiles} tiles of {tokens} tokens)"
            )
        if image_features is None:
            return embeddings
        return embeddings.masked_scatter(image_mask[..., None], image_features.to(embeddings.dtype))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        tile_index: Tensor | None = None,
        image_features: Tensor | None = None,
        tower_features: Tensor | None = None,
        answer_positions: Tensor | None = None,
        labels: Tensor | None = None,
        letter_labels: Tensor | None = None,
        letter_mask: Tensor | None = None,
        words_mask: Tensor | None = None,
        spelt_mask: Tensor | None = None,
        binding_labels: Tensor | None = None,
    ) -> InternVLVideoQAOutput:
        """Score the letters of each question and, where labels are given, compute the loss terms.

        Shapes: B questions, T tokens, N different tiles, M tiles in the order of their placeholders, L letters.

        Args:
            input_ids (`Tensor`): [B, T] long; a tile is `config.tokens_per_tile` placeholders.
            attention_mask (`Tensor`, *optional*): [B, T]; 1 = valid.
            pixel_values (`Tensor`, *optional*): [N, 3, S, S] normalised tiles, each once.
            tile_index (`Tensor`, *optional*): [M] long, which of the N tiles stands at each place: questions on one
                video share its tiles. Default: each tile once, in order.
            image_features (`Tensor`, *optional*): [M, tokens, D] in place of `pixel_values`; see `get_image_features`.
            tower_features (`Tensor`, *optional*): [M, tokens, C] in place of both; see `get_tower_features`.
            answer_positions (`Tensor`, *optional*): [B] long, the prompt's last token; default: the last valid token.
            labels (`Tensor`, *optional*): [B, T] long, the token itself where it is predicted, else -100.
            letter_labels (`Tensor`, *optional*): [B] long, index of the right letter, or -1.
            letter_mask (`Tensor`, *optional*): [B, L] bool; True = the question has that choice. Default: all.
            words_mask (`Tensor`, *optional*): [B] bool; True = the labels are an answer in words, not a letter.
            spelt_mask (`Tensor`, *optional*): [B] bool; True = the labels are the right choice's text and its letter.
            binding_labels (`Tensor`, *optional*): [B] long, index of the letter beside the text that the prompt names,
                or -1 where the prompt is a question.

        Returns:
            `InternVLVideoQAOutput`

        Raises:
            ValueError: pixels and features are both given, or do not match the placeholders.
        """
        shown = {"pixel_values": pixel_values, "image_features": image_features, "tower_features": tower_features}
        given = [name for name, value in shown.items() if value is not None]
        if len(given) > 1:
            raise ValueError(f"{' and '.join(given)} are both given; a batch has one of them")
        if tower_features is not None:
            image_features = self.project(tower_features)
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        if pixel_values is not None:
            image_features = self.get_image_features(pixel_values)
            image_features = image_features if tile_index is None else image_features[tile_index]
        hidden = self._hidden(input_ids, attention_mask, image_features)
        letter_logits = self._letter_logits(hidden, attention_mask, answer_positions, letter_mask)
        terms: dict[str, Tensor] = {}
        for name, right in (("letters", letter_labels), ("binding", binding_labels)):
            if right is not None and (right >= 0).any():
                terms[name] = F.cross_entropy(letter_logits[right >= 0], right[right >= 0])
        if labels is not None:
            terms.update(self._text_losses(hidden, labels, words_mask, spelt_mask))
        return InternVLVideoQAOutput(
            loss=weighted_sum(terms, self.config.loss_weights), loss_terms=terms or None, letter_logits=letter_logits
        )

    def term_counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return what each loss term of a batch is a mean over: questions, or sequences (or tokens) with an answer."""
        counts: dict[str, Tensor] = {}
        for name, key in (("letters", "letter_labels"), ("binding", "binding_labels")):
            if batch.get(key) is not None:
                counts[name] = (batch[key] >= 0).sum()
        if (labels := batch.get("labels")) is not None:
            none = torch.zeros(len(labels), dtype=torch.bool, device=labels.device)
            words, spelt = (none if batch.get(key) is None else batch[key] for key in ("words_mask", "spelt_mask"))
            for name, rows in (("lm", ~words & ~spelt), ("words", words), ("spelt", spelt)):
                counts[name] = text_count(labels, rows, self.config.text_loss_reduction)
        return counts

    def answer_log_likelihoods(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, image_features: Tensor | None = None
    ) -> Tensor:
        """Return the mean log-likelihood [B] per token of the answer that each sequence ends with.

        Args:
            input_ids (`Tensor`): [B, T] long, prompts with their answers.
            attention_mask (`Tensor`): [B, T]; 1 = valid.
            labels (`Tensor`): [B, T] long, the token itself where it belongs to the answer or its end, else -100.
            image_features (`Tensor`, *optional*): [M, tokens, D], see `forward`.
        """
        hidden = self._hidden(input_ids, attention_mask, image_features)
        rows, columns = (labels[:, 1:] != IGNORE_INDEX).nonzero(as_tuple=True)
        logits = self.backbone.lm_head(hidden[rows, columns]).float()
        found = -F.cross_entropy(logits, labels[rows, columns + 1], reduction="none")
        total = found.new_zeros(len(labels)).index_add(0, rows, found)
        return total / torch.bincount(rows, minlength=len(labels)).clamp(min=1)

    def _hidden(self, input_ids: Tensor, attention_mask: Tensor, image_features: Tensor | None) -> Tensor:
        return self.backbone.model.language_model(
            inputs_embeds=self.embed(input_ids, image_features), attention_mask=attention_mask, use_cache=False
        ).last_hidden_state

    def _letter_logits(
        self, hidden: Tensor, attention_mask: Tensor, positions: Tensor | None, letter_mask: Tensor | None
    ) -> Tensor:
        if positions is None:
            places = torch.arange(attention_mask.shape[1], device=attention_mask.device)
            positions = (attention_mask.long() * places).argmax(1)
        rows = torch.arange(len(hidden), device=hidden.device)
        tokens = self.backbone.lm_head(hidden[rows, positions]).float().log_softmax(-1)  # [B, V]
        letters = tokens[:, self.config.letter_token_ids]
        return letters if letter_mask is None else letters.masked_fill(~letter_mask, float("-inf"))

    def _text_losses(
        self, hidden: Tensor, labels: Tensor, words_mask: Tensor | None, spelt_mask: Tensor | None
    ) -> dict[str, Tensor]:
        rows, columns = (labels[:, 1:] != IGNORE_INDEX).nonzero(as_tuple=True)
        logits = self.backbone.lm_head(hidden[rows, columns])  # the state before the predicted token
        targets = labels[rows, columns + 1]
        none = torch.zeros_like(rows, dtype=torch.bool)
        in_words, spelt = (none if mask is None else mask[rows] for mask in (words_mask, spelt_mask))
        terms = {}
        for name, chosen in (("lm", ~in_words & ~spelt), ("words", in_words), ("spelt", spelt)):
            if chosen.any():
                terms[name] = sequence_cross_entropy(
                    logits[chosen], targets[chosen], rows[chosen], len(labels), self.config.text_loss_reduction
                )
        return terms


AutoModel.register(InternVLVideoQAConfig, InternVLForVideoQA, exist_ok=True)

"""What is pooled of a prompt, how it is joined, and the head that picks robots from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hfvla.models.ember_vlm.configuration_ember_vlm import EmberVLMConfig
from hfvla.nn.ngrams import NgramEmbedding
from hfvla.nn.noise import RowGenerator

__all__ = ["PromptFusion", "PromptStates", "SelectionHead"]


@dataclass
class PromptStates:
    """What the selection head reads of B prompts; `EmberVLMForRobotSelection.read_prompts` makes it.

    Args:
        pooled: [B, 3, D] means of the text's hidden states, of its words and of its picture's tokens.
        pictures: [B] bool; True = the prompt has a picture.
        hidden: [B, T, D] last hidden states; None where pooled states were kept by the feature cache.
        features: [N, tokens, D] projected pictures, or None.
    """

    pooled: Tensor
    pictures: Tensor
    hidden: Tensor | None = None
    features: Tensor | None = None

    @classmethod
    def kept(cls, pooled: Tensor | None, pictures: Tensor | None, dtype: torch.dtype) -> PromptStates:
        """Return states that the feature cache kept.

        Raises:
            ValueError: one of the two is missing.
        """
        if pooled is None or pictures is None:
            raise ValueError("forward takes input_ids, or else prompt_states and prompt_pictures together")
        return cls(pooled.to(dtype), pictures.bool())

    def captioned(self, text_kind: Tensor | None) -> Tensor | None:
        """Return the projected pictures that captions go with; `text_kind` [B] names the captions by 0."""
        if self.features is None or text_kind is None:
            return self.features
        return self.features[text_kind[self.pictures] == 0]

    @property
    def states(self) -> Tensor:
        """`hidden`, where a loss needs it.

        Raises:
            ValueError: the language model was not run.
        """
        if self.hidden is None:
            raise ValueError("a loss of texts needs input_ids: the cut 'prompt_states' serves the selection alone")
        return self.hidden


class SelectionHead(nn.Module):
    """Three-layer classifier of the fused prompt vector: D -> D -> hidden -> robots."""

    def __init__(self, config: EmberVLMConfig) -> None:
        super().__init__()
        width, hidden = config.text_config.hidden_size, config.selection_hidden_size
        self.layers = nn.Sequential(
            nn.Linear(width, width),
            nn.GELU(),
            nn.Dropout(config.selection_dropout),
            nn.Linear(width, hidden),
            nn.GELU(),
            nn.Linear(hidden, config.num_robots),
        )

    def forward(self, fused: Tensor) -> Tensor:
        """Map [B, D] to logits [B, R]."""
        return self.layers(fused)


class PromptFusion(nn.Module):
    """Joins what a prompt's text, words and image say; a learned vector stands for "no image".

    Words and image come from before the language model: short paths, on which a rare word counts at once and a vision
    tower gets its gradient. The text's hidden states have seen the image. Hashed n-grams, where the config has them,
    reach words that training never showed whole.
    """

    def __init__(self, config: EmberVLMConfig) -> None:
        super().__init__()
        width, buckets = config.text_config.hidden_size, config.ngram_buckets
        narrow, apart = config.ngram_width or width, config.ngram_words_apart
        sums = (2 if apart else 1) if buckets else 0
        self.ngrams = NgramEmbedding(buckets, narrow, config.word_dropout, apart) if buckets else None
        self.no_image = nn.Parameter(torch.zeros(width))
        self.text_norm = nn.LayerNorm(width)
        self.word_norm = nn.LayerNorm(width)
        self.image_norm = nn.LayerNorm(width)
        self.ngram_norm = nn.LayerNorm(narrow) if buckets else None
        self.mix = nn.Linear(3 * width + sums * narrow, width)

    def forward(
        self,
        text: Tensor,
        words: Tensor,
        image: Tensor,
        has_image: Tensor,
        ngram_ids: Tensor | None = None,
        generator: RowGenerator | None = None,
    ) -> Tensor:
        """Fuse text, words and image, each [B, D]; the image counts where `has_image` [B] bool is True.

        Raises:
            ValueError: the config has n-grams and `ngram_ids` [B, K] is missing.
        """
        image = torch.where(has_image[:, None], image, self.no_image.to(image.dtype))
        parts = [self.text_norm(text), self.word_norm(words), self.image_norm(image)]
        if self.ngrams is not None and self.ngram_norm is not None:
            if ngram_ids is None:
                raise ValueError(
                    "config.ngram_buckets is set, so the model needs ngram_ids; take it from the processor"
                )
            parts.append(self.ngram_norm(self.ngrams(ngram_ids, generator)).flatten(1))
        return self.mix(torch.cat(parts, dim=-1))

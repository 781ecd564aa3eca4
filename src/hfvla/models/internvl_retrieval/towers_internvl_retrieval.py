"""The encoding half of `InternVLForRetrieval`: pixels and tokens to vectors of the shared space."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from hfvla.nn.pooling import last_valid, masked_mean

__all__ = ["ImageStates", "RetrievalTowers"]


class ImageStates(NamedTuple):
    """Images behind vision tower and projector, as far as the config needs them.

    Attributes:
        vision (`Tensor`): [B, 1 + patches, C] states of the vision tower.
        pooled (`Tensor`, *optional*): [B, C] mean of the patch tokens, for `image_from: vision`.
        tokens (`Tensor`, *optional*): [B, G, width] projected tokens, for `image_from: language` or `heads: grid`.
    """

    vision: Tensor
    pooled: Tensor | None
    tokens: Tensor | None


class RetrievalTowers:
    """Methods that encode; every row is encoded by itself, so that chunks of a batch give the batch."""

    config: Any
    backbone: Any
    image_adapter: Any
    text_adapter: Any
    grid_projection: Any

    def encode_pixels(self, pixel_values: Tensor) -> ImageStates:
        """Run vision tower and, where its output is used, the projector on [B, 3, H, W]."""
        if self.config.needs_tokens:
            found = self.backbone.get_image_features(pixel_values=pixel_values, return_dict=True)
            vision, tokens = found.last_hidden_state, found.pooler_output
        else:
            pixels = pixel_values.to(self.backbone.dtype)
            vision, tokens = self.backbone.vision_tower(pixel_values=pixels, return_dict=True).last_hidden_state, None
        pooled = vision[:, 1:].mean(1) if self.config.image_from == "vision" else None
        return ImageStates(vision, pooled, tokens)

    def image_features(self, pooled: Tensor | None, tokens: Tensor | None) -> dict[str, Tensor]:
        """Return `image_embed` [B, D] and, for heads over the grid, `grid` [B, G, D].

        Args:
            pooled: [B, C], see `ImageStates`.
            tokens: [B, G, width], see `ImageStates`.

        Raises:
            ValueError: what the config needs is not there.
        """
        needed = {"image_tokens": tokens if self.config.needs_tokens else 0}
        needed["image_pooled"] = pooled if self.config.image_from == "vision" else 0
        missing = [name for name, value in needed.items() if value is None]
        if missing:
            raise ValueError(
                f"{', '.join(missing)} missing: image_from {self.config.image_from}, heads {self.config.heads}"
            )
        states = self._read_images(tokens) if self.config.image_from == "language" else pooled
        dtype = self.image_adapter.up.weight.dtype
        found = {"image_embed": self.image_adapter(states.to(dtype))}
        if self.grid_projection is not None:
            found["grid"] = self.grid_projection(tokens.to(dtype))
        return found

    def _read_images(self, tokens: Tensor) -> Tensor:
        """Return the language model's last state [B, width] behind prompt and image tokens [B, G, width]."""
        embedding, prompt = self.backbone.get_input_embeddings(), self.config.image_prompt
        around = {
            name: embedding(torch.tensor(ids, dtype=torch.long, device=tokens.device)).expand(len(tokens), -1, -1)
            for name, ids in prompt.items()
        }
        sequence = torch.cat([around["before"], tokens.to(around["before"].dtype), around["after"]], dim=1)
        return self.backbone.language_model(inputs_embeds=sequence, use_cache=False).last_hidden_state[:, -1]

    def encode_text(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Run the language model on texts, padded on either side.

        Args:
            input_ids: [B, T].
            attention_mask: [B, T], 1 = valid. Default: all.

        Returns:
            `tuple`: hidden states [B, T, width], and the pooled text [B, width].
        """
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        # Rotary positions are relative, so that a left-padded text needs no positions of its own.
        hidden = self.backbone.language_model(
            input_ids=input_ids, attention_mask=mask, use_cache=False
        ).last_hidden_state
        pool = last_valid if self.config.text_pooling == "last" else masked_mean
        return hidden, pool(hidden, mask.bool()).to(self.text_adapter.up.weight.dtype)

    def encode(
        self,
        input_ids: Tensor | None,
        attention_mask: Tensor | None,
        pixel_values: Tensor | None,
        image_pooled: Tensor | None,
        image_tokens: Tensor | None,
        sentence_input_ids: Tensor | None,
        sentence_attention_mask: Tensor | None,
        box_mask: Tensor | None,
    ) -> dict[str, Tensor]:
        """Return the `features` of `InternVLForRetrieval.forward`; see there for the arguments.

        Raises:
            ValueError: pixels and features of the same images are both given, or neither side is.
        """
        cached = image_pooled is not None or image_tokens is not None
        if pixel_values is not None and cached:
            raise ValueError("pixel_values and image features are both given; a batch has one of them")
        if pixel_values is None and not cached and input_ids is None:
            raise ValueError("a batch needs images, texts, or both")
        features: dict[str, Tensor] = {}
        if pixel_values is not None:
            _, image_pooled, image_tokens = self.encode_pixels(pixel_values)
        if image_pooled is not None or image_tokens is not None:
            features |= self.image_features(image_pooled, image_tokens)
        if input_ids is not None:
            features["text_embed"] = self.text_adapter(self.encode_text(input_ids, attention_mask)[1])
        if sentence_input_ids is not None:
            features["sentence_embed"] = self._sentences(sentence_input_ids, sentence_attention_mask, box_mask)
        return features

    def _sentences(self, input_ids: Tensor, attention_mask: Tensor | None, box_mask: Tensor | None) -> Tensor:
        """Encode [B, S, T] to [B, S, D]; slots without a sentence are not encoded and give zeros."""
        used = box_mask.bool() if box_mask is not None else torch.ones_like(input_ids[..., 0], dtype=torch.bool)
        read = used.clone()
        read[0, 0] |= not used.any()  # one slot for nothing: other processes may have sentences, and all take part
        mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        vectors = self.text_adapter(self.encode_text(input_ids[read], mask[read])[1])  # [N, D]
        place = read.flatten().cumsum(0) * used.flatten()  # 0 = no sentence
        table = torch.cat([vectors[:1] * 0, vectors])
        return table[place].unflatten(0, used.shape)

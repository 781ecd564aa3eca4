"""InternVL for image-text retrieval: two towers into one space, and heads for matching, boxes and relations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput

from hfvla.losses.contrastive import FeatureQueue, bounded_temperature, cosine_logits
from hfvla.losses.weighing import weighted_sum
from hfvla.models.internvl_retrieval.configuration_internvl_retrieval import InternVLRetrievalConfig
from hfvla.models.internvl_retrieval.losses import RetrievalObjectives
from hfvla.nn import dual_tower  # the module: whoever imports it first comes here half way through
from hfvla.nn.adapter import Adapter, GatedLayerNorm, SkipProjection
from hfvla.nn.grid_attention import GridAttention
from hfvla.nn.loading import AlignedPreTrainedModel
from hfvla.nn.pooling import last_valid, masked_mean

__all__ = [
    "ImageStates",
    "InternVLForRetrieval",
    "InternVLRetrievalOutput",
    "InternVLRetrievalPreTrainedModel",
    "RetrievalTowers",
]


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
        keep = {} if self.config.two_towers else {"use_cache": False}
        hidden = self.backbone.language_model(input_ids=input_ids, attention_mask=mask, **keep).last_hidden_state
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
        text_pooled: Tensor | None = None,
        sentence_pooled: Tensor | None = None,
    ) -> dict[str, Tensor]:
        """Return the `features` of `InternVLForRetrieval.forward`; see there for the arguments.

        Raises:
            ValueError: inputs and features of the same images or texts are both given, or neither side is.
        """
        if input_ids is not None and text_pooled is not None:
            raise ValueError("input_ids and text features are both given; a batch has one of them")
        cached = image_pooled is not None or image_tokens is not None
        if pixel_values is not None and cached:
            raise ValueError("pixel_values and image features are both given; a batch has one of them")
        if pixel_values is None and not cached and input_ids is None and text_pooled is None:
            raise ValueError("a batch needs images, texts, or both")
        features: dict[str, Tensor] = {}
        if pixel_values is not None:
            _, image_pooled, image_tokens = self.encode_pixels(pixel_values)
        if image_pooled is not None or image_tokens is not None:
            features |= self.image_features(image_pooled, image_tokens)
        if input_ids is not None:
            text_pooled = self.encode_text(input_ids, attention_mask)[1]
        if text_pooled is not None:
            features["text_embed"] = self.text_adapter(text_pooled.to(self.text_adapter.up.weight.dtype))
        if sentence_pooled is not None:
            used = 1 if box_mask is None else box_mask[..., None]
            features["sentence_embed"] = (
                self.text_adapter(sentence_pooled.to(self.text_adapter.up.weight.dtype)) * used
            )
        elif sentence_input_ids is not None:
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


_LEAST_TEMPERATURE = 0.01  # as CLIP's logit scale of at most 100


@dataclass
class InternVLRetrievalOutput(ModelOutput):
    """Output of `InternVLForRetrieval`.

    Shapes: B rows, D width of the shared space, S sentence slots, G image tokens.

    Args:
        loss (`Tensor`, *optional*): [] weighted sum of `loss_terms` by `config.loss_weights`.
        loss_terms (`dict[str, Tensor]`, *optional*): unweighted scalars by name.
        logits_per_image (`Tensor`, *optional*): [B, B] cosine similarity of images (rows) and texts, over temperature.
        text_embeds (`Tensor`, *optional*): [B, D] of unit length.
        image_embeds (`Tensor`, *optional*): [B, D] of unit length.
        box_predictions (`Tensor`, *optional*): [B, S, 4] (centre x, centre y, width, height), a share of the image.
        spatial_logits (`Tensor`, *optional*): [B, S, S, 6] for ordered pairs (A, B): three for where B lies
            horizontally from A, three vertically.
        features (`dict[str, Tensor]`, *optional*): what the losses need of the towers, by row: image_embed [B, D],
            text_embed [B, D], grid [B, G, D], sentence_embed [B, S, D]. Not normalised.
    """

    loss: Tensor | None = None
    loss_terms: dict[str, Tensor] | None = None
    logits_per_image: Tensor | None = None
    text_embeds: Tensor | None = None
    image_embeds: Tensor | None = None
    box_predictions: Tensor | None = None
    spatial_logits: Tensor | None = None
    features: dict[str, Tensor] | None = None


class InternVLRetrievalPreTrainedModel(AlignedPreTrainedModel):
    """Base class: what transformers asks a model class to state."""

    config_class = InternVLRetrievalConfig
    base_model_prefix = "internvl_retrieval"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _no_split_modules = ("InternVLVisionLayer", "Qwen2DecoderLayer")
    _supports_sdpa = True
    _supports_flash_attn = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        super()._init_weights(module)
        if isinstance(module, SkipProjection | GatedLayerNorm):
            module.reset()
        elif isinstance(module, GridAttention):
            module.reset_positions()
        elif isinstance(module, InternVLForRetrieval):
            init.constant_(module.log_temperature, math.log(self.config.temperature_init))


class InternVLForRetrieval(RetrievalTowers, RetrievalObjectives, InternVLRetrievalPreTrainedModel):
    """Finds the image of a described place, and the description of an image; points at what a sentence names.

    transformers' InternVL is wrapped as it is, vision tower, projector and language model; or a timm tower and a text
    encoder that were trained apart (`hfvla.nn.dual_tower`). Heads and loss terms are in `losses.py`.
    """

    def __init__(self, config: InternVLRetrievalConfig) -> None:
        super().__init__(config)
        width, text_width = config.embed_dim, config.get_text_config().hidden_size
        pooled_width = text_width if config.image_from == "language" else config.vision_width
        own = config.backbone_config
        self.backbone = dual_tower.DualTower(own) if config.two_towers else AutoModel.from_config(own)
        if config.two_towers and not config.needs_tokens:  # nothing reads it; kept features are those of any seed
            self.backbone.multi_modal_projector = nn.Identity()
        self._no_split_modules = tuple(self.backbone._no_split_modules or self._no_split_modules)
        self.image_adapter = Adapter(pooled_width, width, **config.adapter)
        self.text_adapter = Adapter(text_width, width, **config.adapter)
        self.grid_projection: nn.Module | None = None
        self.grid_attention: nn.Module | None = None
        if config.heads == "grid":
            self.grid_projection = nn.Linear(text_width, width)
            self.grid_attention = GridAttention(width, config.grid_size)
        self.itm_head = _head(2 * width, width, 2, config.head_dropout)
        self.bbox_head = _head(2 * width, width, 4, config.head_dropout)
        self.spatial_head = _head(2 * width, width, 6, config.head_dropout)
        self.log_temperature = nn.Parameter(torch.zeros(()))
        self.queue = FeatureQueue(config.negatives["queue"], width) if config.negatives["queue"] else None
        self.post_init()

    @property
    def temperature(self) -> Tensor:
        """[] temperature of the contrastive loss, between 0.01 and 1."""
        return bounded_temperature(self.log_temperature, _LEAST_TEMPERATURE, 1.0)

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding of the language model."""
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding of the language model."""
        self.backbone.set_input_embeddings(value)

    def get_image_features(self, pixel_values: Tensor) -> BaseModelOutputWithPooling:
        """Encode images [B, 3, H, W] as transformers' CLIP does.

        Returns:
            `BaseModelOutputWithPooling`: `pooler_output` [B, D] in the shared space, not normalised;
            `last_hidden_state` of the vision tower, [B, 1 + patches, C].
        """
        states = self.encode_pixels(pixel_values)
        features = self.image_features(states.pooled, states.tokens)
        return BaseModelOutputWithPooling(last_hidden_state=states.vision, pooler_output=features["image_embed"])

    def get_text_features(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> BaseModelOutputWithPooling:
        """Encode texts [B, T] as transformers' CLIP does.

        Returns:
            `BaseModelOutputWithPooling`: `pooler_output` [B, D] in the shared space, not normalised;
            `last_hidden_state` of the language model, [B, T, width].
        """
        hidden, pooled = self.encode_text(input_ids, attention_mask)
        return BaseModelOutputWithPooling(last_hidden_state=hidden, pooler_output=self.text_adapter(pooled))

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_pooled: Tensor | None = None,
        image_tokens: Tensor | None = None,
        sentence_input_ids: Tensor | None = None,
        sentence_attention_mask: Tensor | None = None,
        boxes: Tensor | None = None,
        box_mask: Tensor | None = None,
        group_ids: Tensor | None = None,
        image_ids: Tensor | None = None,
        negative_seeds: Tensor | None = None,
        encode_only: bool = False,
        features: dict[str, Tensor] | None = None,
        text_pooled: Tensor | None = None,
        sentence_pooled: Tensor | None = None,
    ) -> InternVLRetrievalOutput:
        """Encode both sides and compute every loss term that the batch has something for.

        Shapes: B rows, T text tokens, S sentence slots, G image tokens, D width of the shared space.

        Args:
            input_ids (`Tensor`, *optional*): [B, T] texts; padding on either side.
            attention_mask (`Tensor`, *optional*): [B, T], 1 = valid. Default: all.
            pixel_values (`Tensor`, *optional*): [B, 3, H, W] normalised.
            image_pooled (`Tensor`, *optional*): [B, C] mean of the patch tokens, with or in place of pixel_values.
            image_tokens (`Tensor`, *optional*): [B, G, width] projected image tokens, in place of pixel_values.
            sentence_input_ids (`Tensor`, *optional*): [B, S, T'] sentences that name one object each.
            sentence_attention_mask (`Tensor`, *optional*): [B, S, T'].
            boxes (`Tensor`, *optional*): [B, S, 4] (centre x, centre y, width, height), a share of the image.
            box_mask (`Tensor`, *optional*): [B, S] bool; True = the slot has a sentence with a box.
            group_ids (`Tensor`, *optional*): [B] long, the building; texts and images of one building are no negatives
                of each other. Below 0: a group of its own.
            image_ids (`Tensor`, *optional*): [B] long, for the metrics; the losses do not look at it.
            negative_seeds (`Tensor`, *optional*): [B] long, what the hard negatives are drawn from. With them the
                batch has the term `itm`.
            encode_only (`bool`): return `features` alone; every row is encoded by itself.
            features (`dict[str, Tensor]`, *optional*): of an earlier `encode_only`, in place of pixels and tokens.
            text_pooled (`Tensor`, *optional*): [B, width] pooled texts of `encode_text`, in place of input_ids.
            sentence_pooled (`Tensor`, *optional*): [B, S, width] the same of sentences, in place of theirs.

        Returns:
            `InternVLRetrievalOutput`

        Raises:
            ValueError: inputs and features of the same images or texts are both given, or neither side is.
        """
        if features is None:
            features = self.encode(
                input_ids, attention_mask, pixel_values, image_pooled, image_tokens, sentence_input_ids,
                sentence_attention_mask, box_mask, text_pooled, sentence_pooled,
            )  # fmt: skip
        if encode_only:
            return InternVLRetrievalOutput(features=features)
        image, text = features.get("image_embed"), features.get("text_embed")
        output = InternVLRetrievalOutput(features=features)
        terms: dict[str, Tensor] = {}
        if image is not None:
            output.image_embeds = F.normalize(image.float(), dim=-1)
        if text is not None:
            output.text_embeds = F.normalize(text.float(), dim=-1)
        if output.image_embeds is not None and output.text_embeds is not None:
            output.logits_per_image = cosine_logits(output.image_embeds, output.text_embeds, self.temperature)
            if group_ids is not None:
                terms |= self.pair_terms(features, group_ids, negative_seeds)
        if image is not None and "sentence_embed" in features:
            output.box_predictions, output.spatial_logits = self.locate(features)
            if boxes is not None and box_mask is not None:
                terms |= self.place_terms(output.box_predictions, output.spatial_logits, boxes, box_mask)
        output.loss_terms, output.loss = terms or None, weighted_sum(terms, self.config.loss_weights)
        return output


def _head(inner: int, hidden: int, outputs: int, dropout: float) -> nn.Sequential:
    between = nn.Sequential(nn.ReLU(), nn.Dropout(dropout))  # one module: the layers keep their names with and without
    return nn.Sequential(nn.Linear(inner, hidden), between, nn.Linear(hidden, outputs))


AutoModel.register(InternVLRetrievalConfig, InternVLForRetrieval, exist_ok=True)

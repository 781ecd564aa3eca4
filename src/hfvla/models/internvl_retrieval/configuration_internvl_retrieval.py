"""Configuration of InternVL for image-text retrieval: a backbone, adapters into a shared space, and heads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Not `from transformers import ...`: this module is imported while transformers' Auto modules are still loading.
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.models.auto.configuration_auto import AutoConfig

from hfvla.backbones import dual_tower  # the module: whoever imports it first comes here half way through
from hfvla.backbones.shapes import BACKBONES, tiny_backbone
from hfvla.errors import CheckpointError, did_you_mean

__all__ = ["ADAPTER", "IMAGE_PROMPT", "NEGATIVES", "InternVLRetrievalConfig"]

ADAPTER: dict[str, Any] = {"dropout": 0.1, "skip": False, "layer_norm": False}
"""What an adapter has besides its two layers."""

NEGATIVES: dict[str, Any] = {"seed": 0, "gather": False, "queue": 0}
"""Seed of the hard negatives; draw them from all processes; entries of the feature queue (0 = none)."""

IMAGE_PROMPT: dict[str, tuple[int, ...]] = {"before": (), "after": ()}
"""Token ids around the image tokens, for `image_from: language`."""

_CHOICES = {"image_from": ("vision", "language"), "text_pooling": ("last", "mean"), "heads": ("pooled", "grid")}


class InternVLRetrievalConfig(PreTrainedConfig):
    r"""Configuration of `InternVLForRetrieval`; the defaults are InternVL3-1B.

    Args:
        backbone_config (`dict`, `InternVLConfig` or `DualTowerConfig`): vision tower, projector and language model;
            with `model_type: dual_tower`, a timm tower and a text encoder that were trained apart.
        embed_dim (`int`): D, width of the shared space.
        image_from (`str`): "vision", the mean of the patch tokens; or "language", the last token of the language model
            that has read the image behind a short prompt.
        text_pooling (`str`, *optional*): "last" valid token, or the "mean" of the valid ones. Default: "last", and
            "mean" for two towers.
        adapter (`dict`): {"dropout", "skip", "layer_norm"} of both adapters; a stage may switch the last two on.
        heads (`str`): "pooled", heads see the sum of pooled image and text; or "grid", the text attends to the image's
            tokens first, which keeps where things are.
        head_dropout (`float`): between the two layers of each head; the original has 0.1.
        sentence_slots (`int`): S, sentences with a box that an image may have.
        max_text_tokens (`int`): longer texts are cut there.
        temperature_init (`float`): of the contrastive loss; learned.
        negatives (`dict`): {"seed", "gather", "queue"}, see `NEGATIVES`.
        image_prompt (`dict`): {"before", "after"} token ids, see `IMAGE_PROMPT`.
        loss_weights (`dict[str, float]`): weight of each loss term in `output.loss`; a term not named is left out.
    """

    model_type = "internvl_retrieval"
    sub_configs_defaults = {  # noqa: RUF012
        "backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="internvl"),
    }
    sub_config_types = {"backbone_config": ("internvl", "dual_tower")}  # noqa: RUF012
    nested_keys = {"adapter": ADAPTER, "negatives": NEGATIVES, "image_prompt": IMAGE_PROMPT}  # noqa: RUF012
    keys_to_ignore_at_inference = ["loss_terms", "features", "logits_per_image"]  # noqa: RUF012

    backbone_config: Any = None
    embed_dim: int = 256
    image_from: str = "vision"
    text_pooling: str | None = None
    adapter: dict[str, Any] | None = None
    heads: str = "pooled"
    head_dropout: float = 0.0
    sentence_slots: int = 3
    max_text_tokens: int = 256
    temperature_init: float = 0.07
    negatives: dict[str, Any] | None = None
    image_prompt: dict[str, list[int] | tuple[int, ...]] | None = None
    loss_weights: dict[str, float] | None = None

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill the backbone and the settings; check what later code relies on."""
        if not isinstance(self.backbone_config, PreTrainedConfig):
            settings = dict(self.backbone_config or BACKBONES["OpenGVLab/InternVL3-1B-hf"])
            kind = settings.pop("model_type", "internvl")
            if kind not in self.sub_config_types["backbone_config"]:
                raise CheckpointError(
                    "no such backbone here", where="InternVLRetrievalConfig.backbone_config.model_type", got=kind,
                    expected=" or ".join(self.sub_config_types["backbone_config"]),
                )  # fmt: skip
            self.backbone_config = AutoConfig.for_model(kind, **settings)
        self.text_pooling = self.text_pooling or ("mean" if self.two_towers else "last")
        self.adapter = _filled("adapter", ADAPTER, self.adapter)
        self.negatives = _filled("negatives", NEGATIVES, self.negatives)
        prompt = _filled("image_prompt", IMAGE_PROMPT, self.image_prompt)
        self.image_prompt = {name: [int(token) for token in ids] for name, ids in prompt.items()}
        self.loss_weights = dict(self.loss_weights or {"itc": 1.0, "itm": 1.0, "bbox": 0.1, "spatial": 0.1})
        super().__post_init__(**kwargs)
        self._check()

    def _check(self) -> None:
        where = "InternVLRetrievalConfig"
        for name, known in _CHOICES.items():
            if getattr(self, name) not in known:
                raise CheckpointError(
                    f"no such {name}", where=where, got=getattr(self, name), expected=" or ".join(known),
                    fix=did_you_mean(str(getattr(self, name)), known),
                )  # fmt: skip
        if self.two_towers and self.image_from == "language":
            raise CheckpointError(
                "a text encoder reads no pictures", where=where, got="image_from: language", expected="vision"
            )
        if not self.two_towers:
            self._check_shuffle(where)
        if not 0.0 < self.temperature_init <= 1.0:
            raise CheckpointError("temperature_init", where=where, got=self.temperature_init, expected="in (0, 1]")
        if not 0.0 <= self.head_dropout < 1.0:
            raise CheckpointError("head_dropout is no share", where=where, got=self.head_dropout, expected="in [0, 1)")
        if self.sentence_slots < 1 or self.max_text_tokens < 2 or self.negatives["queue"] < 0:
            raise CheckpointError(
                "a size is too small",
                where=where,
                got=[self.sentence_slots, self.max_text_tokens, self.negatives["queue"]],
                expected="sentence_slots >= 1, max_text_tokens >= 2, negatives.queue >= 0",
            )

    def _check_shuffle(self, where: str) -> None:
        vision = self.backbone_config.vision_config
        cell = [round(int(patch) / self.backbone_config.downsample_ratio) for patch in vision.patch_size]
        if any(int(side) % unit for side, unit in zip(vision.image_size, cell, strict=True)):
            raise CheckpointError(
                "the image size is not a multiple of a pixel-shuffled cell",
                where=where,
                got=list(vision.image_size),
                expected=f"multiples of {cell[0]}",
            )
        rows, columns = self.grid_size
        if self.backbone_config.image_seq_length != rows * columns:
            raise CheckpointError(
                "image_seq_length is not what an image leaves after pixel shuffle",
                where=where,
                got=self.backbone_config.image_seq_length,
                expected=rows * columns,
            )

    @property
    def two_towers(self) -> bool:
        """Whether the backbone is a `DualTowerConfig`."""
        return isinstance(self.backbone_config, dual_tower.DualTowerConfig)

    @property
    def vision_width(self) -> int:
        """C, width of the vision tower's states."""
        own = self.backbone_config
        return own.vision_hidden_size if self.two_towers else own.vision_config.hidden_size

    @property
    def image_size(self) -> int:
        """Side of an image in pixels."""
        if self.two_towers:
            return int(self.backbone_config.image_size)
        return int(self.backbone_config.vision_config.image_size[0])

    @property
    def grid_size(self) -> tuple[int, int]:
        """(rows, columns) of image tokens after pixel shuffle."""
        if self.two_towers:
            return self.backbone_config.grid_size
        vision, ratio = self.backbone_config.vision_config, self.backbone_config.downsample_ratio
        sides = [int(vision.image_size[axis] // vision.patch_size[axis] * ratio) for axis in (0, 1)]
        return sides[0], sides[1]

    @property
    def needs_tokens(self) -> bool:
        """Whether the image's projected tokens are used, or its pooled patches alone."""
        return self.image_from == "language" or self.heads == "grid"

    def get_text_config(self, *args: Any, **kwargs: Any) -> PreTrainedConfig:
        """Return the language model's config."""
        return self.backbone_config.get_text_config(*args, **kwargs)

    @classmethod
    def tiny(cls, **overrides: Any) -> InternVLRetrievalConfig:
        """Return a config whose train step takes milliseconds on a CPU (hidden 32), with heads over the grid."""
        settings: dict[str, Any] = {
            "backbone_config": tiny_backbone(),
            "embed_dim": 32,
            "heads": "grid",
            "adapter": {"dropout": 0.0},
            "max_text_tokens": 96,
        }
        return cls(**{**settings, **overrides})


def _filled(name: str, defaults: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the defaults with the given values over them; an unknown key is an error."""
    unknown = [key for key in given or {} if key not in defaults]
    if unknown:
        raise CheckpointError(
            f"unknown key in {name}", where="InternVLRetrievalConfig", got=unknown[0],
            fix=did_you_mean(unknown[0], defaults),
        )  # fmt: skip
    return {**defaults, **(given or {})}


AutoConfig.register(InternVLRetrievalConfig.model_type, InternVLRetrievalConfig, exist_ok=True)

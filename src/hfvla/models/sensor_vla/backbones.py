"""The doors to image-text models of transformers: their processors, marks and special tokens, by model type."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hfvla.data.tokenizers import IMAGE_TOKENS
from hfvla.errors import CheckpointError, did_you_mean

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = [
    "KINDS",
    "BackboneKind",
    "backbone_kind",
    "new_image_processor",
    "processor_arguments",
    "timm_side",
    "tokens_per_picture",
    "wrap_processor",
]

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


@dataclass(frozen=True)
class BackboneKind:
    """How one type of image-text model is fed.

    Attributes:
        processor: class in transformers that puts text and pictures together.
        video_processor: class that it wants to have, though no video is read here; "" where it wants none.
        image_text: what stands for one picture in a prompt without chat template.
        tokens: special tokens of a learned tokenizer, by the name under which the processor looks for them.
        ids: keys of the backbone's config that hold the id of one of `tokens`.
        call: arguments of the processor for each call.
    """

    processor: str
    video_processor: str
    image_text: str
    tokens: Mapping[str, str]
    ids: Mapping[str, str]
    call: Mapping[str, Any] = field(default_factory=dict)


_QWEN_TOKENS = {
    "image_token": "<|image_pad|>",
    "video_token": "<|video_pad|>",
    "vision_start_token": "<|vision_start|>",
    "vision_end_token": "<|vision_end|>",
}
_QWEN: dict[str, Any] = {
    "image_text": "<|vision_start|><|image_pad|><|vision_end|>",
    "tokens": _QWEN_TOKENS,
    "ids": {f"{name}_id": name for name in _QWEN_TOKENS},
}

KINDS: dict[str, BackboneKind] = {
    "qwen2_5_vl": BackboneKind("Qwen2_5_VLProcessor", "Qwen2VLVideoProcessor", **_QWEN),
    "qwen3_vl": BackboneKind("Qwen3VLProcessor", "Qwen3VLVideoProcessor", **_QWEN),
    "smolvlm": BackboneKind(
        "SmolVLMProcessor",
        "SmolVLMVideoProcessor",
        image_text="<image>",
        tokens={
            "image_token": "<image>",
            "fake_image_token": "<fake_token_around_image>",
            "global_image_token": "<global-img>",
            "end_of_utterance_token": "<end_of_utterance>",
            "video_token": "<video>",
        },
        ids={"image_token_id": "image_token"},
        call={"do_image_splitting": False},
    ),
    "internvl": BackboneKind(
        "InternVLProcessor",
        "InternVLVideoProcessor",
        image_text="<IMG_CONTEXT>",
        tokens=IMAGE_TOKENS,
        ids={"image_token_id": "context_image_token"},
        call={"crop_to_patches": False},
    ),
    "fast_vlm": BackboneKind(
        "LlavaProcessor",
        "",
        image_text="<image>",
        tokens={"image_token": "<image>"},
        ids={"image_token_id": "image_token"},
    ),
}
"""By `model_type` of the backbone's config. Another model of transformers is one entry here."""


def backbone_kind(model_type: str) -> BackboneKind:
    """Return how a type of backbone is fed.

    Raises:
        CheckpointError: an unknown type.
    """
    if model_type not in KINDS:
        raise CheckpointError("no such kind of backbone", got=model_type, fix=did_you_mean(model_type, KINDS))
    return KINDS[model_type]


def tokens_per_picture(config: PreTrainedConfig) -> int:
    """Return the placeholders a picture takes, where the backbone has pictures of one size (all but Qwen's)."""
    vision = config.vision_config
    if config.model_type == "fast_vlm":
        return int(config.image_seq_length)
    if config.model_type == "internvl":
        side = int(vision.image_size[0] // vision.patch_size[0] * config.downsample_ratio)
        return side * side
    return (vision.image_size // vision.patch_size) ** 2 // config.scale_factor**2


def timm_side(config: PreTrainedConfig) -> int:
    """Return the side in pixels of the pictures that FastVLM's convolutional tower of timm takes."""
    return int(config.vision_config.pretrained_cfg["input_size"][-1])


def new_image_processor(config: PreTrainedConfig, most_pixels: int) -> Any:
    """Make the image processor of a backbone that starts from random weights.

    Args:
        config: the backbone's.
        most_pixels: largest picture, for backbones that take any size (Qwen); larger ones are scaled down.
    """
    import transformers

    vision = config.vision_config
    if config.model_type.startswith("qwen"):
        factor = vision.patch_size * vision.spatial_merge_size
        return transformers.Qwen2VLImageProcessor(
            patch_size=vision.patch_size,
            merge_size=vision.spatial_merge_size,
            temporal_patch_size=vision.temporal_patch_size,
            size={"shortest_edge": factor * factor, "longest_edge": most_pixels},
        )
    if config.model_type == "internvl":
        height, width = vision.image_size
        size = {"height": height, "width": width}
        return transformers.GotOcr2ImageProcessor(size=size, image_mean=_MEAN, image_std=_STD)
    if config.model_type == "fast_vlm":
        size = {"height": timm_side(config), "width": timm_side(config)}
        return transformers.SiglipImageProcessor(size=size, image_mean=_MEAN, image_std=_STD)
    edge = {"longest_edge": vision.image_size}
    return transformers.SmolVLMImageProcessor(do_image_splitting=False, size=edge, max_image_size=edge)


def wrap_processor(
    model_type: str,
    image_processor: BaseImageProcessor,
    tokenizer: PreTrainedTokenizerBase,
    arguments: Mapping[str, Any],
    chat_template: str | None,
) -> Any:
    """Make the backbone's own processor from its parts.

    Args:
        model_type: of the backbone.
        image_processor: its image processor.
        tokenizer: its tokenizer.
        arguments: further arguments of the class, e.g. the placeholders a picture takes.
        chat_template: of the checkpoint, if any.
    """
    import transformers

    kind = backbone_kind(model_type)
    parts = [image_processor, tokenizer]
    if kind.video_processor:
        parts.append(getattr(transformers, kind.video_processor)())
    try:
        return getattr(transformers, kind.processor)(*parts, chat_template=chat_template, **arguments)
    except ImportError as error:  # SmolVLM wants num2words
        raise CheckpointError(
            f"the processor of '{model_type}' cannot be made", got=str(error), fix="pip install 'hfvla[actions]'"
        ) from error


def processor_arguments(config: PreTrainedConfig) -> dict[str, Any]:
    """Return what the backbone's processor must know of its config."""
    if config.model_type == "internvl":
        return {"image_seq_length": tokens_per_picture(config)}
    if config.model_type == "smolvlm":
        return {"image_seq_len": tokens_per_picture(config)}
    if config.model_type == "fast_vlm":  # its processor counts cells: as many to a side as the tower's map has
        cells = math.isqrt(tokens_per_picture(config))
        return {"patch_size": timm_side(config) // cells, "vision_feature_select_strategy": "full"}
    return {}

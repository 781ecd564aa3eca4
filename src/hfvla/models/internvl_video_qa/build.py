"""What `FAMILY` names: build from a recipe, features to cache, quick metrics, one prediction, example rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from hfvla.backbones.options import (
    BackboneOptions,
    backbone_options,
    backbone_settings,
    learned_backbone,
    loaded_backbone,
)
from hfvla.family import CutContext
from hfvla.models.internvl_video_qa.configuration_internvl_video_qa import InternVLVideoQAConfig

__all__ = [
    "augments_visual_tokens",
    "build_config",
    "compute_metrics",
    "encode_visual_tokens",
    "fake_rows",
    "initialise",
    "prepare_visual_tokens",
]

_POSITION_STD = 0.5  # beside patch embeddings of about as much, at the initializer_range of the tiny recipes


def build_config(model_recipe: Mapping[str, Any]) -> InternVLVideoQAConfig:
    """Return the config a recipe's `model` section asks for, without weights (for plans).

    The shapes of the hub's InternVL3 checkpoints are known; those of another backbone are read from its config.

    Args:
        model_recipe: {"config": {...}, "options": {...}}.
    """
    options: BackboneOptions = backbone_options(model_recipe)
    settings = dict(model_recipe.get("config") or {})
    settings["backbone_config"] = backbone_settings(options, settings)
    return InternVLVideoQAConfig(**settings)


def initialise(model_recipe: Mapping[str, Any], train_rows: Iterable[Mapping[str, Any]], seed: int) -> tuple[Any, Any]:
    """Build model and processor for a run that starts from a backbone, or from nothing.

    Args:
        model_recipe: {"config": {...}, "options": {...}}.
        train_rows: training rows; without a backbone, the tokenizer is learned on their text.
        seed: of the random weights.

    Returns:
        `tuple`: (`InternVLForVideoQA`, `InternVLVideoQAProcessor`).
    """
    from transformers import set_seed

    from hfvla.models.internvl_video_qa.modeling_internvl_video_qa import InternVLForVideoQA

    options: BackboneOptions = backbone_options(model_recipe)
    set_seed(seed)
    if options.backbone is not None:
        return _from_backbone(options, dict(model_recipe.get("config") or {}))
    config = build_config(model_recipe)
    processor = _new_processor(options, config, train_rows)
    tokenizer, ids = processor.tokenizer, processor.special_ids()
    backbone = learned_backbone(config.backbone_config, tokenizer, ids.pop("image_token_id"))
    model = InternVLForVideoQA(InternVLVideoQAConfig(**{**config.to_dict(), **ids, "backbone_config": backbone}))
    _draw_positions(model)
    return model, processor


def _draw_positions(model: Any) -> None:
    """Draw the tower's position embeddings: transformers starts them at zero, so that every patch is at one place."""
    import torch

    for name, parameter in model.backbone.model.vision_tower.named_parameters():
        if name.endswith("position_embeddings"):
            torch.nn.init.normal_(parameter, std=_POSITION_STD)


def _from_backbone(options: BackboneOptions, settings: dict[str, Any]) -> tuple[Any, Any]:
    """Load a backbone's weights and processor, and put this family's model and processor around them."""
    import torch
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from hfvla.models.internvl_video_qa.modeling_internvl_video_qa import InternVLForVideoQA
    from hfvla.models.internvl_video_qa.processing_internvl_video_qa import InternVLVideoQAProcessor

    own = loaded_backbone(options)
    source = AutoProcessor.from_pretrained(options.backbone, revision=options.revision)
    config = InternVLVideoQAConfig(**{**settings, "backbone_config": {**own, "dtype": options.dtype}})
    processor = InternVLVideoQAProcessor(
        image_processor=source.image_processor,
        tokenizer=source.tokenizer,
        frames=config.frames,
        tiling=config.tiling,
        tokens_per_tile=config.tokens_per_tile,
        max_length=config.get_text_config().max_position_embeddings,
        chat_template=source.chat_template or source.tokenizer.chat_template,
    )
    config.letter_token_ids = processor.letter_token_ids
    with torch.device("meta"):  # the backbone is all there is; its weights come from the checkpoint
        model = InternVLForVideoQA(config)
    model.backbone = AutoModelForImageTextToText.from_pretrained(
        options.backbone, revision=options.revision, use_safetensors=True, dtype=getattr(torch, options.dtype)
    )
    return model, processor


def _new_processor(
    options: BackboneOptions, config: InternVLVideoQAConfig, train_rows: Iterable[Mapping[str, Any]]
) -> Any:
    from transformers import GotOcr2ImageProcessor

    from hfvla.models.internvl_video_qa.batches import build_tokenizer, training_texts
    from hfvla.models.internvl_video_qa.processing_internvl_video_qa import InternVLVideoQAProcessor

    side = config.tile_size
    return InternVLVideoQAProcessor(
        image_processor=GotOcr2ImageProcessor(
            size={"height": side, "width": side},
            image_mean=[0.485, 0.456, 0.406],
            image_std=[0.229, 0.224, 0.225],
        ),
        tokenizer=build_tokenizer(training_texts(train_rows), options.tokenizer_vocab_size),
        frames=config.frames,
        tiling=config.tiling,
        tokens_per_tile=config.tokens_per_tile,
        max_length=config.get_text_config().max_position_embeddings,
    )


def prepare_visual_tokens(context: CutContext, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the tiles of the rows' frames, for the feature cache; a row's seed decides about its support frames."""
    import torch

    from hfvla.models.internvl_video_qa.batches import draw_mode

    clips = []
    for row in rows:
        mode, _ = draw_mode(row, context.config.support_dropout)
        clips.append(context.processor.read_clip(row["video"], row["support_frames"], mode=mode, where=str(row["id"])))
    tiles = context.processor.tiles(clips)
    return {
        "pixel_values": tiles.pixel_values,
        "tile_index": tiles.index,
        "frame_tiles": torch.tensor([count for counts in tiles.counts for count in counts]),
        "frames": torch.tensor([len(counts) for counts in tiles.counts]),
    }


def encode_visual_tokens(model: Any, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the visual tokens [tiles, tokens, D] of each row, and the tiles of each of its frames."""
    features = model.get_image_features(batch["pixel_values"])[batch["tile_index"]]
    by_row = batch["frame_tiles"].split(batch["frames"].tolist())
    parts = features.split([int(tiles.sum()) for tiles in by_row])
    return [{"image_features": part, "frame_tiles": tiles} for part, tiles in zip(parts, by_row, strict=True)]


def augments_visual_tokens(context: CutContext) -> bool:
    """Tell whether training sees random choices of frames: with and without support frames."""
    return context.config.support_dropout > 0


def compute_metrics(prediction: Any, config: InternVLVideoQAConfig) -> dict[str, float]:
    """Return the accuracy of letter scores [N, 4] against letter_labels [N]; {} when no row has an answer."""
    scores = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    labels = prediction.label_ids[0] if isinstance(prediction.label_ids, tuple) else prediction.label_ids
    known = labels >= 0
    if not known.any():
        return {}
    return {"accuracy": float(np.mean(scores[known].argmax(1) == labels[known]))}


def fake_rows(n: int, seed: int = 0) -> Any:
    """Return `n` questions on small generated clips, four a clip."""
    from hfvla.worlds.road import RoadOptions, build_road

    return build_road(RoadOptions(size=n, seed=seed, image_size=64)).dataset

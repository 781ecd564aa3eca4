"""What `FAMILY` names: build from a recipe, features to cache, quick metrics, one prediction, example rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hfvla.backbones.wrapping import Wrapping, planned_settings
from hfvla.family import CutContext
from hfvla.models.internvl_video_qa.configuration_internvl_video_qa import MODEL_TYPES, InternVLVideoQAConfig

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import EvalPrediction

    from hfvla.models.internvl_video_qa.modeling_internvl_video_qa import InternVLForVideoQA

__all__ = [
    "augments_tower_maps",
    "augments_visual_tokens",
    "build_config",
    "compute_metrics",
    "encode_tower_maps",
    "encode_visual_tokens",
    "fake_rows",
    "initialise",
    "prepare_tower_maps",
    "prepare_visual_tokens",
]

_POSITION_STD = 0.5  # beside patch embeddings of about as much, at the initializer_range of the tiny recipes


def build_config(model_recipe: Mapping[str, Any]) -> InternVLVideoQAConfig:
    """Return the config a recipe's `model` section asks for, without weights; see `planned_settings`.

    Args:
        model_recipe: {"config": {...}, "options": {...}}.
    """
    return InternVLVideoQAConfig(**planned_settings(model_recipe, model_types=MODEL_TYPES))


def initialise(model_recipe: Mapping[str, Any], train_rows: Iterable[Mapping[str, Any]], seed: int) -> tuple[Any, Any]:
    """Build `InternVLForVideoQA` and its processor; see `Wrapping.initialise`."""
    from transformers import AutoModelForImageTextToText

    from hfvla.models.internvl_video_qa.batches import build_tokenizer, training_texts
    from hfvla.models.internvl_video_qa.modeling_internvl_video_qa import InternVLForVideoQA
    from hfvla.models.internvl_video_qa.processing_internvl_video_qa import InternVLVideoQAProcessor

    model, processor = Wrapping(
        InternVLVideoQAConfig,
        InternVLForVideoQA,
        InternVLVideoQAProcessor,
        loader=AutoModelForImageTextToText,
        processor_settings=_processor_settings,
        picture_side=lambda config: config.tile_size,
        learn_tokenizer=lambda rows, size: build_tokenizer(training_texts(rows), size),
        build_config=build_config,
        whole=True,
        model_types=MODEL_TYPES,
    ).initialise(model_recipe, train_rows, seed)
    if not (model_recipe.get("options") or {}).get("backbone"):
        _draw_positions(model)
    return model, processor


def _processor_settings(config: InternVLVideoQAConfig) -> dict[str, Any]:
    return {
        "frames": config.frames,
        "tiling": config.tiling,
        "prompts": config.prompts,
        "tokens_per_tile": config.tokens_per_tile,
        "max_length": config.get_text_config().max_position_embeddings,
    }


def _draw_positions(model: InternVLForVideoQA) -> None:
    """Draw the tower's position embeddings: transformers starts them at zero, so that every patch is at one place."""
    import torch

    for name, parameter in model.backbone.model.vision_tower.named_parameters():
        if name.endswith("position_embeddings"):
            torch.nn.init.normal_(parameter, std=_POSITION_STD)


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


def encode_visual_tokens(model: InternVLForVideoQA, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the visual tokens [tiles, tokens, D] of each row, and the tiles of each of its frames."""
    return _by_row("image_features", model.get_image_features(batch["pixel_values"]), batch)


def _by_row(name: str, features: Tensor, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    by_row = batch["frame_tiles"].split(batch["frames"].tolist())
    parts = features[batch["tile_index"]].split([int(tiles.sum()) for tiles in by_row])
    return [{name: part, "frame_tiles": tiles} for part, tiles in zip(parts, by_row, strict=True)]


def augments_visual_tokens(context: CutContext) -> bool:
    """Tell whether training sees random choices of frames: with and without support frames."""
    return context.config.support_dropout > 0


prepare_tower_maps, augments_tower_maps = prepare_visual_tokens, augments_visual_tokens


def encode_tower_maps(model: InternVLForVideoQA, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what the projector takes [tiles, tokens, C] of each row, and the tiles of each of its frames."""
    return _by_row("tower_features", model.get_tower_features(batch["pixel_values"]), batch)


def compute_metrics(prediction: EvalPrediction, config: InternVLVideoQAConfig) -> dict[str, float]:
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

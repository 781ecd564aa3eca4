"""A batch of the sizes that training data has, made from the config alone: for plans without data or tokenizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from hfvla.models.sensor_vla.backbones_sensor_vla import tokens_per_picture
from hfvla.models.sensor_vla.configuration_sensor_vla import SensorVLAConfig

__all__ = ["plan_batch", "plan_cached_batch"]

_CAMERA = (640, 360)  # width, height that are assumed where the backbone takes any size
_LARGE_PATCH = 14  # towers with smaller patches are of tests, whose pictures are small too
_SMALL_CAMERA = (32, 32)
_TEXT_TOKENS, _TEXT_TOKEN = 48, 20  # task, names of views, marks; a plain token of tiny vocabularies too


def plan_batch(config: SensorVLAConfig, batch_size: int, losses: Sequence[str]) -> dict[str, Any]:
    """Return a batch for `SensorVLAForActionPrediction.forward` with every view and a sensor in each sample.

    Args:
        config: the model's config.
        batch_size: samples.
        losses: loss terms of the stage.
    """
    backbone, views = config.backbone_config, len(config.views)
    pictures, tokens = _pictures(backbone, batch_size, views)
    ids = torch.full((batch_size, views * (tokens + 1) + _TEXT_TOKENS), _TEXT_TOKEN)
    for view in range(views):  # a view's name, then its picture
        start = view * (tokens + 1) + 1
        ids[:, start : start + tokens] = backbone.image_token_id
    mask = torch.ones_like(ids)
    mask[0, -1] = 0  # one row is shorter: a padded batch takes another attention kernel
    batch = {"input_ids": ids, "attention_mask": mask, **pictures}
    if backbone.model_type.startswith("qwen"):
        batch["mm_token_type_ids"] = (ids == backbone.image_token_id).long()
    if config.state_dim:
        batch["state"] = torch.zeros(batch_size, config.state_dim)
    if config.sensor is not None:
        points, channels = config.sensor["points"], config.sensor["channels"]
        batch["sensor"] = torch.zeros(batch_size, points, channels)
        batch["sensor_present"] = torch.ones(batch_size, dtype=torch.bool)
        batch["sensor_mask"] = torch.ones(batch_size, points, dtype=torch.bool)
    horizon, dim = config.action["horizon"], config.action["dim"]
    batch["actions"] = torch.zeros(batch_size, horizon, dim)
    batch["action_mask"] = torch.ones(batch_size, horizon, dtype=torch.bool)
    batch["confidence"] = torch.ones(batch_size)
    return batch


def _pictures(backbone: Any, batch_size: int, views: int) -> tuple[dict[str, Any], int]:
    """Return the picture tensors, and the placeholders of one picture."""
    vision, count = backbone.vision_config, batch_size * views
    if backbone.model_type.startswith("qwen"):
        factor = vision.patch_size * vision.spatial_merge_size
        width, height = _CAMERA if vision.patch_size >= _LARGE_PATCH else _SMALL_CAMERA
        columns, rows = (round(side / factor) * vision.spatial_merge_size for side in (width, height))
        values = vision.in_channels * vision.temporal_patch_size * vision.patch_size**2
        grid = torch.tensor([[1, rows, columns]]).repeat(count, 1)
        pixels = torch.empty(count * rows * columns, values, device="meta")
        return {"pixel_values": pixels, "image_grid_thw": grid}, rows * columns // vision.spatial_merge_size**2
    tokens = tokens_per_picture(backbone)
    if backbone.model_type == "internvl":
        return {"pixel_values": torch.empty(count, 3, *vision.image_size, device="meta")}, tokens
    side = vision.image_size
    shape = (batch_size, views, side, side)
    return {
        "pixel_values": torch.empty(batch_size, views, 3, side, side, device="meta"),
        "pixel_attention_mask": torch.ones(shape, dtype=torch.bool),
    }, tokens


def plan_cached_batch(model: Any, batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch of `plan_batch` as the feature cache leaves it: hidden states in place of pictures and text."""
    names = (
        "input_ids",
        "attention_mask",
        "pixel_values",
        "image_grid_thw",
        "mm_token_type_ids",
        "pixel_attention_mask",
    )
    given = {name: batch.pop(name) for name in names if name in batch}
    features, mask = model.encode(**given)
    return {**batch, "features": features, "feature_mask": mask}

"""What other programs can have of this family's models: the backbone alone, and what follows it as one graph.

    act        backbone tokens, state, sensor window, noise -> chunk of actions, normalised

Sensor encoder, fusion and expert run many times for one run of the backbone, which stays in torch (or with vLLM, see
`plain_backbone`). All denoising steps are in the graph; the noise is an input, so that a chunk can be repeated.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from hfvla.errors import CheckpointError
from hfvla.family import Answers, ExportPart, ExportPlan, PlainBackbone
from hfvla.models.sensor_vla.batches import SensorVLACollator
from hfvla.models.sensor_vla.modeling_sensor_vla import BackboneFeatures
from hfvla.nn.noise import GivenNoise

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.sensor_vla.modeling_sensor_vla import SensorVLAForActionPrediction

__all__ = ["export_plan", "plain_backbone"]

_NOISE_SEED = 17
_ROBOT = ("state", "sensor", "sensor_present", "sensor_mask")


def plain_backbone(model: SensorVLAForActionPrediction, processor: ProcessorMixin) -> PlainBackbone:
    """Return the image-text model of transformers that is wrapped as it is, with tokenizer and image processor."""
    return PlainBackbone("backbone", model.backbone, (processor.tokenizer, processor.image_processor), "backbone")


class _Act(nn.Module):
    """Fusion and expert around a model's own methods."""

    def __init__(self, model: SensorVLAForActionPrediction) -> None:
        super().__init__()
        self.model = model

    def forward(
        self,
        tokens: Tensor,
        token_mask: Tensor,
        state: Tensor | None = None,
        sensor: Tensor | None = None,
        sensor_present: Tensor | None = None,
        sensor_mask: Tensor | None = None,
        noise: Tensor | None = None,
    ) -> tuple[Tensor]:
        fused = self.model.fuse(BackboneFeatures(tokens, token_mask), state, sensor, sensor_present, sensor_mask)
        drawn = None if noise is None else GivenNoise(noise)
        return (self.model.expert.sample(fused.tokens, feature_mask=fused.mask, generator=drawn),)


def export_plan(model: SensorVLAForActionPrediction, processor: ProcessorMixin) -> ExportPlan:
    """Return the graph behind the backbone; rows are answered by chunks of actions from the same noise.

    Raises:
        CheckpointError: the expert draws noise at every step (DDPM).
    """
    config, rows = model.config, 2
    if config.expert.get("sampler") == "ddpm":
        raise CheckpointError(
            "an expert that draws noise at every step is no graph", got="ddpm", expected="the sampler ddim"
        )
    horizon, actions = config.action["horizon"], config.action["dim"]
    inputs = {
        "tokens": torch.randn(rows, 5, config.feature_width),
        "token_mask": torch.ones(rows, 5, dtype=torch.bool),
    }
    dynamic: dict[str, dict[int, str]] = {name: {0: "batch", 1: "tokens"} for name in inputs}
    if config.state_dim:
        inputs["state"] = torch.zeros(rows, config.state_dim)
    if model.sensor_encoder is not None:
        points = config.sensor["points"]
        inputs["sensor"] = torch.zeros(rows, points, config.sensor["channels"])
        inputs["sensor_present"] = torch.tensor([True, False])
        inputs["sensor_mask"] = torch.ones(rows, points, dtype=torch.bool)
    if config.expert["kind"] != "regression":
        inputs["noise"] = torch.randn(rows, horizon, actions)
    dynamic |= {name: {0: "batch"} for name in inputs if name not in dynamic}
    if config.feature_pooling == "mean":
        inputs["tokens"], inputs["token_mask"] = inputs["tokens"][:, :1], inputs["token_mask"][:, :1]
        dynamic |= {name: {0: "batch"} for name in ("tokens", "token_mask")}
    part = ExportPart("act", _Act(model).eval(), inputs, ("actions",), dynamic)
    return ExportPlan((part,), _Answers(model, processor, set(inputs)), {"actions": 1e-3})


class _Answers:
    """Answers rows with the first chunk; a decision is the way each channel goes over it."""

    def __init__(self, model: SensorVLAForActionPrediction, processor: ProcessorMixin, inputs: set[str]) -> None:
        self.model, self.inputs = model, inputs
        self.collator = SensorVLACollator(processor, model.config, training=False)
        shape = (1, model.config.action["horizon"], model.config.action["dim"])
        self.noise = torch.randn(shape, generator=torch.Generator().manual_seed(_NOISE_SEED))

    def __call__(self, run: Any, rows: Sequence[Mapping[str, Any]]) -> Answers:
        chunks, errors = [], []
        for row in rows:
            batch = self.collator([row])
            given = {name: batch.get(name) for name in self.inputs}
            seen = {k: v for k, v in batch.items() if k not in (*_ROBOT, "actions", "action_mask", "confidence")}
            with torch.no_grad():
                features = self.model.encode(**seen)
            given |= {"tokens": features.tokens.float(), "token_mask": features.mask}
            given |= {"noise": self.noise} if "noise" in self.inputs else {}
            chunk = np.asarray(run("act", given)["actions"], dtype=np.float64)[0]
            valid = batch["action_mask"][0].numpy()
            chunks.append(chunk)
            errors.append(float(np.square(chunk - batch["actions"][0].numpy())[valid].mean()))
        decisions = [tuple(bool(way) for way in chunk.mean(0) > 0) for chunk in chunks]
        return Answers({"actions": chunks}, decisions, {"action_mse": errors})

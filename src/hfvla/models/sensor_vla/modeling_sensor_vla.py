"""A backbone that sees and reads, a sensor encoder, the robot's state, and an action expert that reads them all."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor, nn
from transformers import AutoModel
from transformers.utils import ModelOutput

from hfvla.errors import CheckpointError
from hfvla.losses.action import action_weights, weighted_mean
from hfvla.losses.weighing import weighted_sum
from hfvla.models.sensor_vla.acting import ActionInferenceMixin
from hfvla.models.sensor_vla.configuration_sensor_vla import SensorVLAConfig
from hfvla.nn.action_experts import RegressionExpert, build_action_expert
from hfvla.nn.action_experts.decoder import ActionDenoiser
from hfvla.nn.fusion import FusedFeatures, Fusion, FusionKind
from hfvla.nn.loading import AlignedPreTrainedModel
from hfvla.nn.noise import RowGenerator
from hfvla.nn.pooling import masked_mean
from hfvla.nn.sensor_encoder import SensorEncoder
from hfvla.nn.transformer import fill_masked

__all__ = ["BackboneFeatures", "SensorVLAForActionPrediction", "SensorVLAOutput", "SensorVLAPreTrainedModel"]

_EVALUATION_SEED = 20_240_917  # of noise outside training: two evaluations of the same weights are equal


@dataclass
class SensorVLAOutput(ModelOutput):
    """Output of `SensorVLAForActionPrediction`.

    Shapes: B samples, H horizon steps, A action channels.

    Args:
        loss (`Tensor`, *optional*): [] weighted sum of `loss_terms` by `config.loss_weights`.
        loss_terms (`dict[str, Tensor]`, *optional*): unweighted scalars by name.
        predicted_actions (`Tensor`, *optional*): [B, H, A] normalised; outside training only.
    """

    loss: Tensor | None = None
    loss_terms: dict[str, Tensor] | None = None
    predicted_actions: Tensor | None = None


class BackboneFeatures(NamedTuple):
    """What the backbone gives for a batch.

    Attributes:
        tokens (`Tensor`): [B, N, D]; 0 where masked.
        mask (`Tensor`): [B, N] bool; True = valid.
    """

    tokens: Tensor
    mask: Tensor


class StateEncoder(nn.Module):
    """The robot's state as one token.

    Args:
        state_dim (`int`): S.
        width (`int`): D of the token.
    """

    def __init__(self, state_dim: int, width: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(state_dim, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, state: Tensor) -> Tensor:
        """Map [B, S], normalised, to [B, 1, D]."""
        return self.layers(state.to(self.layers[0].weight.dtype))[:, None]


class SensorVLAPreTrainedModel(AlignedPreTrainedModel):
    """Base class: what transformers asks a model class to state."""

    config_class = SensorVLAConfig
    base_model_prefix = "sensor_vla"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = False
    _supports_sdpa = True
    _supports_flash_attn = True

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise a module of ours as torch does; the backbone initialises its own."""
        if isinstance(module, SensorEncoder):
            module.reset_missing()
        elif isinstance(module, Fusion):
            module.reset_kinds()
        elif isinstance(module, ActionDenoiser):
            module.reset_positions()
        elif isinstance(module, RegressionExpert):
            module.reset_queries()
        elif isinstance(module, nn.Linear | nn.Conv1d | nn.LayerNorm | nn.GroupNorm):
            module.reset_parameters()

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load as `AlignedPreTrainedModel.from_pretrained`; checkpoints that do not name their float32 parts too.

        transformers loads such a checkpoint in one type, and a bfloat16 backbone would take twice its memory.
        """
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        if model.config.backbone_dtype and not hasattr(model.config, "float32_parts") and "dtype" not in kwargs:
            for parameter in model.backbone.parameters():  # not the buffers: angles of positions stay float32
                parameter.data = parameter.data.to(getattr(torch, model.config.backbone_dtype))
        return loaded


class SensorVLAForActionPrediction(ActionInferenceMixin, SensorVLAPreTrainedModel):
    """Predicts the next actions of a robot from its cameras, a sensor's last moments, its state and a task in words.

    The backbone is an image-text model of transformers, wrapped as it is; its tokens, the state's token and the
    sensor's go through the fusion to the action expert. A sample may lack the sensor or any view.
    """

    def __init__(self, config: SensorVLAConfig) -> None:
        super().__init__(config)
        width = config.feature_width
        self.backbone = AutoModel.from_config(config.backbone_config)
        self.state_encoder = StateEncoder(config.state_dim, width) if config.state_dim else None
        self.sensor_encoder = None
        settings = dict(config.sensor_encoder)
        sensor_width = settings.pop("width")
        kind = config.fusion if config.sensor is not None else "none"
        if config.sensor is not None and kind != "none":
            self.sensor_encoder = SensorEncoder(config.sensor["channels"], sensor_width, **settings)
            tokens = self.sensor_encoder.token_count(config.sensor["points"])
            if kind == "cross_attention" and tokens < 2:
                raise CheckpointError(
                    "cross_attention over one sensor token ignores its query",
                    where="SensorVLAConfig",
                    got=f"{config.sensor['points']} points and {len(settings['conv_widths'])} convolutions",
                    fix="Give a longer window or fewer convolutions, or use the fusion 'gated'.",
                )
        self.fusion = Fusion(cast(FusionKind, kind), width, sensor_width, heads=_heads(width))
        expert = dict(config.expert)
        self.expert = build_action_expert(
            expert.pop("kind"),
            feature_width=width,
            action_dim=config.action["dim"],
            horizon=config.action["horizon"],
            **expert,
        )
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding of the language model."""
        return self.backbone.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding of the language model."""
        self.backbone.set_input_embeddings(value)

    def encode(self, input_ids: Tensor, attention_mask: Tensor | None = None, **pictures: Any) -> BackboneFeatures:
        """Run the backbone.

        Args:
            input_ids (`Tensor`): [B, T] long, with the placeholders of the pictures.
            attention_mask (`Tensor`, *optional*): [B, T]; 1 = valid.
            **pictures: what the backbone's processor gives for pictures, e.g. pixel_values; see `forward`.

        Returns:
            `BackboneFeatures`: N = T, or 1 with the pooling "mean".
        """
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        given = {name: value for name, value in pictures.items() if value is not None}
        output = self.backbone(
            input_ids=input_ids, attention_mask=attention_mask, use_cache=False, return_dict=True, **given
        )
        mask = attention_mask.bool()
        hidden = fill_masked(output.last_hidden_state, mask)
        if self.config.feature_pooling == "mean":
            return BackboneFeatures(masked_mean(hidden, mask)[:, None], mask.any(1, keepdim=True))
        return BackboneFeatures(hidden, mask)

    def fuse(
        self,
        features: BackboneFeatures,
        state: Tensor | None = None,
        sensor: Tensor | None = None,
        sensor_present: Tensor | None = None,
        sensor_mask: Tensor | None = None,
        generator: RowGenerator | None = None,
    ) -> FusedFeatures:
        """Bring state and sensor to the backbone's features; arguments as in `forward`.

        The generator is of the sensor dropout; torch's own stream when not given.

        Raises:
            ValueError: state or sensor are missing from a model that has them.
        """
        tokens, mask = features
        if self.state_encoder is not None:
            if state is None:
                raise ValueError(f"the model reads a state of {self.config.state_dim} channels; the batch has none")
            tokens = torch.cat([tokens.to(self.fusion_dtype), self.state_encoder(state).to(self.fusion_dtype)], dim=1)
            mask = torch.cat([mask, mask.new_ones(len(mask), 1)], dim=1)
        if self.sensor_encoder is None:
            return self.fusion(tokens, mask)
        if sensor is None or sensor_present is None:
            raise ValueError("the model reads a sensor; say with `sensor_present` which samples have none")
        found = self.sensor_encoder(sensor, sensor_present, sensor_mask, generator)
        return self.fusion(tokens, mask, found.tokens, found.token_mask)

    @property
    def fusion_dtype(self) -> torch.dtype:
        """Type of the parts after the backbone, which may be loaded in another one."""
        return next(self.expert.parameters()).dtype

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_grid_thw: Tensor | None = None,
        mm_token_type_ids: Tensor | None = None,
        pixel_attention_mask: Tensor | None = None,
        features: Tensor | None = None,
        feature_mask: Tensor | None = None,
        state: Tensor | None = None,
        sensor: Tensor | None = None,
        sensor_present: Tensor | None = None,
        sensor_mask: Tensor | None = None,
        actions: Tensor | None = None,
        action_mask: Tensor | None = None,
        confidence: Tensor | None = None,
        noise_seeds: Tensor | None = None,
    ) -> SensorVLAOutput:
        """Compute the loss of the action expert, and outside training predict a chunk.

        Shapes: B samples, T text and picture tokens, N feature tokens, D width, S state channels, P points of the
        sensor window, C sensor channels, H horizon steps, A action channels.

        Args:
            input_ids (`Tensor`): [B, T] long.
            attention_mask (`Tensor`, *optional*): [B, T]; 1 = valid.
            pixel_values (`Tensor`, *optional*): as the backbone's processor gives them.
            image_grid_thw (`Tensor`, *optional*): Qwen's patches by picture.
            mm_token_type_ids (`Tensor`, *optional*): Qwen's kinds of token, [B, T].
            pixel_attention_mask (`Tensor`, *optional*): SmolVLM's valid pixels.
            features (`Tensor`, *optional*): [B, N, D] in place of all above, from the feature cache.
            feature_mask (`Tensor`, *optional*): [B, N] bool; True = valid.
            state (`Tensor`, *optional*): [B, S] normalised.
            sensor (`Tensor`, *optional*): [B, P, C] normalised; the last point is now.
            sensor_present (`Tensor`, *optional*): [B] bool; True = the sample has a sensor.
            sensor_mask (`Tensor`, *optional*): [B, P] bool; True = the point was measured.
            actions (`Tensor`, *optional*): [B, H, A] normalised targets. They enter the loss and nothing else.
            action_mask (`Tensor`, *optional*): [B, H] bool; True = valid. Default: all.
            confidence (`Tensor`, *optional*): [B] weight of each sample, 0 or more.
            noise_seeds (`Tensor`, *optional*): [B] long, what noise, times, prefix and sensor dropout of each sample
                are drawn from, whatever batch it is in. Default: torch's own stream in training, else the same noise
                each time.

        Returns:
            `SensorVLAOutput`

        Raises:
            ValueError: tokens and features are both given, or neither.
        """
        if (input_ids is None) == (features is None):
            raise ValueError("give input_ids (with their pictures) or features, one of them")
        if features is not None:
            known = torch.ones(features.shape[:2], dtype=torch.bool, device=features.device)
            encoded = BackboneFeatures(features, known if feature_mask is None else feature_mask)
        else:
            encoded = self.encode(
                input_ids,
                attention_mask,
                pixel_values=pixel_values,
                image_grid_thw=image_grid_thw,
                mm_token_type_ids=mm_token_type_ids,
                pixel_attention_mask=pixel_attention_mask,
            )
        rows = None if noise_seeds is None else RowGenerator(noise_seeds)
        fused = self.fuse(encoded, state, sensor, sensor_present, sensor_mask, rows)
        output = SensorVLAOutput()
        if actions is not None:
            mask = torch.ones_like(actions[..., 0], dtype=torch.bool) if action_mask is None else action_mask
            losses = self.expert.loss(
                fused.tokens, actions, mask, feature_mask=fused.mask, generator=rows or self._noise_generator()
            )
            weights = self._weights(actions, action_mask, confidence, sensor_present)
            output.loss_terms = {"action": weighted_mean(losses, weights)}
            output.loss = weighted_sum(output.loss_terms, self.config.loss_weights)
        if not self.training:
            output.predicted_actions = self.expert.sample(
                fused.tokens, feature_mask=fused.mask, generator=rows or self._noise_generator()
            )
        return output

    def term_counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor]:
        """Return what the loss term of a batch is a mean over: the weights of its samples."""
        if batch.get("actions") is None:
            return {}
        names = ("actions", "action_mask", "confidence", "sensor_present")
        return {"action": self._weights(*(batch.get(name) for name in names)).sum()}

    def _weights(
        self, actions: Tensor, action_mask: Tensor | None, confidence: Tensor | None, sensor_present: Tensor | None
    ) -> Tensor:
        mask = torch.ones_like(actions[..., 0], dtype=torch.bool) if action_mask is None else action_mask
        return action_weights(mask, confidence, sensor_present, self.config.sensor_loss_weight)

    def _noise_generator(self) -> torch.Generator | None:
        """Training draws from torch's own stream, which is saved for a resume; else the same noise each time."""
        return None if self.training else torch.Generator().manual_seed(_EVALUATION_SEED)


def _heads(width: int) -> int:
    """Heads of the fusion's cross-attention: 8 where the width allows it."""
    return next(heads for heads in (8, 4, 2, 1) if width % heads == 0)


AutoModel.register(SensorVLAConfig, SensorVLAForActionPrediction, exist_ok=True)

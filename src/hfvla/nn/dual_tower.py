"""A backbone of two towers that were never one model, with the methods that transformers' image-text models have."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel
from transformers import initialization as init
from transformers.modeling_outputs import BaseModelOutput, BaseModelOutputWithPooling

from hfvla.backbones.dual_tower import DualTowerConfig
from hfvla.nn.timm_tower import TimmTower

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["DualTower"]


class _Tower(TimmTower):
    """The tower as transformers' vision towers answer: the mean of the cells first, then the cells."""

    def forward(self, pixel_values: Tensor, return_dict: bool = True) -> BaseModelOutput:
        """Encode [B, 3, S, S] to `last_hidden_state` [B, 1 + G, C]."""
        cells = super().forward(pixel_values).flatten(2).transpose(1, 2)
        return BaseModelOutput(last_hidden_state=torch.cat([cells.mean(1, keepdim=True), cells], 1))


def _text_encoder(config: PreTrainedConfig) -> PreTrainedModel:
    """Return the encoder without the pooler of its pretraining, which nothing here reads or trains."""
    kind = AutoModel._model_mapping[type(config)]
    pooler = "add_pooling_layer" in inspect.signature(kind.__init__).parameters
    return AutoModel.from_config(config, **({"add_pooling_layer": False} if pooler else {}))


class DualTower(PreTrainedModel):
    """timm tower, projector and text encoder: what a retrieval model needs, from parts trained apart.

    Shapes: B pictures or texts, G cells of the feature map, C its channels, W width of the text encoder.
    """

    config_class = DualTowerConfig
    base_model_prefix = "dual_tower"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _supports_sdpa = True

    def __init__(self, config: DualTowerConfig) -> None:
        super().__init__(config)
        vision = config.vision_config
        self.vision_tower = _Tower(vision.architecture, vision.model_args, config.vision_hidden_size)
        self.multi_modal_projector = nn.Linear(config.vision_hidden_size, config.text_config.hidden_size)
        self.language_model = _text_encoder(config.text_config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module) -> None:
        """Initialise one module; convolutions keep their scale, or a frozen random tower would output zeros."""
        super()._init_weights(module)
        if isinstance(module, nn.Conv2d):
            init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def get_input_embeddings(self) -> nn.Module:
        """Return the token embedding of the text encoder."""
        return self.language_model.get_input_embeddings()

    def set_input_embeddings(self, value: nn.Module) -> None:
        """Replace the token embedding of the text encoder."""
        self.language_model.set_input_embeddings(value)

    def get_image_features(self, pixel_values: Tensor, return_dict: bool = True) -> BaseModelOutputWithPooling:
        """Encode pictures [B, 3, S, S].

        Returns:
            `BaseModelOutputWithPooling`: `last_hidden_state` [B, 1 + G, C], the mean first; `pooler_output` [B, G, W],
            the cells behind the projector.
        """
        states = self.vision_tower(pixel_values.to(self.dtype)).last_hidden_state
        return BaseModelOutputWithPooling(
            last_hidden_state=states, pooler_output=self.multi_modal_projector(states[:, 1:])
        )


AutoModel.register(DualTowerConfig, DualTower, exist_ok=True)

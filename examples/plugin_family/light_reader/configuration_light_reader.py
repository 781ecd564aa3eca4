"""Sizes and loss weights."""

from typing import Any

from transformers import AutoConfig, PreTrainedConfig


class LightReaderConfig(PreTrainedConfig):
    """A ViT, three lamps, and the weight of each loss term."""

    model_type = "light_reader"

    def __init__(self, vision: dict[str, Any] | None = None, loss_weights: dict[str, float] | None = None, **kwargs):
        self.vision = vision or {"image_size": 224, "patch_size": 16}
        self.loss_weights = loss_weights or {"lamp": 1.0}
        super().__init__(**kwargs)

    @classmethod
    def tiny(cls) -> "LightReaderConfig":
        """Random weights, a train step in milliseconds."""
        size = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        return cls(vision={"image_size": 24, "patch_size": 4, **size})


AutoConfig.register(LightReaderConfig.model_type, LightReaderConfig, exist_ok=True)

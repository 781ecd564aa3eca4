"""From pixels to the lamp that is on."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel, ViTConfig, ViTModel
from transformers.utils import ModelOutput

from light_reader.configuration_light_reader import LightReaderConfig


@dataclass
class LightReaderOutput(ModelOutput):
    """`loss` is the weighted sum of `loss_terms`; `logits` [B, 3]."""

    loss: Tensor | None = None
    loss_terms: dict[str, Tensor] | None = None
    logits: Tensor | None = None


class LightReader(PreTrainedModel):
    """A ViT and a linear head."""

    config_class = LightReaderConfig
    main_input_name = "pixel_values"

    def __init__(self, config: LightReaderConfig) -> None:
        super().__init__(config)
        self.vision = ViTModel(ViTConfig(**config.vision), add_pooling_layer=False)
        self.head = nn.Linear(self.vision.config.hidden_size, 3)
        self.post_init()

    def forward(self, pixel_values: Tensor, labels: Tensor | None = None) -> LightReaderOutput:
        """Read pictures [B, 3, S, S]; labels [B] say which lamp is on, from the top."""
        logits = self.head(self.vision(pixel_values).last_hidden_state.mean(1))  # [B, 3]
        if labels is None:
            return LightReaderOutput(logits=logits)
        terms = {"lamp": F.cross_entropy(logits.float(), labels)}
        loss = sum(self.config.loss_weights.get(name, 0.0) * term for name, term in terms.items())
        return LightReaderOutput(loss=loss, loss_terms=terms, logits=logits)


AutoModel.register(LightReaderConfig, LightReader, exist_ok=True)

"""The graphs of `hfvla export` in the model's place: they select and write by the model's own methods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hfvla.models.ember_vlm.answering import RobotInferenceMixin
from hfvla.models.ember_vlm.export import image_tokens
from hfvla.models.ember_vlm.modeling_ember_vlm import EmberVLMOutput
from hfvla.nn.graph_language import GraphLanguageModel

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["exported_model"]


class _ExportedEmberVLM(RobotInferenceMixin):
    """What `answering` and `serving` need of `EmberVLMForRobotSelection`."""

    device, can_chat = torch.device("cpu"), True

    def __init__(self, run: Any, config: PreTrainedConfig) -> None:
        self.run, self.config = run, config
        self.language_model = GraphLanguageModel(config.text_config, run, "decoder")

    def eval(self) -> _ExportedEmberVLM:
        return self

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pixel_values: Tensor | None = None,
        ngram_ids: Tensor | None = None,
    ) -> EmberVLMOutput:
        inputs = self.writing_inputs(input_ids, attention_mask, pixel_values)
        inputs |= {"ngram_ids": ngram_ids} if self.config.ngram_buckets else {}
        return EmberVLMOutput(selection_logits=torch.as_tensor(self.run("select", inputs)["selection_logits"]))

    def writing_inputs(
        self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor | None
    ) -> dict[str, Tensor]:
        shown = (input_ids == self.config.image_token_id).any(1)
        tokens = image_tokens(self.run, self.config, pixel_values, shown)
        return {"input_ids": input_ids, "attention_mask": attention_mask, "image_tokens": tokens}


def exported_model(run: Any, config: PreTrainedConfig) -> Any:
    """Return what answers in the model's place.

    Args:
        run: an engine with the parts `vision`, `select` and `decoder`.
        config: of the model.
    """
    return _ExportedEmberVLM(run, config)

"""A language model that is a graph, behind transformers' own `generate`: its sampling, streaming and ends are used."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DynamicCache, GenerationMixin, PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

__all__ = ["CACHE", "GraphLanguageModel", "past_shape"]

CACHE = "cache" if "cache" in CausalLMOutputWithPast.__dataclass_fields__ else "past_key_values"
"""What transformers calls keys and values that are kept; the new name came with 5.24, the old goes with 5.40."""


def past_shape(config: PreTrainedConfig, rows: int, length: int) -> tuple[int, int, int, int, int, int]:
    """Return [layers, 2, B, heads, P, D / heads] of the keys and values that a causal language model keeps.

    Args:
        config: of the language model.
        rows: B.
        length: P, tokens that are kept.
    """
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers, 2, rows, heads, length, width


class GraphLanguageModel(PreTrainedModel, GenerationMixin):
    """Writes with a graph that takes a prompt or the next token and a past, see `past_shape`.

    Shapes: B sequences, T tokens, P tokens of the past, V vocabulary.

    Args:
        config: of the language model.
        run: an engine (`hfvla.family.exporting.RunPart`).
        part: name of the graph: `input_ids` [B, T], `attention_mask` [B, P + T], `image_tokens` [B, tokens, D] and
            `past` to `logits` [B, V] of the next token and `present`, the past with these tokens.
    """

    config_class = PreTrainedConfig
    main_input_name = "input_ids"
    _supports_sdpa = True  # of the graph nobody asks how it attends; transformers asks

    def __init__(self, config: PreTrainedConfig, run: Callable[[str, Mapping[str, Any]], Any], part: str) -> None:
        super().__init__(copy.deepcopy(config))
        self.run, self.part = run, part
        self.place = nn.Parameter(torch.zeros(1), requires_grad=False)  # transformers asks where a model lies

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        image_tokens: Tensor | None = None,
        cache: Any = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        **_: Any,
    ) -> CausalLMOutputWithPast:
        """Return the logits [B, 1, V] of the next token, and the past.

        Raises:
            ValueError: there are no `image_tokens`; zeros where there is no picture.
        """
        if image_tokens is None:
            raise ValueError("the graph needs image_tokens; give zeros where there is no picture")
        given = past_key_values if cache is None else cache
        held = DynamicCache() if given is None else given
        kept = held.get_seq_length()
        if kept:
            past = torch.stack([torch.stack([layer.keys, layer.values]) for layer in held.layers])
        else:
            past = torch.zeros(past_shape(self.config, len(input_ids), 0))
        if attention_mask is None:
            attention_mask = input_ids.new_ones(len(input_ids), kept + input_ids.shape[1])
        found = self.run(self.part, {
            "input_ids": input_ids, "attention_mask": attention_mask, "image_tokens": image_tokens, "past": past,
        })  # fmt: skip
        present = torch.as_tensor(found["present"])
        for number in range(len(present)):
            held.update(present[number, 0, :, :, kept:], present[number, 1, :, :, kept:], number)
        return CausalLMOutputWithPast(logits=torch.as_tensor(found["logits"])[:, None], **{CACHE: held})

"""Loading weights so that results are bit-equal to before saving."""

from __future__ import annotations

from typing import Any

import torch
from transformers import PreTrainedModel

__all__ = ["AlignedPreTrainedModel", "realign"]

_ALIGNMENT_BYTES = 64
_TOKENS_AND_POSITIONS = (
    *("*.cls_token", "*.mask_token", "*.class_embedding"),
    *("*.position_embeddings", "*.position_embedding.weight", "*.pos_embed", "*.pos_embed.weight", "*.wpe.weight"),
)


def realign(model: torch.nn.Module) -> int:
    """Copy CPU tensors that do not start on a 64-byte boundary to fresh memory; return how many.

    safetensors maps weights straight from the file, at any offset. CPU kernels take another path for unaligned memory,
    and sums then differ in the last bit from the model that was saved.
    """
    moved = 0
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.device.type == "cpu" and tensor.data_ptr() % _ALIGNMENT_BYTES:
            tensor.data = tensor.data.clone()
            moved += 1
    return moved


class AlignedPreTrainedModel(PreTrainedModel):
    """`PreTrainedModel` whose `from_pretrained` gives bit-equal outputs to the model that was saved (CPU)."""

    def no_weight_decay(self) -> tuple[str, ...]:
        """Return patterns of learned tokens and position tables of backbones, which weight decay must leave alone."""
        return _TOKENS_AND_POSITIONS

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load as `PreTrainedModel.from_pretrained`, then realign."""
        loaded = super().from_pretrained(*args, **kwargs)
        realign(loaded[0] if isinstance(loaded, tuple) else loaded)
        return loaded

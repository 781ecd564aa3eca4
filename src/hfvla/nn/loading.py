"""Loading weights so that results are bit-equal to before saving."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

import torch
from transformers import PreTrainedModel

from hfvla.errors import CheckpointError
from hfvla.nn.mixed_precision import accept_mixed_types, cast_together, float32_parts, lowest_type

__all__ = ["TOKENS_AND_POSITIONS", "AlignedPreTrainedModel", "realign"]

_T = TypeVar("_T", bound=torch.Tensor)
_ALIGNMENT_BYTES = 64
_ADAPTER = ".lora_A."  # in the name of each adapter that peft puts into a model
TOKENS_AND_POSITIONS = (
    *("*.cls_token", "*.mask_token", "*.class_embedding"),
    *("*.position_embeddings", "*.position_embedding.weight", "*.pos_embed", "*.pos_embed.weight", "*.wpe.weight"),
)
"""Patterns of learned tokens and position tables of backbones, which weight decay must leave alone."""


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
    """`PreTrainedModel` whose `from_pretrained` gives bit-equal outputs to the model that was saved (CPU).

    Parts keep the types they have in memory: what was trained is float32, what was frozen may be of half precision.
    transformers alone would load all in one type. `config.float32_parts` names the modules and parameters that are
    float32 beside others of half precision; `save_pretrained` writes it.
    """

    @property
    def dtype(self) -> torch.dtype:
        """Type of the parts that `config.float32_parts` does not name: the lowest of the model."""
        return lowest_type(self)

    def post_init(self) -> None:
        """Finish as `PreTrainedModel.post_init`; then give the parts their types, and let them work together."""
        super().post_init()
        parts = getattr(self.config, "float32_parts", None) or ()
        cast_together(self, [name for name, _ in _within(self.named_parameters(), parts)])
        for _, buffer in _within(self.named_buffers(), parts):
            if buffer.is_floating_point():
                buffer.data = buffer.data.float()
        accept_mixed_types(self)

    def no_weight_decay(self) -> tuple[str, ...]:
        """Return patterns of learned tokens and position tables of backbones, which weight decay must leave alone."""
        return TOKENS_AND_POSITIONS

    @classmethod
    def from_pretrained(cls, *args: Any, **kwargs: Any) -> Any:
        """Load as `PreTrainedModel.from_pretrained`, then realign.

        Raises:
            CheckpointError: a part that was saved in float32 came back in less.
        """
        loaded = super().from_pretrained(*args, **kwargs)
        model = loaded[0] if isinstance(loaded, tuple) else loaded
        realign(model)
        parts = getattr(model.config, "float32_parts", None) or ()
        less = [name for name, value in _within(model.named_parameters(), parts) if value.dtype != torch.float32]
        if less:
            raise CheckpointError("parts that were saved in float32 were loaded in less", got=less[:4])
        return loaded

    def save_pretrained(self, *args: Any, **kwargs: Any) -> Any:
        """Save as `PreTrainedModel.save_pretrained`, and note in the config which parts are float32.

        Each weight goes by the name it has in memory: transformers would write a backbone's by the names of its first
        release, and hand-over compares names.

        Raises:
            CheckpointError: adapters stand in the weights; `from_pretrained` would find random ones in their place.
        """
        state = kwargs.get("state_dict") or self.state_dict()
        adapted = [name for name in state if _ADAPTER in name]
        if adapted:
            raise CheckpointError(
                "save_pretrained writes no adapters",
                where=type(self).__name__,
                got=f"{len(adapted)} of them, {adapted[0]} first",
                fix="Call save_model(folder) of the StagedTrainer that trained them: merged, and in adapter/ beside.",
            )
        types = {name: value.dtype for name, value in state.items() if value.is_floating_point()}
        self.config.float32_parts = float32_parts(types)
        return super().save_pretrained(*args, **{"save_original_format": False, **kwargs})


def _within(tensors: Iterable[tuple[str, _T]], parts: Sequence[str]) -> list[tuple[str, _T]]:
    """Return those of the named tensors that are, or lie in, the named parts."""
    prefixes = tuple(f"{part}." for part in parts)
    return [(name, tensor) for name, tensor in tensors if f"{name}.".startswith(prefixes)] if prefixes else []

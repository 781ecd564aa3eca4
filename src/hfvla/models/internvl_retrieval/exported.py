"""The graphs of `hfvla export` in the model's place: `search` makes pictures and texts vectors with them."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["exported_model"]


class _ExportedTowers:
    """What `search` and `serving` need of `InternVLForRetrieval`: vectors, of length 1 already."""

    device, can_chat = torch.device("cpu"), False

    def __init__(self, run: Any, config: PreTrainedConfig) -> None:
        self.run, self.config = run, config

    def eval(self) -> _ExportedTowers:
        return self

    def __call__(self, *, encode_only: bool, pixel_values: Tensor | None = None, **texts: Tensor) -> SimpleNamespace:
        if pixel_values is None:
            return SimpleNamespace(features={"text_embed": self._vectors("text", texts)})
        return SimpleNamespace(features={"image_embed": self._vectors("image", {"pixel_values": pixel_values})})

    def _vectors(self, part: str, inputs: dict[str, Tensor]) -> Tensor:
        return torch.as_tensor(self.run(part, inputs)["vector"])


def exported_model(run: Any, config: PreTrainedConfig) -> Any:
    """Return what answers in the model's place.

    Args:
        run: an engine with the parts `image` and `text`.
        config: of the model.
    """
    return _ExportedTowers(run, config)

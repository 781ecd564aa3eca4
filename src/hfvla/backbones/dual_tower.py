"""Config of a backbone of two towers that were never one model: timm's for pictures, a text encoder for words."""

from __future__ import annotations

from typing import Any

# Not `from transformers import ...`: this module is imported while transformers' Auto modules are still loading.
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.models.auto.configuration_auto import AutoConfig

from hfvla.errors import CheckpointError

__all__ = ["TEXT_ENCODERS", "DualTowerConfig"]

TEXT_ENCODERS = ("bert", "roberta", "xlm-roberta", "mpnet", "distilbert", "electra", "modernbert")
"""Text encoders by `model_type`: both-sided attention, special tokens around the text, padding on the right."""

_TOWER = {"architecture": "repvit_m0_9", "do_pooling": False}


class DualTowerConfig(PreTrainedConfig):
    """Configuration of `hfvla.nn.dual_tower.DualTower`.

    Args:
        vision_config (`dict` or `TimmWrapperConfig`): timm architecture and its `model_args`.
        text_config (`dict` or `PreTrainedConfig`): text encoder, one of `TEXT_ENCODERS` by its `model_type`.
        image_size (`int`): pixels, square.
        vision_hidden_size (`int`): channels of the tower's last feature map.
        vision_stride (`int`): pixels that a cell of the map spans.
    """

    model_type = "dual_tower"
    sub_configs_defaults = {  # noqa: RUF012
        "vision_config": SubConfigSpec(config_class=AutoConfig, model_type="timm_wrapper"),
        "text_config": SubConfigSpec(config_class=AutoConfig, model_type="bert"),
    }
    sub_config_types = {"vision_config": ("timm_wrapper",), "text_config": TEXT_ENCODERS}  # noqa: RUF012

    vision_config: Any = None
    text_config: Any = None
    image_size: int = 224
    vision_hidden_size: int = 384
    vision_stride: int = 32

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill the two configs; check what later code relies on."""
        if not isinstance(self.vision_config, PreTrainedConfig):
            settings = {**_TOWER, **(self.vision_config or {})}
            self.vision_config = AutoConfig.for_model("timm_wrapper", **_without_type(settings))
        if not isinstance(self.text_config, PreTrainedConfig):
            settings = dict(self.text_config or {})
            kind = settings.get("model_type", "bert")
            if kind not in TEXT_ENCODERS:
                raise CheckpointError(
                    "no such text encoder here",
                    where="DualTowerConfig.text_config.model_type",
                    got=kind,
                    expected=f"one of {', '.join(TEXT_ENCODERS)}",
                )
            self.text_config = AutoConfig.for_model(kind, **_without_type(settings))
        super().__post_init__(**kwargs)
        if self.image_size % self.vision_stride:
            raise CheckpointError(
                "image_size must be a multiple of vision_stride",
                where="DualTowerConfig",
                got=(self.image_size, self.vision_stride),
            )

    @property
    def grid_size(self) -> tuple[int, int]:
        """(rows, columns) of the feature map."""
        side = self.image_size // self.vision_stride
        return side, side


def _without_type(settings: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name != "model_type"}


AutoConfig.register(DualTowerConfig.model_type, DualTowerConfig, exist_ok=True)

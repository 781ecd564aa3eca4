"""Configuration of InternVL for multiple-choice questions on video: a backbone, frames, tiles and letters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

# Not `from transformers import ...`: this module is imported while transformers' Auto modules are still loading.
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.models.auto.configuration_auto import AutoConfig

from hfvla.data.choices import LETTERS
from hfvla.errors import CheckpointError, did_you_mean

__all__ = ["BACKBONES", "FRAMES", "TILING", "InternVLVideoQAConfig", "known_backbone"]

FRAMES: dict[str, float] = {"fewest": 4, "most": 6, "seconds_per_frame": 2.0, "margin_s": 0.5}
"""How many frames a clip is read at, and how far the window reaches beyond its support frames."""

TILING: dict[str, int] = {"most_tiles": 6, "token_budget": 3072}
"""Most tiles a frame is cut into (without the thumbnail), and the visual tokens that all frames may cost."""

_VISION = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    "attention_bias": True, "image_size": [448, 448], "patch_size": [14, 14], "layer_scale_init_value": 0.1,
}  # fmt: skip
_TEXT = {"model_type": "qwen2", "vocab_size": 151_674, "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6,
         "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0}, "eos_token_id": 151_645}  # fmt: skip


def _backbone(hidden: int, layers: int, heads: int, key_heads: int, inner: int) -> dict[str, Any]:
    text = {
        **_TEXT, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": key_heads, "intermediate_size": inner, "tie_word_embeddings": False,
    }  # fmt: skip
    return {"vision_config": dict(_VISION), "text_config": text, "image_token_id": 151_667,
            "tie_word_embeddings": False}  # fmt: skip


BACKBONES: dict[str, dict[str, Any]] = {
    "OpenGVLab/InternVL3-1B-hf": _backbone(896, 24, 14, 2, 4864),
    "OpenGVLab/InternVL3-2B-hf": _backbone(1536, 28, 12, 2, 8960),
    "OpenGVLab/InternVL3-8B-hf": _backbone(3584, 28, 28, 4, 18_944),
}
"""Shapes of the hub's checkpoints, so that a plan needs no download; a run reads them from the checkpoint."""


def known_backbone(name: str) -> dict[str, Any] | None:
    """Return the shapes of a hub checkpoint by its id, or None where they are not kept here."""
    return BACKBONES.get(name)


class InternVLVideoQAConfig(PreTrainedConfig):
    r"""Configuration of `InternVLForVideoQA`; the defaults are InternVL3-1B (0.94 B parameters).

    Args:
        backbone_config (`dict` or `InternVLConfig`): vision tower, projector and language model.
        frames (`dict`): {"fewest", "most", "seconds_per_frame", "margin_s"}, see `FRAMES`.
        tiling (`dict`): {"most_tiles", "token_budget"}, see `TILING`.
        support_dropout (`float`): share of training rows whose support frames are not used: tests have none.
        shuffle_choices (`bool`): put choices into a random order while training.
        letter_token_ids (`list[int]`): token of each letter where an answer begins.
        loss_weights (`dict[str, float]`): weight of each loss term in `output.loss`; a term not named is left out.
        calibration (`dict`): {"temperature"} of the letters' probabilities, fitted on validation data.
    """

    model_type = "internvl_video_qa"
    sub_configs_defaults = {  # noqa: RUF012
        "backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="internvl"),
    }
    keys_to_ignore_at_inference = ["loss_terms"]  # noqa: RUF012

    backbone_config: dict | PreTrainedConfig | None = None
    frames: dict[str, float] | None = None
    tiling: dict[str, int] | None = None
    support_dropout: float = 0.3
    shuffle_choices: bool = True
    letter_token_ids: list[int] | tuple[int, ...] = (32, 33, 34, 35)
    loss_weights: dict[str, float] | None = None
    calibration: dict[str, float] | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill the backbone and the settings; check what later code relies on."""
        if not isinstance(self.backbone_config, PreTrainedConfig):
            settings = dict(self.backbone_config or BACKBONES["OpenGVLab/InternVL3-1B-hf"])
            settings.pop("model_type", None)
            self.backbone_config = AutoConfig.for_model("internvl", **settings)
        self.tie_word_embeddings = self.backbone_config.tie_word_embeddings
        self.frames = _filled("frames", FRAMES, self.frames)
        self.tiling = _filled("tiling", TILING, self.tiling)
        self.letter_token_ids = list(self.letter_token_ids)
        self.loss_weights = dict(self.loss_weights or {"letters": 1.0})
        self.calibration = dict(self.calibration or {"temperature": 1.0})
        super().__post_init__(**kwargs)
        self._check()

    def _check(self) -> None:
        where, backbone = "InternVLVideoQAConfig", self.backbone_config
        if not 1 <= self.frames["fewest"] <= self.frames["most"]:
            raise CheckpointError("no such range of frames", where=where, got=self.frames, expected="fewest <= most")
        if self.tiling["token_budget"] < self.frames["most"] * self.tokens_per_tile:
            raise CheckpointError(
                "the token budget is below one tile a frame",
                where=where,
                got=self.tiling["token_budget"],
                expected=f">= {self.frames['most'] * self.tokens_per_tile}",
                fix="Raise tiling.token_budget or lower frames.most.",
            )
        if backbone.image_seq_length != self.tokens_per_tile:
            raise CheckpointError(
                "image_seq_length is not what a tile leaves after pixel shuffle",
                where=where,
                got=backbone.image_seq_length,
                expected=self.tokens_per_tile,
            )
        if len(set(self.letter_token_ids)) != len(LETTERS):
            raise CheckpointError(
                "each letter needs a token of its own", where=where, got=self.letter_token_ids, expected=LETTERS
            )
        if not 0.0 <= self.support_dropout <= 1.0:
            raise CheckpointError("support_dropout is no share", where=where, got=self.support_dropout)

    @property
    def tile_size(self) -> int:
        """Side of a tile in pixels."""
        return int(self.backbone_config.vision_config.image_size[0])

    @property
    def tokens_per_tile(self) -> int:
        """Placeholders that a tile takes in `input_ids`."""
        vision = self.backbone_config.vision_config
        side = int(vision.image_size[0] // vision.patch_size[0] * self.backbone_config.downsample_ratio)
        return side * side

    def get_text_config(self, *args: Any, **kwargs: Any) -> PreTrainedConfig:
        """Return the language model's config."""
        return self.backbone_config.get_text_config(*args, **kwargs)

    @classmethod
    def tiny(cls, **overrides: Any) -> InternVLVideoQAConfig:
        """Return a config whose train step takes milliseconds on a CPU (hidden 32)."""
        settings: dict[str, Any] = {
            "backbone_config": tiny_backbone(),
            "frames": {"fewest": 2, "most": 3},
            "tiling": {"most_tiles": 1, "token_budget": 64},
            "support_dropout": 0.0,
        }
        return cls(**{**settings, **overrides})


def tiny_backbone(**text: Any) -> dict[str, Any]:
    """Return the settings of a backbone for tests: 32-pixel tiles of 4 tokens, hidden 32, two layers each."""
    return {
        "vision_config": {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
            "image_size": [32, 32], "patch_size": [8, 8],
        },
        "text_config": {
            "model_type": "qwen2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "intermediate_size": 64, "vocab_size": 512, "max_position_embeddings": 512,
            "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": True, **text,
        },
        "image_token_id": 1, "image_seq_length": 4, "tie_word_embeddings": True,
    }  # fmt: skip


def _filled(name: str, defaults: Mapping[str, Any], given: Mapping[str, Any] | None) -> dict[str, Any]:
    """Return the defaults with the given values over them; an unknown key is an error."""
    unknown = [key for key in given or {} if key not in defaults]
    if unknown:
        raise CheckpointError(
            f"unknown key in {name}", where="InternVLVideoQAConfig", got=unknown[0],
            fix=did_you_mean(unknown[0], defaults),
        )  # fmt: skip
    return {**defaults, **(given or {})}


AutoConfig.register(InternVLVideoQAConfig.model_type, InternVLVideoQAConfig, exist_ok=True)

"""Configuration of a model for multiple-choice questions on video: a backbone, frames, tiles and letters."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

# Not `from transformers import ...`: this module is imported while transformers' Auto modules are still loading.
from transformers.configuration_utils import PreTrainedConfig, SubConfigSpec
from transformers.models.auto.configuration_auto import AutoConfig

from hfvla.backbones.shapes import BACKBONES, known_backbone, tiny_backbone
from hfvla.data.choices import LETTERS
from hfvla.errors import CheckpointError, did_you_mean
from hfvla.losses.reductions import check_text_reduction

__all__ = [
    "ANSWER_BY",
    "BACKBONES",
    "FRAMES",
    "MODEL_TYPES",
    "PROMPTS",
    "TILING",
    "InternVLVideoQAConfig",
    "known_backbone",
]

MODEL_TYPES = ("internvl", "fast_vlm")
"""Kinds of backbone: InternVL, or a convolutional tower of timm before any causal language model (FastVLM)."""

FRAMES: dict[str, float] = {"fewest": 4, "most": 6, "seconds_per_frame": 2.0, "margin_s": 0.5}
"""How many frames a clip is read at, and how far the window reaches beyond its support frames."""

ANSWER_BY = ("letters", "words")
"""How an answer is found: by the letters of the choices shown, or by each choice's own text, none of them shown."""

TILING: dict[str, int] = {"most_tiles": 6, "token_budget": 3072}
"""Most tiles a frame is cut into (without the thumbnail), and the visual tokens that all frames may cost."""


PROMPTS: dict[str, str] = {
    "instruction": "Answer with the letter of the correct choice.",
    "in_words": "Answer in a few words.",
    "frame": "Frame{number}:",
    "answer": "Answer:",
    "system": "",
}
"""What stands around a question: behind it where choices are listed, where none are, before each frame; with a chat
template what the system says (nothing when empty), without one what the answer follows."""


class InternVLVideoQAConfig(PreTrainedConfig):
    r"""Configuration of `InternVLForVideoQA`; the defaults are InternVL3-1B (0.94 B parameters).

    Args:
        backbone_config (`dict` or config): vision tower, projector and language model, one of `MODEL_TYPES`.
        frames (`dict`): {"fewest", "most", "seconds_per_frame", "margin_s"}, see `FRAMES`.
        tiling (`dict`): {"most_tiles", "token_budget"}, see `TILING`.
        tile_pool (`int`): p; the mean of p x p neighbouring tokens of a tile is one token of the language model.
        prompts (`dict`): {"instruction", "in_words", "frame", "answer", "system"}, see `PROMPTS`; the processor's too.
        support_dropout (`float`): share of training rows whose support frames are not used: tests have none.
        shuffle_choices (`bool`): put choices into a random order while training.
        answer_by (`str`): "letters": the likelihood of each choice's letter after the prompt that lists them; "words":
            the mean log-likelihood per token of each choice's text after a prompt that lists none, for models that
            were trained with the `words` term alone. See `ANSWER_BY`.
        text_loss_reduction (`str`): what losses on text are a mean over, "sample" or "token"; see `TEXT_REDUCTIONS`.
        letter_token_ids (`list[int]`): token of each letter where an answer begins.
        loss_weights (`dict[str, float]`): weight of each loss term in `output.loss`; a term not named is left out.
        calibration (`dict`): {"temperature"} of the choices' probabilities, fitted on validation data.
    """

    model_type = "internvl_video_qa"
    sub_configs_defaults = {  # noqa: RUF012
        "backbone_config": SubConfigSpec(config_class=AutoConfig, model_type="internvl"),
    }
    sub_config_types = {"backbone_config": MODEL_TYPES}  # noqa: RUF012
    nested_keys = {"frames": FRAMES, "tiling": TILING, "prompts": PROMPTS, "calibration": {"temperature": 1.0}}  # noqa: RUF012
    keys_to_ignore_at_inference = ["loss_terms"]  # noqa: RUF012

    backbone_config: Any = None
    frames: dict[str, float] | None = None
    tiling: dict[str, int] | None = None
    tile_pool: int = 1
    prompts: dict[str, str] | None = None
    support_dropout: float = 0.3
    shuffle_choices: bool = True
    answer_by: str = "letters"
    text_loss_reduction: str = "sample"
    letter_token_ids: list[int] | tuple[int, ...] = (32, 33, 34, 35)
    loss_weights: dict[str, float] | None = None
    calibration: dict[str, float] | None = None
    tie_word_embeddings: bool = True

    def __post_init__(self, **kwargs: Any) -> None:
        """Fill the backbone and the settings; check what later code relies on."""
        if not isinstance(self.backbone_config, PreTrainedConfig):
            settings = dict(self.backbone_config or BACKBONES["OpenGVLab/InternVL3-1B-hf"])
            kind = settings.pop("model_type", "internvl")
            if kind not in MODEL_TYPES:
                raise CheckpointError(
                    "no such backbone here",
                    where="InternVLVideoQAConfig.backbone_config.model_type",
                    got=kind,
                    expected=" or ".join(MODEL_TYPES),
                )
            self.backbone_config = AutoConfig.for_model(kind, **settings)
        self.tie_word_embeddings = self.backbone_config.tie_word_embeddings
        self.frames = _filled("frames", FRAMES, self.frames)
        self.tiling = _filled("tiling", TILING, self.tiling)
        self.prompts = _filled("prompts", PROMPTS, self.prompts)
        self.letter_token_ids = list(self.letter_token_ids)
        self.loss_weights = dict(self.loss_weights or {"letters": 1.0})
        self.calibration = dict(self.calibration or {"temperature": 1.0})
        super().__post_init__(**kwargs)
        self._check()

    def _check(self) -> None:
        where, backbone = "InternVLVideoQAConfig", self.backbone_config
        if not 1 <= self.frames["fewest"] <= self.frames["most"]:
            raise CheckpointError("no such range of frames", where=where, got=self.frames, expected="fewest <= most")
        side = math.isqrt(self._backbone_tokens)
        if (
            self.tile_pool < 1
            or side % self.tile_pool
            or (self.tile_pool > 1 and side * side != self._backbone_tokens)
        ):
            raise CheckpointError(
                "tile_pool does not divide a tile's grid of tokens",
                where=where,
                got=self.tile_pool,
                expected=f"a divisor of {side} ({self._backbone_tokens} tokens a tile)",
            )
        if self.tiling["token_budget"] < self.frames["most"] * self.tokens_per_tile:
            raise CheckpointError(
                "the token budget is below one tile a frame",
                where=where,
                got=self.tiling["token_budget"],
                expected=f">= {self.frames['most'] * self.tokens_per_tile}",
                fix="Raise tiling.token_budget or lower frames.most.",
            )
        if backbone.image_seq_length != self._backbone_tokens:
            raise CheckpointError(
                "image_seq_length is not what a tile leaves after pixel shuffle",
                where=where,
                got=backbone.image_seq_length,
                expected=self._backbone_tokens,
            )
        if len(set(self.letter_token_ids)) != len(LETTERS):
            raise CheckpointError(
                "each letter needs a token of its own", where=where, got=self.letter_token_ids, expected=LETTERS
            )
        if self.answer_by not in ANSWER_BY:
            raise CheckpointError(
                "no such way to answer", where=where, got=self.answer_by, fix=did_you_mean(self.answer_by, ANSWER_BY)
            )
        if any(not isinstance(text, str) for text in self.prompts.values()):
            raise CheckpointError("a prompt is no text", where=where, got=self.prompts)
        check_text_reduction(self.text_loss_reduction, where)
        if not 0.0 <= self.support_dropout <= 1.0:
            raise CheckpointError("support_dropout is no share", where=where, got=self.support_dropout)

    @property
    def tile_size(self) -> int:
        """Side of a tile in pixels."""
        vision = self.backbone_config.vision_config
        if self.backbone_config.model_type == "fast_vlm":
            return int(vision.pretrained_cfg["input_size"][-1])
        return int(vision.image_size[0])

    @property
    def tokens_per_tile(self) -> int:
        """Placeholders that a tile takes in `input_ids`."""
        return self._backbone_tokens // self.tile_pool**2

    @property
    def _backbone_tokens(self) -> int:
        """Tokens that the backbone makes of a tile."""
        vision = self.backbone_config.vision_config
        if self.backbone_config.model_type == "fast_vlm":
            return int(self.backbone_config.image_seq_length)
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

"""What `model.options` of a recipe may say."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

__all__ = ["ChatOptions", "DistillOptions", "DpoOptions", "Projector"]

Projector = Literal["mlp", "pixel_shuffle", "resampler"]


class DpoOptions(BaseModel):
    """How the `dpo` term is computed.

    Args:
        beta: how far the model may move from the one that the stage began with.
        label_smoothing: share of pairs that are believed to be the wrong way round.
    """

    model_config = ConfigDict(extra="forbid")
    beta: float = Field(0.1, gt=0)
    label_smoothing: float = Field(0.0, ge=0, lt=0.5)


class DistillOptions(BaseModel):
    """How the `distill` term is computed.

    Args:
        teacher: hub id or folder of a model with the same vocabulary; default: the model that the stage began with,
            so that the term holds the stage to what it already knew.
        temperature: of both distributions.
    """

    model_config = ConfigDict(extra="forbid")
    teacher: str | None = None
    temperature: float = Field(1.0, gt=0)


class ChatOptions(BaseModel):
    """What `model.options` of a recipe may say.

    Args:
        vision: tower of a model from parts: a hub id or folder, `timm:<name>` or `timm:<name>@<weights folder>`, or a
            mapping with `model_type` for random weights.
        language: causal language model of a model from parts: a hub id or folder, or a mapping with `model_type`.
        projector: how a model from parts turns visual features into tokens.
        image_size: side of the pictures in pixels; default: the tower's.
        chat_template: in place of the processor's: a Jinja text, or a file's path that ends in .jinja.
        tokens: further special tokens, whose embeddings start as the mean of those there are.
        vocab_size: size of the tokenizer that is learned on the training text, where no language model brings one.
        dtype: of the weights of parts that are loaded.
        max_length: most tokens of a conversation, its pictures' included; default: the model's context.
        pixels: [fewest, most] pixels of a picture, for models that take any size (Qwen-VL); saved with the processor.
        frames: of a video that are seen, evenly over it; saved with the processor. Default: the model's own rule.
        groups: patterns of parameter names by group, for models in which they are not found, or for further groups.
        dpo: how the `dpo` term is computed.
        distill: how the `distill` term is computed.
    """

    model_config = ConfigDict(extra="forbid")
    vision: str | dict[str, Any] | None = None
    language: str | dict[str, Any] | None = None
    projector: Projector = "mlp"
    image_size: int | None = Field(None, ge=8, le=4096)
    chat_template: str | None = None
    tokens: list[str] = Field(default_factory=list)
    vocab_size: int = Field(1024, ge=300, le=1_000_000)
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    max_length: int | None = Field(None, ge=8)
    pixels: tuple[int, int] | None = None
    frames: int | None = Field(None, ge=1, le=1024)
    groups: dict[str, list[str]] = Field(default_factory=dict)
    dpo: DpoOptions = Field(default_factory=lambda: DpoOptions())
    distill: DistillOptions = Field(default_factory=lambda: DistillOptions())

    @model_validator(mode="after")
    def _parts_together(self) -> ChatOptions:
        if (self.vision is None) != (self.language is None):
            raise ValueError("`vision` and `language` come together")
        if self.pixels is not None and not 0 < self.pixels[0] <= self.pixels[1]:
            raise ValueError(f"`pixels` are [fewest, most]; got {list(self.pixels)}")
        return self

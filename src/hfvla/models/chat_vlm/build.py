"""From a recipe to model and processor, quick metrics, small rows."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import ValidationError

from hfvla.errors import RecipeError
from hfvla.models.chat_vlm.options import ChatOptions
from hfvla.models.chat_vlm.parts import build_parts, parts_config

if TYPE_CHECKING:
    from transformers import EvalPrediction, PreTrainedConfig, PreTrainedModel, ProcessorMixin
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["adapt", "build_config", "chat_options", "compute_metrics", "fake_rows", "initialise", "tiny_config"]

_LAYOUTS = {"llava": "mlp", "internvl": "pixel_shuffle"}


def chat_options(given: Mapping[str, Any] | None) -> ChatOptions:
    """Return `model.options` of a recipe.

    Raises:
        RecipeError: an unknown or impossible option; all of them at once.
    """
    try:
        return ChatOptions.model_validate(dict(given or {}))
    except ValidationError as error:
        problems = [f"model.options.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise RecipeError(problems) from None


def build_config(model_recipe: Mapping[str, Any], known: bool = True) -> Any:
    """Return the config that `model:` of a recipe asks for, without weights.

    Args:
        model_recipe: {"config": {...}, "options": {...}}.
        known: take shapes of well-known parts from here, where only they count.

    Raises:
        RecipeError: it names neither a checkpoint nor parts.
    """
    from transformers import AutoConfig

    options, settings = chat_options(model_recipe.get("options")), dict(model_recipe.get("config") or {})
    if options.vision is not None:
        return parts_config(options, settings, known)
    if settings.get("model_type") in _LAYOUTS:
        return AutoConfig.for_model(settings.pop("model_type"), **copy.deepcopy(settings))
    raise RecipeError(
        "model: nothing to start from",
        got=", ".join(sorted({*settings, *options.model_fields_set})) or "nothing",
        expected="`pretrained: <hub id or folder>`, or `options: {vision: ..., language: ...}` for a model from parts",
    )


def initialise(model_recipe: Mapping[str, Any], train_rows: Iterable[Mapping[str, Any]], seed: int) -> tuple[Any, Any]:
    """Build model and processor for a run that starts from parts, or from nothing.

    Args:
        model_recipe: {"config": {...}, "options": {...}}.
        train_rows: training rows; without a language model, the tokenizer is learned on their text.
        seed: of the random weights.
    """
    from transformers import set_seed

    options = chat_options(model_recipe.get("options"))
    config = build_config(model_recipe, known=False)
    set_seed(seed)
    if options.vision is None:
        options = options.model_copy(update={"vocab_size": config.get_text_config().vocab_size})
    model, processor = build_parts(options, config, training_texts(train_rows))
    if options.chat_template is not None:
        set_template(processor, options.chat_template)
    return model, processor


def adapt(model: PreTrainedModel, processor: ProcessorMixin, options: Mapping[str, Any]) -> None:
    """Change a checkpoint that a run starts from as the options say: tokens with embeddings, template, lengths, sizes.

    Raises:
        RecipeError: an option that goes with a model from parts alone, or that this processor has no place for.
    """
    chosen = chat_options(options)
    if chosen.vision is not None:
        raise RecipeError("model: `pretrained` and a model from parts (`options.vision`) are both given; name one")
    if chosen.tokens:
        processor.tokenizer.add_special_tokens({"extra_special_tokens": chosen.tokens})
        if len(processor.tokenizer) > model.get_input_embeddings().weight.shape[0]:
            model.resize_token_embeddings(len(processor.tokenizer))
    if chosen.max_length is not None:
        processor.tokenizer.model_max_length = chosen.max_length
    if chosen.chat_template is not None:
        set_template(processor, chosen.chat_template)
    if chosen.frames is not None:
        _set_frames(processor, chosen.frames)
    if chosen.pixels is not None:
        _set_pixels(processor.image_processor, chosen.pixels)


def set_template(processor: ProcessorMixin, template: str) -> None:
    """Give a processor a chat template: a Jinja text, or the path of a .jinja file."""
    if template.endswith(".jinja"):
        try:
            template = Path(template).read_text(encoding="utf-8")
        except OSError as error:
            raise RecipeError("model.options.chat_template cannot be read", got=template, fix=str(error)) from None
    processor.chat_template = template


def _set_frames(processor: ProcessorMixin, frames: int) -> None:
    video_processor = getattr(processor, "video_processor", None)
    if video_processor is None:
        raise RecipeError("model.options.frames: this model takes no videos", got=type(processor).__name__)
    video_processor.num_frames = frames


def _set_pixels(image_processor: BaseImageProcessor, pixels: tuple[int, int]) -> None:
    size = getattr(image_processor, "size", None)
    if not (isinstance(size, Mapping) or hasattr(size, "shortest_edge")) or not hasattr(image_processor, "merge_size"):
        raise RecipeError(
            "model.options.pixels: this model's pictures have another way of sizes",
            got=type(image_processor).__name__,
            fix="Leave it out; it is for models that take any size, like Qwen-VL.",
        )
    image_processor.size = {"shortest_edge": pixels[0], "longest_edge": pixels[1]}
    for name, value in zip(("min_pixels", "max_pixels"), pixels, strict=True):
        if hasattr(image_processor, name):
            setattr(image_processor, name, value)


def training_texts(rows: Iterable[Mapping[str, Any]]) -> Iterator[str]:
    """Yield what is said in the rows."""
    for row in rows:
        for turn in [*row["messages"], *row["rejected"]]:
            for part in turn["content"]:
                if part["type"] == "text":
                    yield part["text"]


def tiny_config() -> Any:
    """Return an InternVL whose train step takes milliseconds on a CPU (hidden 32), every parameter of it in use."""
    from transformers import AutoConfig

    from hfvla.backbones.shapes import tiny_backbone

    return AutoConfig.for_model("internvl", **tiny_backbone())


def compute_metrics(prediction: EvalPrediction, config: PreTrainedConfig) -> dict[str, float]:
    """Return the share of answer tokens that are the likeliest, and of rows all of whose tokens are.

    Args:
        prediction: predictions [N, 2]: right tokens and tokens of each row.
        config: of the model; unused.
    """
    counts = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    counts = counts[counts[:, 1] > 0]
    if not len(counts):
        return {}
    right, tokens = counts[:, 0], counts[:, 1]
    return {"token_accuracy": float(right.sum() / tokens.sum()), "answer_accuracy": float((right == tokens).mean())}


def fake_rows(n: int, seed: int = 0) -> Any:
    """Return `n` questions on small drawn pictures, each with a worse answer too."""
    from hfvla.worlds.shapes import ShapesOptions, build_shapes

    return build_shapes(ShapesOptions(size=n, seed=seed, image_size=32, preferences=True), seed=seed).dataset

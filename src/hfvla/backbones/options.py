"""InternVL as a backbone that a recipe names: its options, its config, and what a learned tokenizer changes in it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from transformers.configuration_utils import PreTrainedConfig

from hfvla.backbones.shapes import known_backbone
from hfvla.errors import RecipeError
from hfvla.paths import UserPath

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["BackboneOptions", "backbone_options", "backbone_settings", "learned_backbone", "loaded_backbone"]

_LEARNED_IMAGE_TOKEN = 4  # of a tokenizer that is not there yet; `learned_backbone` puts the real id in its place


class BackboneOptions(BaseModel):
    """What `model.options` of a recipe may say.

    Args:
        backbone: hub id or folder of an InternVL checkpoint in transformers' format (`...-hf`), with its processor.
        revision: branch, tag or commit of `backbone`.
        dtype: of the weights that are loaded; bfloat16 halves the memory of a frozen backbone.
        tokenizer_vocab_size: size of the tokenizer learned on the training text (without `backbone`).
    """

    model_config = ConfigDict(extra="forbid")
    backbone: UserPath | None = None
    revision: str | None = None
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    tokenizer_vocab_size: int = 1024


_Options = TypeVar("_Options", bound=BackboneOptions)


def backbone_options(model_recipe: Mapping[str, Any], kind: type[_Options] = BackboneOptions) -> _Options:  # type: ignore[assignment]
    """Return the options of a recipe's `model` section.

    Args:
        model_recipe: {"config": {...}, "options": {...}}.
        kind: class of the options.

    Raises:
        RecipeError: an unknown or impossible option; all of them at once.
    """
    try:
        return kind.model_validate(model_recipe.get("options") or {})
    except ValidationError as error:
        problems = [f"model.options.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise RecipeError(problems) from None


def backbone_settings(
    options: BackboneOptions, settings: Mapping[str, Any], model_types: Sequence[str] = ("internvl",)
) -> Any:
    """Return the `backbone_config` of a model that is planned or built.

    The shapes of the hub's InternVL3 checkpoints are known; those of another backbone are read from its config.

    Args:
        options: of the recipe.
        settings: `model.config` of the recipe.
        model_types: kinds of model that `options.backbone` may be.

    Raises:
        RecipeError: both name a backbone, or it cannot be read.
    """
    given = settings.get("backbone_config")
    if options.backbone is not None:
        if "backbone_config" in settings:
            raise RecipeError("model.config.backbone_config and model.options.backbone are both given; name one")
        return {**(known_backbone(options.backbone) or loaded_backbone(options, model_types)), "dtype": options.dtype}
    if isinstance(given, PreTrainedConfig):
        return given
    backbone = given or known_backbone("OpenGVLab/InternVL3-1B-hf") or {}
    text = {**(backbone.get("text_config") or {}), "vocab_size": options.tokenizer_vocab_size}
    return {**backbone, "text_config": text, "image_token_id": _LEARNED_IMAGE_TOKEN}


def loaded_backbone(options: BackboneOptions, model_types: Sequence[str] = ("internvl",)) -> dict[str, Any]:
    """Return the backbone's own config.

    Args:
        options: of the recipe.
        model_types: kinds of model that will do.

    Raises:
        RecipeError: it cannot be read, or is of another kind.
    """
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(options.backbone, revision=options.revision)
    except (OSError, ValueError) as error:
        raise RecipeError(
            "model.options.backbone cannot be read",
            got=options.backbone,
            expected="a checkpoint in transformers' format, on the hub or in a folder",
            fix=str(error).splitlines()[0],
        ) from None
    if config.model_type not in model_types:
        raise RecipeError(
            "model.options.backbone is another kind of model",
            got=f"{options.backbone} ({config.model_type})",
            expected=f"model type {' or '.join(map(repr, model_types))}",
        )
    return config.to_dict()


def learned_backbone(
    backbone: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase, image_token_id: int
) -> dict[str, Any]:
    """Return a backbone's settings with the tokens of a tokenizer that was learned for it."""
    settings = backbone.to_dict()
    settings["text_config"] |= {
        "vocab_size": len(tokenizer), "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    return {**settings, "image_token_id": image_token_id}

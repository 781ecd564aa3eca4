"""A family's model and processor around one InternVL backbone: from the hub's weights, or from nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import PreTrainedConfig, PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

from hfvla.backbones.options import (
    BackboneOptions,
    backbone_options,
    backbone_settings,
    learned_backbone,
    loaded_backbone,
)

if TYPE_CHECKING:
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["Wrapping", "planned_settings"]

_MEAN, _STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]


def planned_settings(
    model_recipe: Mapping[str, Any],
    kind: type[BackboneOptions] = BackboneOptions,
    model_types: Sequence[str] = ("internvl",),
) -> dict[str, Any]:
    """Return the config's settings that a recipe's `model` section asks for, without weights (for plans).

    The shapes of the hub's InternVL3 checkpoints are known; those of another backbone are read from its config.

    Args:
        model_recipe: {"config": {...}, "options": {...}}.
        kind: class of the options.
        model_types: kinds of model that `options.backbone` may be.

    Raises:
        RecipeError: an unknown option, or a backbone that cannot be read.
    """
    options = backbone_options(model_recipe, kind)
    settings = dict(model_recipe.get("config") or {})
    return {**settings, "backbone_config": backbone_settings(options, settings, model_types)}


@dataclass(frozen=True)
class Wrapping:
    """What a family puts around its backbone; the model keeps it as `model.backbone`.

    Args:
        config: class of the config, with `backbone_config`.
        model: class of the model.
        processor: class of the processor, with `special_ids() -> dict`: `image_token_id`, and what the config keeps.
        loader: transformers' Auto class that loads the backbone's weights.
        processor_settings: further arguments of the processor, from the config.
        picture_side: of the pictures that the tower takes, from the config.
        learn_tokenizer: a tokenizer from (training rows, its size), for a run from nothing.
        build_config: the config of a run from nothing, from the recipe's `model` section.
        options: class of what `model.options` of a recipe may say.
        whole: the backbone is all there is: no weight of the model needs to be drawn before it is loaded.
        model_types: kinds of model that the backbone may be.
    """

    config: type[PreTrainedConfig]
    model: type[PreTrainedModel]
    processor: type[ProcessorMixin]
    loader: Any
    processor_settings: Callable[[Any], dict[str, Any]]
    picture_side: Callable[[Any], int]
    learn_tokenizer: Callable[[Iterable[Mapping[str, Any]], int], PreTrainedTokenizerBase]
    build_config: Callable[[Mapping[str, Any]], PreTrainedConfig]
    options: type[BackboneOptions] = BackboneOptions
    whole: bool = False
    model_types: Sequence[str] = ("internvl",)

    def initialise(
        self, model_recipe: Mapping[str, Any], train_rows: Iterable[Mapping[str, Any]], seed: int
    ) -> tuple[Any, Any]:
        """Build model and processor for a run that starts from a backbone, or from nothing.

        Args:
            model_recipe: {"config": {...}, "options": {...}}.
            train_rows: training rows; without a backbone, the tokenizer is learned on their text.
            seed: of the random weights.

        Returns:
            `tuple`: (model, processor).
        """
        from transformers import set_seed

        options = backbone_options(model_recipe, self.options)
        set_seed(seed)
        if options.backbone is not None:
            return self._around(options, dict(model_recipe.get("config") or {}))
        return self._from_nothing(options, self.build_config(model_recipe), train_rows)

    def _around(self, options: BackboneOptions, settings: dict[str, Any]) -> tuple[Any, Any]:
        """Load a backbone's weights and processor; what the family adds is new."""
        from transformers import AutoProcessor

        own = loaded_backbone(options, self.model_types)
        source = AutoProcessor.from_pretrained(options.backbone, revision=options.revision)
        config = self.config(**{**settings, "backbone_config": {**own, "dtype": options.dtype}})
        processor = self.processor(
            image_processor=_tiling(source.image_processor, self.picture_side(config)),
            tokenizer=source.tokenizer,
            chat_template=source.chat_template or source.tokenizer.chat_template,
            **self.processor_settings(config),
        )
        for name, value in processor.special_ids().items():
            if name != "image_token_id":  # the backbone's config has it
                setattr(config, name, value)
        with torch.device("meta" if self.whole else "cpu"):
            model = self.model(config)
        model.backbone = self.loader.from_pretrained(
            options.backbone, revision=options.revision, use_safetensors=True, dtype=getattr(torch, options.dtype)
        )
        return model, processor

    def _from_nothing(
        self, options: BackboneOptions, config: PreTrainedConfig, train_rows: Iterable[Mapping[str, Any]]
    ) -> tuple[Any, Any]:
        from transformers import GotOcr2ImageProcessor

        side = self.picture_side(config)
        tokenizer = self.learn_tokenizer(train_rows, options.tokenizer_vocab_size)
        processor = self.processor(
            image_processor=GotOcr2ImageProcessor(
                size={"height": side, "width": side}, image_mean=_MEAN, image_std=_STD
            ),
            tokenizer=tokenizer,
            **self.processor_settings(config),
        )
        ids = processor.special_ids()
        backbone = learned_backbone(config.backbone_config, processor.tokenizer, ids.pop("image_token_id"))
        return self.model(self.config(**{**config.to_dict(), **ids, "backbone_config": backbone})), processor


def _tiling(image_processor: BaseImageProcessor, side: int) -> BaseImageProcessor:
    """Return an image processor that can cut tiles: the backbone's own, or InternVL's with its side and statistics."""
    from transformers import GotOcr2ImageProcessor

    if hasattr(image_processor, "crop_to_patches"):
        return image_processor
    size = {"height": side, "width": side}
    return GotOcr2ImageProcessor(size=size, image_mean=image_processor.image_mean, image_std=image_processor.image_std)

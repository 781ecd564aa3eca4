"""What `FAMILY` names: build from a recipe, features to cache, quick metrics, one prediction, example rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import model_validator

from hfvla.backbones.dual_tower import DualTowerConfig
from hfvla.backbones.options import BackboneOptions, backbone_options
from hfvla.backbones.towers import folder_config, image_statistics, load_tower, tower_settings
from hfvla.backbones.wrapping import Wrapping, planned_settings
from hfvla.family import CACHED_FEATURES, CutContext
from hfvla.losses.spatial import spatial_labels
from hfvla.metrics.boxes import box_scores
from hfvla.metrics.retrieval import retrieval_scores
from hfvla.metrics.spatial import spatial_scores
from hfvla.models.internvl_retrieval.configuration_internvl_retrieval import InternVLRetrievalConfig
from hfvla.paths import UserPath

if TYPE_CHECKING:
    from transformers import EvalPrediction

    from hfvla.models.internvl_retrieval.modeling_internvl_retrieval import InternVLForRetrieval

__all__ = [
    "RetrievalOptions",
    "build_config",
    "compute_metrics",
    "encode_image_states",
    "encode_pair_states",
    "fake_rows",
    "initialise",
    "prepare_image_states",
    "prepare_pair_states",
    "quick_metrics",
]

_PLANNED_PROMPT = {"before": list(range(10, 22)), "after": [5, 0]}  # as long as the real one, about
_FAKE_CAPTIONS = 1


class RetrievalOptions(BackboneOptions):
    """What `model.options` of a recipe may say.

    Args:
        vision: with `language`, a timm checkpoint for a backbone of two towers, by name or "local-dir:<folder>".
        language: hub id or folder of a text encoder, with its tokenizer.
    """

    vision: str | None = None
    language: UserPath | None = None

    @model_validator(mode="after")
    def _one_backbone(self) -> RetrievalOptions:
        if self.backbone is not None and self.two_towers:
            raise ValueError("backbone and vision or language are both given; name one backbone, or two towers")
        return self

    @property
    def two_towers(self) -> bool:
        """Whether towers are named."""
        return self.vision is not None or self.language is not None


def build_config(model_recipe: Mapping[str, Any]) -> InternVLRetrievalConfig:
    """Return the config a recipe's `model` section asks for, without weights (for plans).

    The shapes of the hub's InternVL3 checkpoints are known; those of another backbone are read from its config.

    Args:
        model_recipe: {"config": {...}, "options": {...}}.
    """
    options = backbone_options(model_recipe, RetrievalOptions)
    settings = dict(model_recipe.get("config") or {})
    if options.two_towers or _asks_two_towers(settings):
        settings["backbone_config"] = _two_towers(options, settings)
        return InternVLRetrievalConfig(**settings)
    settings = planned_settings(model_recipe, RetrievalOptions)
    if not any((settings.get("image_prompt") or {}).values()):
        settings["image_prompt"] = _PLANNED_PROMPT
    return InternVLRetrievalConfig(**settings)


def initialise(model_recipe: Mapping[str, Any], train_rows: Iterable[Mapping[str, Any]], seed: int) -> tuple[Any, Any]:
    """Build model and processor for a run that starts from a backbone, or from nothing.

    Args:
        model_recipe: {"config": {...}, "options": {...}}.
        train_rows: training rows; without a backbone, the tokenizer is learned on their text.
        seed: of the random weights.

    Returns:
        `tuple`: (`InternVLForRetrieval`, `InternVLRetrievalProcessor`).
    """
    from transformers import AutoModel, set_seed

    from hfvla.data.tokenizers import learn_tokenizer
    from hfvla.models.internvl_retrieval.batches import training_texts
    from hfvla.models.internvl_retrieval.modeling_internvl_retrieval import InternVLForRetrieval
    from hfvla.models.internvl_retrieval.processing_internvl_retrieval import InternVLRetrievalProcessor

    options = backbone_options(model_recipe, RetrievalOptions)
    if options.two_towers or _asks_two_towers(model_recipe.get("config") or {}):
        set_seed(seed)
        return _from_towers(options, build_config(model_recipe), train_rows)
    return Wrapping(
        InternVLRetrievalConfig,
        InternVLForRetrieval,
        InternVLRetrievalProcessor,
        options=RetrievalOptions,
        loader=AutoModel,
        processor_settings=lambda config: {"max_text_tokens": config.max_text_tokens},
        picture_side=lambda config: config.image_size,
        learn_tokenizer=lambda rows, size: learn_tokenizer(training_texts(rows), size),
        build_config=build_config,
    ).initialise(model_recipe, train_rows, seed)


def _asks_two_towers(settings: Mapping[str, Any]) -> bool:
    given = settings.get("backbone_config")
    return getattr(given, "model_type", None) == "dual_tower" or (
        isinstance(given, Mapping) and given.get("model_type") == "dual_tower"
    )


def _two_towers(options: RetrievalOptions, settings: Mapping[str, Any]) -> DualTowerConfig:
    """Return the config of two towers: what the recipe says, over what the folders say of themselves."""
    given = settings.get("backbone_config") or {}
    given = given.to_dict() if isinstance(given, DualTowerConfig) else dict(given)
    folders: dict[str, Any] = tower_settings(options.vision) if options.vision else {}
    text = folder_config(options.language) if options.language else {}
    learned = {} if options.language else {"vocab_size": options.tokenizer_vocab_size}
    given.pop("model_type", None)
    text = {**text, **(given.pop("text_config", None) or {}), **learned}
    return DualTowerConfig(**{**folders, **given, "text_config": text})


def _from_towers(
    options: RetrievalOptions, config: InternVLRetrievalConfig, train_rows: Iterable[Mapping[str, Any]]
) -> tuple[Any, Any]:
    """Build a model of two towers: loaded where the options name them, else new."""
    from transformers import AutoModel, AutoTokenizer, ViTImageProcessor

    from hfvla.data.tokenizers import learn_encoder_tokenizer
    from hfvla.models.internvl_retrieval.batches import training_texts
    from hfvla.models.internvl_retrieval.modeling_internvl_retrieval import InternVLForRetrieval
    from hfvla.models.internvl_retrieval.processing_internvl_retrieval import InternVLRetrievalProcessor

    if options.language:
        tokenizer = AutoTokenizer.from_pretrained(options.language)
    else:
        tokenizer = learn_encoder_tokenizer(training_texts(train_rows), options.tokenizer_vocab_size)
        text = config.backbone_config.text_config
        text.vocab_size, text.pad_token_id = len(tokenizer), tokenizer.pad_token_id
    side = config.image_size
    vision = options.vision or config.backbone_config.vision_config.architecture
    mean, deviation = image_statistics(vision)
    processor = InternVLRetrievalProcessor(
        image_processor=ViTImageProcessor(size={"height": side, "width": side}, image_mean=mean, image_std=deviation),
        tokenizer=tokenizer,
        max_text_tokens=config.max_text_tokens,
    )
    model = InternVLForRetrieval(config)
    if options.vision:
        load_tower(model.backbone.vision_tower.backbone, options.vision)
    if options.language:
        encoder = AutoModel.from_pretrained(options.language, use_safetensors=True)
        wanted = model.backbone.language_model.state_dict()
        state = encoder.state_dict()
        model.backbone.language_model.load_state_dict({name: state[name] for name in wanted})
    model.backbone.to(getattr(torch, options.dtype))
    return model, processor


def prepare_image_states(context: CutContext, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the pixels of the rows' pictures, for the feature cache."""
    names = [str(row["id"]) for row in rows]
    return {"pixel_values": context.processor.images([row["image"] for row in rows], names)}


def encode_image_states(model: InternVLForRetrieval, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return `image_pooled` [C] and `image_tokens` [G, width] of each row, as far as the config uses them."""
    states = model.encode_pixels(batch["pixel_values"])
    named = {"image_pooled": states.pooled, "image_tokens": states.tokens}
    rows = len(batch["pixel_values"])
    return [{name: value[row] for name, value in named.items() if value is not None} for row in range(rows)]


def prepare_pair_states(context: CutContext, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return pixels and tokens of the rows, and of their sentences where the losses read those; for the cache."""
    from hfvla.models.internvl_retrieval.batches import InternVLRetrievalCollator

    plain = [{name: value for name, value in row.items() if name != CACHED_FEATURES} for row in rows]
    batch = InternVLRetrievalCollator(context.processor, context.config, context.losses)(plain)
    wanted = ("pixel_values", "input_ids", "attention_mask", "sentence_input_ids", "sentence_attention_mask")
    return {name: batch[name] for name in wanted if name in batch}


def encode_pair_states(model: InternVLForRetrieval, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return what `encode_image_states` does, `text_pooled` [width] and `sentence_pooled` [S, width] of each row."""
    found = {"text_pooled": model.encode_text(batch["input_ids"], batch.get("attention_mask"))[1]}
    ids = batch.get("sentence_input_ids")
    if ids is not None:
        mask = batch["sentence_attention_mask"].flatten(0, 1)
        found["sentence_pooled"] = model.encode_text(ids.flatten(0, 1), mask)[1].unflatten(0, ids.shape[:2])
    return [
        {**images, **{name: value[row] for name, value in found.items()}}
        for row, images in enumerate(encode_image_states(model, batch))
    ]


def compute_metrics(prediction: EvalPrediction, config: InternVLRetrievalConfig) -> dict[str, float]:
    """Return the promised metrics of an evaluation's gathered outputs, as far as its loss terms give them.

    Every caption is a query, every different image is in the gallery, and any image of the same building is a hit.
    `combined` is the mean of the other three.
    """
    return quick_metrics(prediction.predictions, prediction.label_ids)


def fake_rows(n: int, seed: int = 0) -> Any:
    """Return `n` captions of small generated scenes, two a building."""
    from hfvla.worlds.drone import DroneOptions, build_drone

    options = DroneOptions(buildings=-(-n // 2), views=2, captions=_FAKE_CAPTIONS, image_size=32)
    return build_drone(options, seed=seed).dataset.select(range(n))


def quick_metrics(predictions: Any, labels: Any) -> dict[str, float]:
    """Return recall, box and relation scores, as far as the outputs have them.

    Every caption is a query, and every different image is in the gallery.

    Args:
        predictions: (text_embeds [N, D], image_embeds [N, D]) and, with sentences, box_predictions [N, S, 4] and
            spatial_logits [N, S, S, 6]; see `InternVLRetrievalOutput`.
        labels: (group_ids [N], image_ids [N], boxes [N, S, 4], box_mask [N, S]).
    """
    texts, images, *places = predictions
    groups, image_ids, boxes, mask = labels
    _, first = np.unique(image_ids, return_index=True)
    gallery, queries = torch.from_numpy(images[first]), torch.from_numpy(texts)
    found = {"retrieval_mean_recall": retrieval_scores(gallery, queries, groups[first], groups)["mean_recall"]}
    mask = np.asarray(mask, dtype=bool)
    if not places or not mask.any():
        return found
    predicted, logits = places
    found["box_iou"] = box_scores(predicted[mask], boxes[mask])["iou"]
    wanted = spatial_labels(torch.from_numpy(boxes), torch.from_numpy(mask)).numpy()
    pairs = wanted[..., 0] >= 0
    if pairs.any():
        answers = np.stack([logits[..., :3].argmax(-1), logits[..., 3:].argmax(-1)], axis=-1)
        found["spatial_accuracy"] = spatial_scores(answers[pairs], wanted[pairs])["pair_accuracy"]
        found["combined"] = float(np.mean(list(found.values())))
    return found

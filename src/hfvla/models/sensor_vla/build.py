"""What `FAMILY` names: build from a recipe, features to cache, quick metrics, one prediction."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pydantic import ConfigDict, Field

from hfvla.backbones.options import BackboneOptions, backbone_options, loaded_backbone
from hfvla.backbones.shapes import VLM_SHAPES
from hfvla.data.tokenizers import learn_tokenizer
from hfvla.errors import DataError, RecipeError
from hfvla.family import CutContext
from hfvla.models.sensor_vla.backbones import KINDS, backbone_kind, new_image_processor, processor_arguments
from hfvla.models.sensor_vla.configuration_sensor_vla import SensorVLAConfig

if TYPE_CHECKING:
    from transformers import EvalPrediction, PreTrainedTokenizerBase

    from hfvla.models.sensor_vla.modeling_sensor_vla import SensorVLAForActionPrediction

__all__ = [
    "SensorVLAOptions",
    "augments_backbone",
    "build_config",
    "compute_metrics",
    "encode_backbone",
    "fake_rows",
    "prompt_backbone",
    "initialise",
    "prepare_backbone",
]

_POSITION_STD = 0.5  # beside patch embeddings of about as much
_LEARNED_ROWS = 20_000  # whose tasks a tokenizer is learned on


class SensorVLAOptions(BackboneOptions):
    """What `model.options` of a recipe may say.

    Args:
        image_size: [height, width] to which every picture is scaled before the backbone's own image processor.
        most_pixels: of a picture, for backbones that take any size; larger ones are scaled down.
        from_data: take what `model.config` does not say of views, state_dim, action and sensor from the meta/ of the
            LeRobot data set that is trained on.
    """

    model_config = ConfigDict(extra="forbid")
    tokenizer_vocab_size: int = 512
    image_size: tuple[int, int] | None = None
    most_pixels: int = Field(default=640 * 360, ge=1024)
    from_data: bool = False


def _options(model_recipe: Mapping[str, Any]) -> SensorVLAOptions:
    return backbone_options(model_recipe, SensorVLAOptions)


def build_config(model_recipe: Mapping[str, Any]) -> SensorVLAConfig:
    """Return the config a recipe's `model` section asks for, without weights (for plans).

    Args:
        model_recipe: {"config": {...}, "options": {...}}; `options.backbone` names a checkpoint, else
            `config.backbone_config` gives the shapes of one from random weights.
    """
    options, settings = _options(model_recipe), dict(model_recipe.get("config") or {})
    if options.backbone is not None:
        if "backbone_config" in settings:
            raise RecipeError("model.config.backbone_config and model.options.backbone are both given; name one")
        shapes = VLM_SHAPES.get(options.backbone) or loaded_backbone(options, tuple(KINDS))
        settings["backbone_config"] = {**shapes, "dtype": options.dtype}
        settings["backbone_dtype"] = options.dtype
    elif isinstance(settings.get("backbone_config"), Mapping):
        backbone = dict(settings["backbone_config"])
        backbone["text_config"] = {**backbone.get("text_config", {}), "vocab_size": options.tokenizer_vocab_size}
        settings["backbone_config"] = backbone
    return SensorVLAConfig(**settings)


def initialise(model_recipe: Mapping[str, Any], train_rows: Any, seed: int) -> tuple[Any, Any]:
    """Build model and processor for a run that starts from a backbone, or from nothing.

    Args:
        model_recipe: {"config": {...}, "options": {...}}.
        train_rows: training rows: statistics are fitted on them, and without a backbone the tokenizer.
        seed: of the random weights.

    Returns:
        `tuple`: (`SensorVLAForActionPrediction`, `SensorVLAProcessor`).
    """
    from transformers import set_seed

    from hfvla.models.sensor_vla.modeling_sensor_vla import SensorVLAForActionPrediction

    options = _options(model_recipe)
    set_seed(seed)
    if options.backbone is not None:
        model, parts = _from_backbone(options, build_config(model_recipe))
    else:
        config = build_config(model_recipe)
        tokenizer = _learned_tokenizer(config, train_rows, options.tokenizer_vocab_size)
        config = _with_tokens(config, tokenizer)
        model = SensorVLAForActionPrediction(config)
        _draw_positions(model)
        image_processor = new_image_processor(config.backbone_config, options.most_pixels)
        parts = (image_processor, tokenizer, None)
    return model, _processor(model.config, parts, options, train_rows)


def _processor(config: SensorVLAConfig, parts: tuple[Any, Any, Any], options: SensorVLAOptions, rows: Any) -> Any:
    from hfvla.models.sensor_vla.batches import fit_normalizers, seen_views
    from hfvla.models.sensor_vla.processing_sensor_vla import SensorVLAProcessor

    image_processor, tokenizer, chat_template = parts
    processor = SensorVLAProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        backbone=config.backbone_config.model_type,
        backbone_arguments=processor_arguments(config.backbone_config),
        views=config.views,
        required_views=seen_views(rows, config),
        prompt=config.prompt,
        action=config.action,
        state_dim=config.state_dim,
        sensor=config.sensor,
        image_size=options.image_size,
        chat_template=chat_template,
    )
    processor.normalizers = fit_normalizers(processor, config, rows)
    return processor


def _learned_tokenizer(config: SensorVLAConfig, rows: Any, vocab_size: int) -> Any:
    texts = [row["task"] for row, _ in zip(rows, range(_LEARNED_ROWS), strict=False)]
    marks = [config.prompt.replace("{task}", ""), *(f"\n{view}: " for view in config.views)] * 64
    kind = backbone_kind(config.backbone_config.model_type)
    return learn_tokenizer([*texts, *marks], vocab_size, kind.tokens)


def _with_tokens(config: SensorVLAConfig, tokenizer: PreTrainedTokenizerBase) -> SensorVLAConfig:
    """Return the config with the tokens of a tokenizer that was learned for it."""
    settings = config.backbone_config.to_dict()
    kind = backbone_kind(config.backbone_config.model_type)
    settings["text_config"] |= {
        "vocab_size": len(tokenizer), "bos_token_id": tokenizer.eos_token_id,
        "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id,
    }  # fmt: skip
    for key, name in kind.ids.items():
        settings[key] = tokenizer.convert_tokens_to_ids(kind.tokens[name])
    return SensorVLAConfig(**{**config.to_dict(), "backbone_config": settings})


def _draw_positions(model: SensorVLAForActionPrediction) -> None:
    """Draw position embeddings of the tower that transformers starts at zero, so that every patch is at one place."""
    for name, parameter in model.backbone.named_parameters():
        if name.endswith("position_embeddings") and not parameter.detach().any():
            torch.nn.init.normal_(parameter, std=_POSITION_STD)


def _from_backbone(options: SensorVLAOptions, config: SensorVLAConfig) -> tuple[Any, tuple[Any, Any, Any]]:
    """Load a backbone's weights and processor parts, and build the new parts around them."""
    from transformers import AutoModel, AutoProcessor

    from hfvla.models.sensor_vla.modeling_sensor_vla import SensorVLAForActionPrediction

    source = AutoProcessor.from_pretrained(options.backbone, revision=options.revision)
    backbone = AutoModel.from_pretrained(
        options.backbone, revision=options.revision, use_safetensors=True, dtype=getattr(torch, options.dtype)
    )
    settings = {**backbone.config.to_dict(), "dtype": options.dtype}
    with torch.device("meta"):  # a second copy of a large backbone would not fit beside the first
        shell = SensorVLAForActionPrediction(SensorVLAConfig(**{**config.to_dict(), "backbone_config": settings}))
    del shell.backbone
    shell.to_empty(device="cpu")
    shell.initialize_weights()
    shell.backbone = backbone
    image_processor = source.image_processor
    if backbone.config.model_type.startswith("qwen"):
        image_processor.size = {
            "shortest_edge": image_processor.size["shortest_edge"],
            "longest_edge": options.most_pixels,
        }
    return shell, (image_processor, source.tokenizer, source.chat_template or source.tokenizer.chat_template)


# ---- the feature cache ----------------------------------------------------------------------------------------------


def prepare_backbone(context: CutContext, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the backbone's inputs of rows, for the feature cache."""
    from hfvla.models.sensor_vla.batches import draw_pictures

    pictures = draw_pictures(context.processor, context.config, rows)
    return context.processor.encode_views([row["task"] for row in rows], pictures)


def encode_backbone(model: SensorVLAForActionPrediction, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the backbone's features [N, D] of each row, without padding."""
    tokens, mask = model.encode(**batch)
    return [{"features": row[valid]} for row, valid in zip(tokens, mask, strict=True)]


def prompt_backbone(context: CutContext, row: Mapping[str, Any]) -> str:
    """Return what the backbone sees of a row: task, and of each view its file's content and the frame's time."""
    parts = [row["task"]]
    for view in sorted(row["views"], key=lambda view: view["name"]):
        if view["name"] in context.processor.views:
            place = f"{view['time_s']}|{view['column']}|{view['row']}"
            parts.append(f"{view['name']}|{_file_digest(view['path'])}|{place}")
    return "\n".join(parts)


def _file_digest(path: str) -> str:
    try:
        facts = Path(path).stat()
    except OSError as error:
        raise DataError("file of a view cannot be read", where=path, got=error.strerror or str(error)) from error
    return _digest(path, facts.st_size, facts.st_mtime_ns)


@lru_cache(maxsize=65_536)
def _digest(path: str, size: int, modified_ns: int) -> str:
    """SHA-256 of a file's bytes; read once, until size or time of change differ."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def augments_backbone(context: CutContext) -> bool:
    """Tell whether training sees random versions of the pictures."""
    return bool(context.config.view_dropout or context.config.image_shift)


# ---- quick metrics --------------------------------------------------------------------------------------------------


def compute_metrics(prediction: EvalPrediction, config: SensorVLAConfig) -> dict[str, float]:
    """Return the squared error of predicted chunks [N, H, A], normalised: of all valid steps, and of the first."""
    chunks = prediction.predictions
    predicted = np.asarray(chunks[0] if isinstance(chunks, tuple) else chunks, dtype=np.float64)
    target, mask = (np.asarray(part) for part in prediction.label_ids)
    mask = mask.astype(bool)
    error = np.square(predicted - target).mean(2)  # [N, H]
    if not mask.any():
        return {}
    first = mask[:, 0]
    return {
        "action_mse": float(error[mask].mean()),
        "first_action_mse": float(error[first, 0].mean()) if first.any() else float("nan"),
    }


def fake_rows(n: int, seed: int = 0) -> Any:
    """Return `n` steps of small drawn episodes, every other step; some without a sensor."""
    from hfvla.worlds.reaching import ReachingOptions, build_reaching

    steps = 4
    episodes = max(2, -(-n // steps))
    options = ReachingOptions(episodes=episodes, steps=steps, with_sensor=0.5)
    return build_reaching(options, seed=seed).dataset.shuffle(seed=seed).select(range(n))

"""The functions that `FAMILY` names: build from a recipe, quick metrics, one prediction, small example rows."""

from __future__ import annotations

import io
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from hfvla.backbones.towers import folder_config, image_statistics, load_tower, tower_settings
from hfvla.data.samples.robots import ROBOTS, RobotTask, Subtask, Turn
from hfvla.errors import RecipeError
from hfvla.family import CutContext, Figure
from hfvla.metrics.calibration import calibration_scores
from hfvla.metrics.selection import per_robot_scores, predicted_sets, selection_scores, top_one
from hfvla.models.ember_vlm.configuration_ember_vlm import EmberVLMConfig
from hfvla.models.ember_vlm.conversations import as_tasks
from hfvla.paths import UserPath

if TYPE_CHECKING:
    from transformers import EvalPrediction

    from hfvla.models.ember_vlm.modeling_ember_vlm import EmberVLMForRobotSelection

__all__ = [
    "EmberVLMOptions",
    "build_config",
    "compute_metrics",
    "augments_prompt_states",
    "encode_prompt_states",
    "encode_vision",
    "fake_rows",
    "initialise",
    "prepare_prompt_states",
    "prepare_vision",
    "prompt_prompt_states",
]


class EmberVLMOptions(BaseModel):
    """What `model.options` of a recipe may say.

    Args:
        tokenizer_vocab_size: size of the BPE tokenizer learned on the training text (without `language`).
        language: hub id or folder of a causal language model to start from (`LANGUAGE_MODELS`), with its tokenizer.
            A folder's config.json gives `config.text_config`, where the recipe says nothing else.
        vision: name of a timm checkpoint to start from, e.g. "repvit_m0_9.dist_450e_in1k", or "local-dir:<folder>"
            that `timm.models.save_for_hf` wrote: it gives the architecture, the channels and the image statistics.
        capabilities: what each robot can do, in words; saved with the processor.
    """

    model_config = ConfigDict(extra="forbid")
    tokenizer_vocab_size: int = 4096
    language: UserPath | None = None
    vision: str | None = None
    capabilities: dict[str, str] = {}


def _options(model_recipe: Mapping[str, Any]) -> EmberVLMOptions:
    try:
        return EmberVLMOptions.model_validate(model_recipe.get("options") or {})
    except ValidationError as error:
        problems = [f"model.options.{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()]
        raise RecipeError(problems) from None


def build_config(model_recipe: Mapping[str, Any]) -> EmberVLMConfig:
    """Return the config a recipe's `model` section asks for, without weights or downloads (for plans).

    Args:
        model_recipe: {"config": {...}, "options": {...}}.
    """
    options = _options(model_recipe)
    settings = dict(model_recipe.get("config") or {})
    if options.language is None:
        learned = {"vocab_size": options.tokenizer_vocab_size, "bos_token_id": 0, "eos_token_id": 0}
        settings["text_config"] = {**(settings.get("text_config") or {}), **learned}
    else:
        settings["text_config"] = {**folder_config(options.language), **(settings.get("text_config") or {})}
    if options.vision:
        settings = {**tower_settings(options.vision), **settings}
    # Of a tokenizer that is not there yet; `initialise` puts the real ids in their place.
    settings = {"yes_token_id": 10, "no_token_id": 11, **settings}
    return EmberVLMConfig(**settings)


def initialise(model_recipe: Mapping[str, Any], train_rows: Iterable[Mapping[str, Any]], seed: int) -> tuple[Any, Any]:
    """Build model and processor for a run that starts without a checkpoint.

    Args:
        model_recipe: {"config": {...}, "options": {...}}.
        train_rows: training rows; the tokenizer is learned on their text unless `options.language` is set.
        seed: of the random weights.

    Returns:
        `tuple`: (`EmberVLMForRobotSelection`, `EmberVLMProcessor`).
    """
    from transformers import set_seed

    from hfvla.models.ember_vlm.modeling_ember_vlm import EmberVLMForRobotSelection

    options, config = _options(model_recipe), build_config(model_recipe)
    processor = _build_processor(options, config, train_rows)
    text = config.text_config
    text.vocab_size = len(processor.tokenizer)
    text.bos_token_id = text.eos_token_id = processor.tokenizer.eos_token_id
    text.pad_token_id = processor.tokenizer.pad_token_id
    config = EmberVLMConfig(**{**config.to_dict(), **processor.special_ids()})
    set_seed(seed)
    model = EmberVLMForRobotSelection(config)
    if options.language:
        _load_language(model, options.language)
    if options.vision:
        load_tower(model.vision.backbone, options.vision)
    return model, processor


def _build_processor(options: EmberVLMOptions, config: EmberVLMConfig, train_rows: Iterable[Mapping[str, Any]]) -> Any:
    from transformers import AutoTokenizer, ViTImageProcessor

    from hfvla.models.ember_vlm.batches import build_tokenizer, training_texts
    from hfvla.models.ember_vlm.configuration_ember_vlm import SPECIAL_TOKENS
    from hfvla.models.ember_vlm.processing_ember_vlm import EmberVLMProcessor

    if options.language:
        tokenizer = AutoTokenizer.from_pretrained(options.language)
        special = list(SPECIAL_TOKENS.values())
        tokenizer.add_special_tokens({"additional_special_tokens": special, "pad_token": "<pad>"})
    else:
        texts = [*training_texts(train_rows), *options.capabilities.values()]
        tokenizer = build_tokenizer(texts, options.tokenizer_vocab_size)
    mean, deviation = image_statistics(options.vision or config.vision_config.architecture)
    image_processor = ViTImageProcessor(
        size={"height": config.image_size, "width": config.image_size}, image_mean=mean, image_std=deviation
    )
    return EmberVLMProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        robots=config.robots,
        capabilities=options.capabilities,
        num_visual_tokens=config.num_visual_tokens,
        max_length=config.text_config.max_position_embeddings,
        ngram_buckets=config.ngram_buckets,
        explain_decision=config.explain_decision,
        ngram_words_apart=config.ngram_words_apart,
    )


def _load_language(model: EmberVLMForRobotSelection, name: str) -> None:
    """Copy a pretrained language model in; rows of added tokens start at the mean embedding."""
    import torch
    from transformers import AutoModelForCausalLM

    source = AutoModelForCausalLM.from_pretrained(name, use_safetensors=True)
    state = source.state_dict()
    for key, value in model.language_model.state_dict().items():
        if key in state and state[key].shape != value.shape and state[key].shape[1:] == value.shape[1:]:
            extra = state[key].mean(0, keepdim=True).expand(len(value) - len(state[key]), -1)
            state[key] = torch.cat([state[key], extra])
    model.language_model.load_state_dict(state)


def prepare_vision(context: CutContext, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the normalised pixels of the rows' pictures, for the feature cache."""
    return {"pixel_values": context.processor.pixels([row["image"] for row in as_tasks(rows)])}


def encode_vision(model: EmberVLMForRobotSelection, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the vision tower's map [C, h, w] of each picture, as `forward` would compute it."""
    return [{"image_features": feature_map} for feature_map in model.encode_pixels(batch["pixel_values"])]


def prompt_prompt_states(context: CutContext, row: Mapping[str, Any]) -> str:
    """Return a row's task as the language model reads it; for the cache."""
    (task,) = as_tasks([row])
    prompt: str = context.processor.reasoning_target(task).prompt
    return prompt


def augments_prompt_states(context: CutContext) -> bool:
    """Tell whether training would see a task in other words."""
    return bool(context.config.task_paraphrase)


def prepare_prompt_states(context: CutContext, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the tokens of the rows' prompts, and the pixels of their pictures; for the cache."""
    from hfvla.models.ember_vlm.batches import EmberVLMCollator

    return EmberVLMCollator(context.processor, context.config).prompts(rows)


def encode_prompt_states(model: EmberVLMForRobotSelection, batch: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return `prompt_states` [3, D] of each prompt, and whether it has a picture."""
    states = model.read_prompts(**batch)
    pairs = zip(states.pooled, states.pictures, strict=True)
    return [{"prompt_states": pooled, "prompt_pictures": seen} for pooled, seen in pairs]


def compute_metrics(prediction: EvalPrediction, config: EmberVLMConfig) -> dict[str, float]:
    """Score selection logits [N, R] against (robot_labels [N, R], robot_mask [N]); {} when no row has a gold set.

    Calibration (`ece`, `mce`) and precision, recall and F1 of each robot are among the scores.
    """
    found = _chosen(prediction, config)
    if found is None:
        return {}
    gold, sets, probabilities = found
    scores = selection_scores(gold, sets, probabilities)
    scores |= calibration_scores(*top_one(gold, probabilities))
    named = per_robot_scores(gold, sets, list(config.robots))
    first = ("top1_in_set", "exact_match", "jaccard", "macro_f1")
    return {**{name: scores[name] for name in first}, **scores, **named}


def quick_figures(prediction: Any, config: EmberVLMConfig) -> list[Figure]:
    """Return confusion, reliability and precision/recall/F1 by robot of what `compute_metrics` is given."""
    from hfvla.models.ember_vlm.evaluation.figures import confusion_figure, radar_figure, reliability_figure
    from hfvla.models.ember_vlm.evaluation.scores import Choices

    found = _chosen(prediction, config)
    if found is None:
        return []
    gold, sets, probabilities = found
    robots, choices, metrics = list(config.robots), Choices(probabilities, sets), compute_metrics(prediction, config)
    return [
        confusion_figure(gold, gold.argmax(axis=1), choices, robots),
        reliability_figure(gold, choices, metrics),
        radar_figure(metrics, robots),
    ]


def _chosen(prediction: Any, config: EmberVLMConfig) -> tuple[np.ndarray, np.ndarray, np.ndarray] | None:
    """Return gold sets, chosen sets and probabilities, [N, R] each, of the rows with a gold set."""
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    labels, mask = prediction.label_ids
    mask = mask.astype(bool)
    if not mask.any():
        return None
    probabilities = 1 / (1 + np.exp(-logits[mask].astype(np.float64) / config.calibration["temperature"]))
    return labels[mask] > 0.5, predicted_sets(probabilities, config.calibration["threshold"]), probabilities


def fake_rows(n: int, seed: int = 0) -> Any:
    """Return `n` small rows with chains, captions, dialogue and plans; every fourth has no picture."""
    from datasets import Dataset
    from PIL import Image

    rng = np.random.default_rng(seed)
    rows = []
    for index in range(n):
        first = int(rng.integers(len(ROBOTS)))
        robots = (ROBOTS[first],) if index % 2 else (ROBOTS[first], ROBOTS[(first + 1) % len(ROBOTS)])
        verdicts = "; ".join(f"{robot}: {'yes' if robot in robots else 'no'}, because" for robot in ROBOTS)
        buffer = io.BytesIO()
        Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(buffer, format="PNG")
        rows.append(
            RobotTask(
                id=f"fake:{seed}:{index}",
                task=f"Inspect site {index} for {robots[0]} work",
                robots=robots,
                reasoning=(
                    f"Step 1: Task Analysis: site {index}.\nStep 2: Environment Assessment: plain.\n"
                    f"Step 3: Robot Capability Matching: {verdicts}.\n"
                    f"Step 4: Decision Justification: it fits. Decision: {', '.join(robots)}."
                ),
                plan=(Subtask("look around", robots[0], 1),),
                image=None if index % 4 == 3 else buffer.getvalue(),
                caption=f"a square with pattern {index}",
                dialogue=(Turn("What is shown?", f"pattern {index}."),),
                source="fake",
            ).to_row()
        )
    return Dataset.from_list(rows)

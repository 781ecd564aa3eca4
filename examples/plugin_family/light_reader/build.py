"""A model and a processor from a recipe, and the quick metric of an evaluation inside a stage."""

from typing import Any

from light_reader.configuration_light_reader import LightReaderConfig
from light_reader.lights import LightOptions, build_lights


def build_config(model_recipe: dict[str, Any]) -> LightReaderConfig:
    """Return the config that `model:` of a recipe asks for."""
    return LightReaderConfig(**(model_recipe.get("config") or {}))


def initialise(model_recipe: dict[str, Any], train_rows: Any, seed: int) -> tuple[Any, Any]:
    """Return model and processor for a run that starts from nothing."""
    from transformers import ViTImageProcessor, set_seed

    from light_reader.modeling_light_reader import LightReader
    from light_reader.processing_light_reader import LightReaderProcessor

    config = build_config(model_recipe)
    set_seed(seed)
    size = config.vision["image_size"]
    return LightReader(config), LightReaderProcessor(ViTImageProcessor(size={"height": size, "width": size}))


def compute_metrics(prediction: Any, config: LightReaderConfig) -> dict[str, float]:
    """Return the share of lamps that are read."""
    logits = prediction.predictions[0] if isinstance(prediction.predictions, tuple) else prediction.predictions
    return {"accuracy": float((logits.argmax(-1) == prediction.label_ids).mean())}


def fake_rows(n: int, seed: int = 0) -> Any:
    """Return `n` rows for the contract tests."""
    return build_lights(LightOptions(size=n), seed=seed).dataset

"""What lmms-eval finds through the entry point group `lmms_eval.models`: `lmms-eval --model hfvla`."""

from __future__ import annotations

from typing import Any

__all__ = ["manifest"]


def manifest() -> Any:
    """Return how lmms-eval loads our model; called by lmms-eval (0.6 or later) when it lists its models."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(model_id="hfvla", chat_class_path=f"{__name__}_model.HfvlaChat")

"""timm towers and other parts that a recipe names: what their folders say of them, and their weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

__all__ = ["folder_config", "image_statistics", "load_tower", "tower_settings"]

_LOCAL = "local-dir:"
_IMAGENET = ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
_CLASSIFIER = ("num_classes", "global_pool", "in_chans")  # arguments of a head, which a tower has not


def folder_config(name: str) -> dict[str, Any]:
    """Return what the config.json of a local folder says; {} for a name on the hub, which plans do not ask."""
    file = Path(name) / "config.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def tower_settings(name: str) -> dict[str, Any]:
    """Return `vision_config` and `vision_hidden_size` as a timm checkpoint's folder says them; {} for other names.

    Args:
        name: "local-dir:<folder>" that `timm.models.save_for_hf` wrote, or timm's name of a checkpoint.
    """
    said = folder_config(name.removeprefix(_LOCAL)) if name.startswith(_LOCAL) else {}
    if not {"architecture", "num_features"} <= set(said):
        return {}
    arguments = {key: value for key, value in (said.get("model_args") or {}).items() if key not in _CLASSIFIER}
    vision = {"architecture": said["architecture"], "do_pooling": False, "model_args": arguments}
    return {"vision_config": vision, "vision_hidden_size": said["num_features"]}


def image_statistics(name: str) -> tuple[list[float], list[float]]:
    """Return the mean and deviation of the pixels [3], [3] that a timm tower was trained with; ImageNet's if unsaid.

    Args:
        name: architecture, checkpoint name or "local-dir:<folder>".
    """
    import timm

    if name.startswith(_LOCAL):
        said = folder_config(name.removeprefix(_LOCAL)).get("pretrained_cfg") or {}
    else:
        known = timm.models.get_pretrained_cfg(name)
        said = known.to_dict() if known else {}
    mean, deviation = said.get("mean"), said.get("std")
    return (list(mean), list(deviation)) if mean and deviation else _IMAGENET


def load_tower(backbone: nn.Module, name: str) -> None:
    """Copy the weights of a timm checkpoint, by its name or "local-dir:<folder>", into a `TimmTower`'s backbone."""
    import timm

    backbone.load_state_dict(timm.create_model(name, pretrained=True, num_classes=0).state_dict())

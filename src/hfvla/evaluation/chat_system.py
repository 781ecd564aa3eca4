"""A checkpoint as a `ChatSystem`: of one of hfvla's families, or any image-text model of transformers."""

from __future__ import annotations

from pathlib import Path

import torch

from hfvla.errors import CheckpointError
from hfvla.family import ChatSystem, FamilySpec
from hfvla.loading import guarded
from hfvla.nn.devices import checked_device
from hfvla.paths import expand_user
from hfvla.registry import family_of_checkpoint, load_checkpoint

__all__ = ["load_chat_system"]


def load_chat_system(checkpoint: str | Path, device: str | None = None, dtype: str = "auto") -> ChatSystem:
    """Load a checkpoint that answers conversations about pictures.

    Args:
        checkpoint: folder that `from_pretrained` loads, or hub id.
        device: torch device; default: a GPU if there is one.
        dtype: of the weights of a model of transformers, e.g. "bfloat16"; "auto" takes the checkpoint's.

    Raises:
        CheckpointError: it cannot be loaded, or it answers no conversations.
    """
    path, place = expand_user(str(checkpoint)), checked_device(device)
    spec = _family(path)
    if spec is None:
        return _plain(path, place, dtype)
    if not spec.has("chat_system"):
        raise CheckpointError(
            "this family does not answer conversations",
            where=path,
            got=spec.name,
            expected="a family with `chat_system`, or an image-text model of transformers",
        )
    _, model, processor = load_checkpoint(path)
    if dtype != "auto":
        model = model.to(getattr(torch, dtype))
    return spec.load("chat_system")(model.to(place).eval(), processor)


def _family(path: str) -> FamilySpec | None:
    """Return the family of a checkpoint, None where it is an image-text model that no family knows.

    Raises:
        CheckpointError: no such folder, or no config in it.
    """
    from transformers import AutoConfig
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    try:
        return family_of_checkpoint(path)
    except CheckpointError as error:
        try:
            model_type = guarded(path, lambda: AutoConfig.from_pretrained(path)).model_type
        except CheckpointError:
            raise error from None  # which says that there is no such folder
        if model_type not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            raise
        return None


def _plain(path: str, device: str, dtype: str) -> ChatSystem:
    """Load an image-text model of transformers by its own classes."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    from hfvla.backbones.image_text import image_text_system

    loading = {"dtype": dtype, "use_safetensors": True, "output_loading_info": True}
    model, info = guarded(path, lambda: AutoModelForImageTextToText.from_pretrained(path, **loading))
    if info.get("missing_keys"):
        raise CheckpointError("weights are missing", where=path, got=sorted(map(str, info["missing_keys"]))[:5])
    processor = guarded(path, lambda: AutoProcessor.from_pretrained(path))
    if getattr(processor, "chat_template", None) is None:
        raise CheckpointError("the processor has no chat template", where=path, fix="Save one with the checkpoint.")
    return image_text_system(model.to(device).eval(), processor)

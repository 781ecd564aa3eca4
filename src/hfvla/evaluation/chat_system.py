"""A checkpoint as a `ChatSystem`: of one of hfvla's families, or any image-text model of transformers."""

from __future__ import annotations

from pathlib import Path

from hfvla.errors import CheckpointError
from hfvla.family import ChatSystem
from hfvla.loading import guarded
from hfvla.nn.devices import checked_device
from hfvla.paths import expand_user
from hfvla.registry import available_families, load_checkpoint

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
    from transformers import AutoConfig

    path = expand_user(str(checkpoint))
    place = checked_device(device)
    model_type = guarded(path, lambda: AutoConfig.from_pretrained(path)).model_type
    if model_type in available_families():
        spec, model, processor = load_checkpoint(path)
        if not spec.has("chat_system"):
            raise CheckpointError(
                "this family does not answer conversations",
                where=path,
                got=spec.name,
                expected="a family with `chat_system`, or an image-text model of transformers",
            )
        return spec.load("chat_system")(model.to(place).eval(), processor)
    return _plain(path, place, dtype)


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

"""Shapes of InternVL's checkpoints in transformers' format, and of one small enough for tests."""

from __future__ import annotations

from typing import Any

__all__ = ["BACKBONES", "known_backbone", "tiny_backbone"]

_VISION = {
    "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
    "attention_bias": True, "image_size": [448, 448], "patch_size": [14, 14], "layer_scale_init_value": 0.1,
}  # fmt: skip
_TEXT = {"model_type": "qwen2", "vocab_size": 151_674, "max_position_embeddings": 32_768, "rms_norm_eps": 1e-6,
         "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0}, "eos_token_id": 151_645}  # fmt: skip


def _backbone(hidden: int, layers: int, heads: int, key_heads: int, inner: int) -> dict[str, Any]:
    text = {
        **_TEXT, "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "num_key_value_heads": key_heads, "intermediate_size": inner, "tie_word_embeddings": False,
    }  # fmt: skip
    return {"vision_config": dict(_VISION), "text_config": text, "image_token_id": 151_667,
            "tie_word_embeddings": False}  # fmt: skip


BACKBONES: dict[str, dict[str, Any]] = {
    "OpenGVLab/InternVL3-1B-hf": _backbone(896, 24, 14, 2, 4864),
    "OpenGVLab/InternVL3-2B-hf": _backbone(1536, 28, 12, 2, 8960),
    "OpenGVLab/InternVL3-8B-hf": _backbone(3584, 28, 28, 4, 18_944),
}
"""Shapes of the hub's checkpoints, so that a plan needs no download; a run reads them from the checkpoint."""


def known_backbone(name: str) -> dict[str, Any] | None:
    """Return the shapes of a hub checkpoint by its id, or None where they are not kept here."""
    return BACKBONES.get(name)


def tiny_backbone(**text: Any) -> dict[str, Any]:
    """Return the settings of a backbone for tests: 32-pixel tiles of 4 tokens, hidden 32, two layers each."""
    return {
        "vision_config": {
            "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
            "image_size": [32, 32], "patch_size": [8, 8],
        },
        "text_config": {
            "model_type": "qwen2", "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2,
            "num_key_value_heads": 1, "intermediate_size": 64, "vocab_size": 512, "max_position_embeddings": 512,
            "bos_token_id": 0, "eos_token_id": 0, "tie_word_embeddings": True, **text,
        },
        "image_token_id": 1, "image_seq_length": 4, "tie_word_embeddings": True,
    }  # fmt: skip

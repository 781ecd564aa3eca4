"""Shapes of image-text models in transformers' format: hub checkpoints, and ones small enough for tests."""

from __future__ import annotations

import copy
from typing import Any

from hfvla.errors import CheckpointError, did_you_mean

__all__ = ["BACKBONES", "PART_SHAPES", "TINY_VLMS", "VLM_SHAPES", "known_backbone", "tiny_backbone", "tiny_vlm"]

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


def _qwen2_5(hidden: int, layers: int, heads: int, key_heads: int, inner: int, tied: bool, vocab: int) -> dict:
    return {
        "model_type": "qwen2_5_vl",
        "text_config": {
            "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
            "num_key_value_heads": key_heads, "intermediate_size": inner, "vocab_size": vocab, "rms_norm_eps": 1e-6,
            "max_position_embeddings": 128_000, "tie_word_embeddings": tied,
            "rope_parameters": {"rope_type": "default", "rope_theta": 1_000_000.0, "mrope_section": [16, 24, 24]},
        },
        "vision_config": {
            "depth": 32, "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": hidden,
            "patch_size": 14, "spatial_merge_size": 2, "temporal_patch_size": 2, "window_size": 112,
            "fullatt_block_indexes": [7, 15, 23, 31], "tokens_per_second": 2, "hidden_act": "silu",
        },
        "image_token_id": 151_655, "video_token_id": 151_656, "vision_start_token_id": 151_652,
        "vision_end_token_id": 151_653, "tie_word_embeddings": tied,
    }  # fmt: skip


VLM_SHAPES: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-VL-3B-Instruct": _qwen2_5(2048, 36, 16, 2, 11_008, True, 151_936),
    "Qwen/Qwen2.5-VL-7B-Instruct": _qwen2_5(3584, 28, 28, 4, 18_944, False, 152_064),
    **{name: {"model_type": "internvl", **shapes} for name, shapes in BACKBONES.items()},
}
"""Shapes of hub checkpoints, so that a plan needs no download; those of others are read from their config."""

PART_SHAPES: dict[str, dict[str, Any]] = {
    "google/siglip-base-patch16-224": {
        "model_type": "siglip_vision_model", "hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12,
        "num_attention_heads": 12, "image_size": 224, "patch_size": 16, "hidden_act": "gelu_pytorch_tanh",
    },
    "HuggingFaceTB/SmolLM2-360M-Instruct": {
        "model_type": "llama", "hidden_size": 960, "intermediate_size": 2560, "num_hidden_layers": 32,
        "num_attention_heads": 15, "num_key_value_heads": 5, "vocab_size": 49_152, "max_position_embeddings": 8192,
        "rms_norm_eps": 1e-5, "tie_word_embeddings": True,
    },
}  # fmt: skip
"""Shapes of towers and language models that shipped recipes put together, for plans; a run reads them from the hub."""

_WIDTH, _INNER, _HEADS = 32, 64, 2
_TINY_TEXT: dict[str, Any] = {
    "hidden_size": _WIDTH, "num_hidden_layers": 2, "num_attention_heads": _HEADS, "num_key_value_heads": 1,
    "intermediate_size": _INNER, "vocab_size": 512, "max_position_embeddings": 512, "bos_token_id": 0,
    "eos_token_id": 0, "pad_token_id": 1,
}  # fmt: skip
_MROPE = {"rope_type": "default", "rope_theta": 10_000.0, "mrope_section": [2, 3, 3]}
_QWEN_IDS = {"image_token_id": 2, "video_token_id": 3, "vision_start_token_id": 4, "vision_end_token_id": 5}
_QWEN_TOWER = {
    "depth": 2, "hidden_size": _WIDTH, "intermediate_size": _INNER, "num_heads": _HEADS, "out_hidden_size": _WIDTH,
    "patch_size": 8, "spatial_merge_size": 2, "temporal_patch_size": 2,
}  # fmt: skip

TINY_VLMS: dict[str, dict[str, Any]] = {
    "qwen2_5_vl": {
        "text_config": {**_TINY_TEXT, "rope_parameters": _MROPE},
        "vision_config": {**_QWEN_TOWER, "window_size": 32, "fullatt_block_indexes": [1]},
        **_QWEN_IDS,
    },
    "qwen3_vl": {
        "text_config": {**_TINY_TEXT, "head_dim": 16, "rope_parameters": _MROPE},
        "vision_config": {**_QWEN_TOWER, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]},
        **_QWEN_IDS,
    },
    "smolvlm": {
        "text_config": {"model_type": "llama", **_TINY_TEXT},
        "vision_config": {
            "hidden_size": _WIDTH, "intermediate_size": _INNER, "num_hidden_layers": 2, "num_attention_heads": _HEADS,
            "image_size": 32, "patch_size": 8,
        },
        "scale_factor": 2, "image_token_id": 2, "pad_token_id": 1,
    },
    "internvl": {**tiny_backbone(pad_token_id=1), "image_token_id": 4},
    "fast_vlm": {
        "text_config": {"model_type": "llama", **_TINY_TEXT},
        "vision_config": {
            "architecture": "test_efficientnet", "do_pooling": False, "num_classes": 0, "global_pool": "",
            "hidden_size": 256, "pretrained_cfg": {"input_size": [3, 64, 64]},
        },
        "image_seq_length": 4, "image_token_id": 2,
    },
}  # fmt: skip
"""By model type: hidden 32, two layers each, pictures of 32 x 32 pixels, or of 64 x 64 for timm's tower (4 tokens)."""


def tiny_vlm(model_type: str) -> dict[str, Any]:
    """Return the settings of a tiny backbone, with its `model_type`.

    Raises:
        CheckpointError: no tiny shapes for this type.
    """
    if model_type not in TINY_VLMS:
        raise CheckpointError("no tiny backbone", got=model_type, fix=did_you_mean(model_type, TINY_VLMS))
    return {"model_type": model_type, **copy.deepcopy(TINY_VLMS[model_type])}

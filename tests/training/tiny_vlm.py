"""A vision-language model of transformers, small enough to run for real beside its estimate."""

import torch
from transformers import InternVLConfig, InternVLForConditionalGeneration

IMAGE_TOKEN, IMAGE_TOKENS = 3, 4


def build_config(layers: int = 3):
    return InternVLConfig(
        vision_config={
            **{"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 128},
            **{"image_size": [56, 56], "patch_size": [14, 14]},
        },
        text_config={
            **{"model_type": "qwen2", "hidden_size": 64, "num_hidden_layers": layers, "intermediate_size": 160},
            **{"num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 512, "tie_word_embeddings": False},
        },
        image_token_id=IMAGE_TOKEN,
        image_seq_length=IMAGE_TOKENS,
        tie_word_embeddings=False,
    )


def build_model(device: str = "meta", attention: str = "eager", layers: int = 3):
    with torch.device(device):
        model = InternVLForConditionalGeneration(build_config(layers))
    model.set_attn_implementation(attention)
    return model.train()


def build_batch(samples: int = 8, tokens: int = 64, padding: int = 0):
    ids = torch.full((samples, tokens), 5)
    ids[:, 1 : 1 + IMAGE_TOKENS] = IMAGE_TOKEN
    mask = torch.ones_like(ids)
    if padding:
        mask[0, -padding:] = 0
    pixels = torch.randn(samples, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    return {"input_ids": ids, "attention_mask": mask, "labels": ids.clone(), "pixel_values": pixels}


def names(model, *without: str) -> list[str]:
    return [name for name, _ in model.named_parameters() if not any(part in name for part in without)]

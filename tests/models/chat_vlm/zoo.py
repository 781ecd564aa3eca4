"""One tiny checkpoint of each architecture with its own processor class, from parts that are made here."""

from functools import cache
from typing import Any

import torch
import transformers as hf
from transformers import AutoConfig, AutoModelForImageTextToText

from hfvla.backbones.shapes import TINY_VLMS
from hfvla.data.tokenizers import learn_tokenizer

WIDTH, SIDE, PATCH = 32, 32, 8
TEXT = {
    "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "intermediate_size": 64, "max_position_embeddings": 1024, "head_dim": 16,
}  # fmt: skip
SIGLIP = {
    "hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64,
    "image_size": SIDE, "patch_size": PATCH,
}  # fmt: skip
MEAN = {"image_mean": [0.5] * 3, "image_std": [0.5] * 3}
SIZE = {"height": SIDE, "width": SIDE}
TEXTS = ["What colour is the circle?", "Which shape is red?", "user assistant system", "yes no red green blue"] * 8

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{% for p in m['content'] %}"
    "{% if p['type'] == 'image' %}IMAGE{% elif p['type'] == 'video' %}VIDEO{% else %}{{ p['text'] }}{% endif %}"
    "{% endfor %}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""As most hub checkpoints have it: without generation marks."""


def tokenizer(**tokens: str) -> Any:
    named = {"im_start_token": "<|im_start|>", "im_end_token": "<|im_end|>", **tokens}
    found = learn_tokenizer(TEXTS, 420, named)
    found.eos_token = "<|im_end|>"
    return found


def template(image: str, video: str = "") -> str:
    return CHATML.replace("IMAGE", image).replace("VIDEO", video)


def qwen(kind: str) -> tuple[dict, Any]:
    words = tokenizer(
        image_token="<|image_pad|>", video_token="<|video_pad|>", vision_start="<|vision_start|>",
        vision_end="<|vision_end|>",
    )  # fmt: skip
    size = {"shortest_edge": 16 * 16, "longest_edge": 64 * 64}
    images = hf.Qwen2VLImageProcessor(patch_size=PATCH, merge_size=2, temporal_patch_size=2, size=size, **MEAN)
    video_class = hf.Qwen3VLVideoProcessor if kind == "qwen3_vl" else hf.Qwen2VLVideoProcessor
    videos = video_class(patch_size=PATCH, merge_size=2, temporal_patch_size=2, size=size, **MEAN)
    layout = template("<|vision_start|><|image_pad|><|vision_end|>", "<|vision_start|><|video_pad|><|vision_end|>")
    made = hf.Qwen3VLProcessor if kind == "qwen3_vl" else hf.Qwen2_5_VLProcessor
    ids = {
        "image_token_id": words.image_token_id, "video_token_id": words.video_token_id,
        "vision_start_token_id": words.convert_tokens_to_ids("<|vision_start|>"),
        "vision_end_token_id": words.convert_tokens_to_ids("<|vision_end|>"),
    }  # fmt: skip
    settings = dict(TINY_VLMS[kind]) | ids
    settings["text_config"] = {**settings["text_config"], "max_position_embeddings": 1024}
    return settings, made(images, words, videos, chat_template=layout)


def internvl() -> tuple[dict, Any]:
    words = tokenizer(
        start_image_token="<img>", end_image_token="</img>", context_image_token="<IMG_CONTEXT>", video_token="<video>"
    )
    images = hf.GotOcr2ImageProcessor(size=SIZE, **MEAN)
    videos = hf.InternVLVideoProcessor(size=SIZE, **MEAN)
    processor = hf.InternVLProcessor(
        images, words, videos, image_seq_length=4, chat_template=template("<IMG_CONTEXT>\n", "<video>\n")
    )
    settings = dict(TINY_VLMS["internvl"])
    settings["text_config"] = {**settings["text_config"], "max_position_embeddings": 1024}
    return {**settings, "image_token_id": words.context_image_token_id}, processor


def smolvlm(kind: str) -> tuple[dict, Any]:
    words = tokenizer(
        image_token="<image>", fake_image_token="<fake_token_around_image>", global_image_token="<global-img>",
        end_of_utterance_token="<end_of_utterance>",
    )  # fmt: skip
    size = {"longest_edge": 2 * SIDE}
    classes = {
        "smolvlm": (hf.SmolVLMImageProcessor, hf.SmolVLMProcessor),
        "idefics3": (hf.Idefics3ImageProcessor, hf.Idefics3Processor),
    }[kind]
    images = classes[0](size=size, max_image_size={"longest_edge": SIDE}, **MEAN)
    more = {}
    if kind == "smolvlm":
        more = {
            "video_processor": hf.SmolVLMVideoProcessor(
                size={"longest_edge": SIDE}, max_image_size={"longest_edge": SIDE}, **MEAN
            )
        }
    processor = classes[1](images, words, image_seq_len=4, chat_template=template("<image>", "<video>"), **more)
    settings = {
        "text_config": {"model_type": "llama", **TEXT}, "vision_config": dict(SIGLIP), "scale_factor": 2,
        "image_token_id": words.image_token_id, "pad_token_id": words.pad_token_id,
    }  # fmt: skip
    return settings, processor


def llava() -> tuple[dict, Any]:
    words = tokenizer(image_token="<image>")
    processor = hf.LlavaProcessor(
        hf.CLIPImageProcessor(size=SIZE, crop_size=SIZE, **MEAN), words, patch_size=PATCH,
        vision_feature_select_strategy="default", num_additional_image_tokens=1, chat_template=template("<image>\n"),
    )  # fmt: skip
    tower = {**SIGLIP, "model_type": "clip_vision_model", "projection_dim": WIDTH}
    return {"vision_config": tower, "text_config": {"model_type": "llama", **TEXT},
            "image_token_index": words.image_token_id}, processor  # fmt: skip


def llava_onevision() -> tuple[dict, Any]:
    words = tokenizer(image_token="<image>", video_token="<video>")
    grids = [[SIDE, SIDE], [SIDE, 2 * SIDE]]
    processor = hf.LlavaOnevisionProcessor(
        hf.LlavaOnevisionImageProcessor(size=SIZE, image_grid_pinpoints=grids, **MEAN), words,
        hf.LlavaOnevisionVideoProcessor(size=SIZE, **MEAN), num_image_tokens=(SIDE // PATCH) ** 2,
        vision_feature_select_strategy="full", chat_template=template("<image>\n", "<video>\n"),
    )  # fmt: skip
    tower = {**SIGLIP, "model_type": "siglip_vision_model", "vision_use_head": False}
    settings = {
        "vision_config": tower, "text_config": {"model_type": "qwen2", **TEXT}, "image_grid_pinpoints": grids,
        "image_token_index": words.image_token_id, "video_token_index": words.video_token_id,
        "vision_feature_select_strategy": "full", "vision_aspect_ratio": "anyres_max_9",
    }  # fmt: skip
    return settings, processor


def gemma3() -> tuple[dict, Any]:
    words = tokenizer(boi_token="<start_of_image>", eoi_token="<end_of_image>", image_token="<image_soft_token>")
    processor = hf.Gemma3Processor(
        hf.Gemma3ImageProcessor(size=SIZE, **MEAN),
        words,
        image_seq_length=4,
        chat_template=template("<start_of_image>"),
    )
    settings = {
        "vision_config": {**SIGLIP, "vision_use_head": False},
        "text_config": {**TEXT, "sliding_window": 64, "layer_types": ["sliding_attention", "full_attention"]},
        "mm_tokens_per_image": 4, "image_token_index": words.image_token_id,
        "boi_token_index": words.boi_token_id, "eoi_token_index": words.eoi_token_id,
    }  # fmt: skip
    return settings, processor


def paligemma() -> tuple[dict, Any]:
    words = tokenizer(image_token="<image>")
    images = hf.SiglipImageProcessor(size=SIZE, **MEAN)
    images.image_seq_length = (SIDE // PATCH) ** 2
    processor = hf.PaliGemmaProcessor(images, words)
    settings = {
        "vision_config": {
            **SIGLIP, "model_type": "siglip_vision_model", "vision_use_head": False, "projection_dim": WIDTH,
        },
        "text_config": {"model_type": "gemma", **TEXT}, "image_token_index": words.image_token_id,
        "projection_dim": WIDTH,
    }  # fmt: skip
    return settings, processor


MAKERS = {
    "qwen2_5_vl": lambda: qwen("qwen2_5_vl"),
    "qwen3_vl": lambda: qwen("qwen3_vl"),
    "internvl": internvl,
    "smolvlm": lambda: smolvlm("smolvlm"),
    "idefics3": lambda: smolvlm("idefics3"),
    "llava": llava,
    "llava_onevision": llava_onevision,
    "gemma3": gemma3,
    "paligemma": paligemma,
}


@cache
def made(kind: str) -> tuple[Any, Any]:
    """Return model in eval mode and processor of an architecture; do not change them."""
    settings, processor = MAKERS[kind]()
    settings = {**settings, "text_config": dict(settings["text_config"])}
    text = settings["text_config"]
    text |= {"vocab_size": len(processor.tokenizer), "pad_token_id": processor.tokenizer.pad_token_id}
    text |= {"eos_token_id": processor.tokenizer.eos_token_id, "bos_token_id": 0}
    config = AutoConfig.for_model(kind, **settings)
    torch.manual_seed(0)
    model = AutoModelForImageTextToText.from_config(config, dtype=torch.float32)
    model.generation_config.pad_token_id = processor.tokenizer.pad_token_id
    return model.eval(), processor

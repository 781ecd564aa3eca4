"""Tiny random parts with the layouts of the pretrained ones, and captioned pictures as the stamps lie on disk."""

import json

import timm
import torch
from PIL import Image
from transformers import BertConfig, BertModel, LlamaConfig, LlamaForCausalLM

from hfvla.data.tokenizers import learn_encoder_tokenizer, learn_tokenizer

COLOURS = {"red": (200, 20, 20), "green": (20, 200, 20), "blue": (20, 20, 200), "white": (240, 240, 240)}


def write_parts(folder):
    """Write a tower of 1,000 classes and a sentence encoder; return the folder."""
    torch.manual_seed(0)
    folder.mkdir()
    tower = timm.create_model("test_efficientnet", num_classes=1000)
    timm.models.save_for_hf(tower, str(folder / "efficientnet-lite0"), safe_serialization=True)
    tokenizer = learn_encoder_tokenizer([f"a {colour} square" for colour in COLOURS], 200)
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
    encoder = BertModel(BertConfig(**shape, vocab_size=len(tokenizer), max_position_embeddings=128))
    encoder.save_pretrained(folder / "minilm")
    tokenizer.save_pretrained(folder / "minilm")
    return folder


def write_language(target, layers):
    """Write a tiny language model with its tokenizer; return the folder."""
    texts = ["Which sign? A. stop\nAnswer: B", "second 2", "Is it? yes", "Is it? no"] * 9
    tokenizer = learn_tokenizer(texts, 300, {"im_end_token": "<|im_end|>"})
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": layers, "num_attention_heads": 2}
    config = LlamaConfig(**shape, vocab_size=len(tokenizer), tie_word_embeddings=True)
    LlamaForCausalLM(config).save_pretrained(target)
    tokenizer.save_pretrained(target)
    return target


def write_stamps(folder, each=3):
    """Write train.jsonl, test.jsonl and test_themes.jsonl with pictures of one colour; return the folder."""
    (folder / "images").mkdir(parents=True)
    for part in ("train", "test", "test_themes"):
        lines = []
        for colour, pixels in COLOURS.items():
            for number in range(each - (part == "test_themes")):
                name = f"images/{part}_{colour}_{number}.png"
                Image.new("RGB", (48, 48), tuple(value - 5 * number for value in pixels)).save(folder / name)
                record = {"id": name, "image": name, "caption": f"A {colour} square {number}.", "theme": "squares"}
                lines.append(json.dumps({**record, "languages": {"vi": f"Hình vuông {colour} {number}."}}))
        (folder / f"{part}.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return folder

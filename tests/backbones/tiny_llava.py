"""A LLaVA of a few thousand random weights with its real processor, as a folder that `from_pretrained` loads."""

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

TEMPLATE = (
    "{% for m in messages %}{{ m['role'] }} : {% for c in m['content'] %}"
    "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }}{% endif %}{% endfor %} <end> {% endfor %}"
    "{% if add_generation_prompt %}assistant : {% endif %}"
)
KNOWN = "user assistant system : what colour is it ? a red green blue dog yes no answer A B C D . , the picture"


def build(seed: int = 0) -> tuple[LlavaForConditionalGeneration, LlavaProcessor]:
    vocabulary = {
        word: n for n, word in enumerate(["<pad>", "<end>", "<unk>", "<image>", *dict.fromkeys(KNOWN.split())])
    }
    core = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=core, pad_token="<pad>", eos_token="<end>", unk_token="<unk>",
        additional_special_tokens=["<image>"],
    )  # fmt: skip
    pictures = CLIPImageProcessor(size={"shortest_edge": 32}, crop_size={"height": 32, "width": 32})
    processor = LlavaProcessor(
        pictures, tokenizer, patch_size=16, vision_feature_select_strategy="default", num_additional_image_tokens=1,
        image_token="<image>", chat_template=TEMPLATE,
    )  # fmt: skip
    torch.manual_seed(seed)
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2, image_size=32,
            patch_size=16, projection_dim=32,
        ),
        text_config=LlamaConfig(
            hidden_size=32, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
            vocab_size=len(vocabulary), pad_token_id=0, eos_token_id=1, bos_token_id=1,
        ),
        image_token_index=vocabulary["<image>"], vision_feature_layer=-1,
    )  # fmt: skip
    model = LlavaForConditionalGeneration(config).eval()
    with torch.no_grad():  # random weights of the usual size hardly tell two pictures apart
        model.model.multi_modal_projector.linear_2.weight.mul_(60)
        model.lm_head.weight.mul_(20)
    return model, processor


def save(folder, seed: int = 0) -> str:
    model, processor = build(seed)
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return str(folder)

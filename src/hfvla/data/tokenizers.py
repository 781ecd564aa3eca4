"""A tokenizer learned on the training text, for models that start from nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["IMAGE_TOKENS", "learn_encoder_tokenizer", "learn_tokenizer"]

IMAGE_TOKENS: dict[str, str] = {
    "start_image_token": "<img>",
    "end_image_token": "</img>",
    "context_image_token": "<IMG_CONTEXT>",
    "video_token": "<video>",
}
"""Names and texts of InternVL's special tokens, for a tokenizer of our own."""


def learn_tokenizer(texts: Iterable[str], vocab_size: int, tokens: Mapping[str, str] = IMAGE_TOKENS) -> Any:
    """Learn a byte-level BPE tokenizer (Qwen's kind), with special tokens and a pad token of its own.

    Args:
        texts: training texts.
        vocab_size: size including special tokens; deterministic for the same texts in the same order.
        tokens: special tokens by the name under which a processor of transformers looks for them; default: InternVL's.

    Returns:
        `PreTrainedTokenizerFast`
    """
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<pad>", *tokens.values()]
    return PreTrainedTokenizerFast(
        tokenizer_object=_learn(texts, vocab_size, special),
        bos_token=special[0],
        eos_token=special[0],
        pad_token=special[1],
        extra_special_tokens=dict(tokens),
    )


def learn_encoder_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """Learn a byte-level BPE tokenizer for a text encoder: a class token before each text, a separator behind it.

    Args:
        texts: training texts.
        vocab_size: size including special tokens; deterministic for the same texts in the same order.

    Returns:
        `PreTrainedTokenizerFast`
    """
    from tokenizers import processors
    from transformers import PreTrainedTokenizerFast

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = _learn(texts, vocab_size, special)
    around = [(name, tokenizer.token_to_id(name)) for name in ("[CLS]", "[SEP]")]
    tokenizer.post_processor = processors.TemplateProcessing(single="[CLS] $A [SEP]", special_tokens=around)
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **dict(zip(names, special, strict=True)))


def _learn(texts: Iterable[str], vocab_size: int, special: list[str]) -> Any:
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=special,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer=trainer)
    return tokenizer

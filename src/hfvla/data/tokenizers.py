"""A tokenizer learned on the training text, for models that start from nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

__all__ = ["IMAGE_TOKENS", "learn_tokenizer"]

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
    from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    special = ["<|endoftext|>", "<pad>", *tokens.values()]
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
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token=special[0],
        eos_token=special[0],
        pad_token=special[1],
        extra_special_tokens=dict(tokens),
    )

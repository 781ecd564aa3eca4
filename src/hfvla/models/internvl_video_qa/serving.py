"""What a server asks of InternVL for video questions: how it looks at a clip, and conversations about pictures."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hfvla.data.samples.chat import Turn
from hfvla.errors import DataError
from hfvla.models.internvl_video_qa.frames import Clip
from hfvla.nn.chat_prompt import ChatPrompt, check_turns

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.internvl_video_qa.modeling_internvl_video_qa import InternVLForVideoQA

__all__ = ["chat", "facts"]


def facts(model: InternVLForVideoQA, processor: ProcessorMixin) -> dict[str, Any]:
    """Return which frames are looked at, and how answers are found."""
    return {"frames": dict(processor.frames), "answers": {"by": model.config.answer_by, "choices": [2, 4]}}


def chat(
    model: InternVLForVideoQA, processor: ProcessorMixin, turns: Sequence[Turn], images: Sequence[Any]
) -> ChatPrompt:
    """Return a conversation about pictures, each cut into tiles as a frame is, for the backbone to continue.

    Raises:
        DataError: no chat template, a text with a special token, or a conversation that is too long.
    """
    tokenizer = processor.tokenizer
    check_turns(turns, len(images), tokenizer.all_special_tokens)
    clips = [Clip(f"picture {n}", np.array(image)[None], (n,)) for n, image in enumerate(images)]
    tiles = processor.tiles(clips) if clips else None
    counts = iter([frames[0] for frames in tiles.counts] if tiles is not None else [])
    messages = []
    for turn in turns:
        parts = [processor.image_text(next(counts)) if part.type == "image" else part.text for part in turn.content]
        messages.append({"role": turn.role, "content": "\n".join(parts)})
    if processor.chat_template:
        text = processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    else:
        text = "\n".join([*(message["content"] for message in messages), "Answer:"])
    batch = tokenizer(text, add_special_tokens=False, return_tensors="pt")
    length = batch.input_ids.shape[1]
    if length >= processor.max_length:
        expected = f"fewer than {processor.max_length}"
        raise DataError("the conversation is too long", got=f"{length} tokens", expected=expected)
    with torch.inference_mode():
        features = None
        if tiles is not None and tiles.pixel_values is not None:
            features = model.get_image_features(tiles.pixel_values.to(model.device))[tiles.index.to(model.device)]
        embeddings = model.embed(batch.input_ids.to(model.device), features)
    return ChatPrompt(
        model.backbone,
        {"inputs_embeds": embeddings, "attention_mask": batch.attention_mask.to(model.device)},
        tokenizer,
        length,
        processor.max_length - length,
        {"do_sample": False, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id},
    )

"""Conversations about pictures and clips: the backbone writes, in the words that questions on clips are put in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hfvla.data.samples.chat import ChatSample, Turn
from hfvla.data.samples.chat_pictures import load_reference
from hfvla.data.text import clean_text
from hfvla.errors import DataError
from hfvla.family.chat import ChatSystem
from hfvla.models.internvl_video_qa.frames import Clip
from hfvla.nn.sampling import sampling

if TYPE_CHECKING:
    from hfvla.models.internvl_video_qa.modeling_internvl_video_qa import InternVLForVideoQA
    from hfvla.models.internvl_video_qa.processing_internvl_video_qa import InternVLVideoQAProcessor

__all__ = ["chat_system"]


def chat_system(model: InternVLForVideoQA, processor: InternVLVideoQAProcessor) -> ChatSystem:
    """Return the model as a `ChatSystem`; a picture is a clip of one frame, a clip is sampled as the config says."""

    @torch.inference_mode()
    def write(samples: Sequence[ChatSample], max_new_tokens: int, temperature: float = 0.0) -> list[str]:
        model.eval()
        clips = [_clips(processor, sample, row) for row, sample in enumerate(samples)]
        tiles = processor.tiles([clip for each in clips for clip in each])
        counts = iter(tiles.counts)
        texts = [_prompt(processor, sample, [next(counts) for _ in each])
                 for sample, each in zip(samples, clips, strict=True)]  # fmt: skip
        tokenizer = processor.tokenizer
        batch = tokenizer(texts, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt")
        length = batch.input_ids.shape[1] + max_new_tokens
        if length > processor.max_length:
            raise DataError(
                "a prompt leaves no room for an answer", where=samples[0].id, got=f"{length} tokens",
                expected=f"at most {processor.max_length}",
            )  # fmt: skip
        features = None
        if tiles.pixel_values is not None:
            found = model.get_image_features(tiles.pixel_values.to(model.device))
            features = found[tiles.index.to(model.device)]
        written = model.backbone.generate(
            inputs_embeds=model.embed(batch.input_ids.to(model.device), features),
            attention_mask=batch.attention_mask.to(model.device), max_new_tokens=max_new_tokens,
            eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id, **sampling(temperature),
        )  # fmt: skip
        return [text.strip() for text in tokenizer.batch_decode(written, skip_special_tokens=True)]

    return ChatSystem(write, vocabulary=int(model.config.get_text_config().vocab_size))


def _clips(processor: InternVLVideoQAProcessor, sample: ChatSample, row: int) -> list[Clip]:
    """Return what the sample shows, in the order of its parts."""
    pictures, videos = iter(enumerate(sample.images)), iter(sample.videos)
    clips = []
    for part in (part for turn in sample.turns for part in turn.content):
        if part.type == "image":
            number, reference = next(pictures)
            where = f"{sample.id}, picture {number}"
            pixels = np.array(load_reference(reference, where))[None]
            clips.append(Clip(f"{row}: {where}", pixels, (0,)))
        elif part.type == "video":
            clips.append(processor.read_clip(next(videos), where=sample.id))
    return clips


def _prompt(processor: InternVLVideoQAProcessor, sample: ChatSample, counts: Sequence[Sequence[int]]) -> str:
    """Return the text of a conversation up to where its answer begins."""
    left = iter(counts)
    messages = [{"role": turn.role, "content": _content(processor, turn, left, sample.id)} for turn in sample.turns]
    if processor.chat_template:
        return processor.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    heads = {"user": "", "system": "", "assistant": "Answer: "}
    return "\n".join([*(f"{heads[message['role']]}{message['content']}" for message in messages), "Answer:"])


def _content(processor: InternVLVideoQAProcessor, turn: Turn, counts: Any, where: str) -> str:
    pieces = []
    for part in turn.content:
        if part.type == "text":
            text = clean_text(part.text)
            for token in processor.tokenizer.all_special_tokens:
                if token in text:
                    raise DataError("a special token in the text", where=where, got=token, fix="Take it out.")
            pieces.append(text)
            continue
        tiles = next(counts)
        one = part.type == "image"
        pieces += [
            processor.image_text(count) if one else f"Frame{number}: {processor.image_text(count)}"
            for number, count in enumerate(tiles, 1)
        ]
    return "\n".join(pieces)

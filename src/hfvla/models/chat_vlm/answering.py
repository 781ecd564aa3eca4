"""Answers in words: prompts padded on the left, written greedily; one request of `hfvla predict`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from hfvla.data.samples.chat import ChatSample, ImageRef, Part, Turn
from hfvla.errors import DataError, PredictionError
from hfvla.models.chat_vlm.batches import check_placeholders, encode, longest, name_of, open_image
from hfvla.models.chat_vlm.rendering import render_prompt

__all__ = ["predict", "prompt_batch", "write_answers"]

_BESIDE = ("offset_mapping", "text_replacement_offsets", "labels")


def prompt_batch(processor: Any, config: Any, samples: Sequence[ChatSample], room: int) -> dict[str, Any]:
    """Return the batch of prompts, padded on the left, whose last turn is the user's.

    Args:
        processor: of the model.
        config: of the model.
        samples: whose last turn is the user's.
        room: tokens that an answer may take.

    Raises:
        DataError: a picture cannot be read, or a prompt leaves no room in the context.
    """
    texts, images = [], []
    for sample in samples:
        where = name_of(sample)
        check_placeholders(processor, sample.turns, where)
        texts.append(render_prompt(processor, sample.turns, where))
        images.append([open_image(image, f"{where}, picture {n}") for n, image in enumerate(sample.images)])
    batch = {
        name: value for name, value in encode(processor, texts, images, side="left").items() if name not in _BESIDE
    }
    most = longest(processor, config)
    lengths = batch["attention_mask"].sum(1).tolist()
    for sample, length in zip(samples, lengths, strict=True):
        if length + room > most:
            raise DataError(
                "a prompt leaves no room for an answer",
                where=name_of(sample),
                got=f"{int(length)} tokens",
                expected=f"at most {most - room}",
            )
    return batch


@torch.inference_mode()
def write_answers(
    model: Any, processor: Any, samples: Sequence[ChatSample], max_new_tokens: int = 64, **settings: Any
) -> list[str]:
    """Return what the model says to each conversation, without special tokens; greedily unless `settings` say more.

    Args:
        model: with a `generate`.
        processor: its processor.
        samples: whose last turn is the user's; at most a batch.
        max_new_tokens: of an answer.
        settings: of `generate`.
    """
    model.eval()
    batch = prompt_batch(processor, model.config, samples, max_new_tokens)
    batch = {name: value.to(model.device) if hasattr(value, "to") else value for name, value in batch.items()}
    accepted = inspect.signature(model.forward).parameters
    if "pixel_values" in batch and model.dtype != torch.float32:
        batch["pixel_values"] = batch["pixel_values"].to(model.dtype)
    if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
        batch = {name: value for name, value in batch.items() if name in accepted}
    ends = ends_of(model, processor)
    pad = processor.tokenizer.pad_token_id
    chosen = {"do_sample": False, "eos_token_id": ends, "pad_token_id": ends[0] if pad is None else pad, **settings}
    ids = model.generate(**batch, max_new_tokens=max_new_tokens, **chosen)
    written = ids[:, batch["input_ids"].shape[1] :]
    return [text.strip() for text in processor.tokenizer.batch_decode(written, skip_special_tokens=True)]


def ends_of(model: Any, processor: Any) -> list[int]:
    """Return the tokens that end an answer: the model's, and the tokenizer's."""
    own = model.generation_config.eos_token_id
    ends = [*(own if isinstance(own, list | tuple) else [own]), processor.tokenizer.eos_token_id]
    return [int(token) for token in dict.fromkeys(ends) if token is not None]


def predict(model: Any, processor: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer {"question", "image" or "images", "messages", "max_new_tokens"}; the reply is JSON-serialisable.

    Args:
        model: of `load_checkpoint`.
        processor: its processor.
        request: `image` is a path, `images` several; `messages` is a conversation in OpenAI's form, in place of
            `question`, whose pictures are given by `images` in the order of the image parts.

    Raises:
        DataError: no question, or a picture cannot be read.
        PredictionError: nothing was written.
    """
    sample = _asked(request)
    text = write_answers(model, processor, [sample], int(request.get("max_new_tokens") or 256))[0]
    if not text:
        raise PredictionError("the model ends its answer before a word", where=name_of(sample))
    return {"question": sample.turns[-1].text, "answer": text, "images": [image.path for image in sample.images]}


def _asked(request: Mapping[str, Any]) -> ChatSample:
    paths = request.get("images") or ([request["image"]] if request.get("image") else [])
    images = tuple(ImageRef(path=str(path)) for path in paths)
    if request.get("messages"):
        turns = tuple(_turn(message) for message in request["messages"])
    elif str(request.get("question") or "").strip():
        turns = (Turn("user", (*[Part("image")] * len(images), Part("text", str(request["question"])))),)
    else:
        raise DataError(
            "the request is not complete", got="no question", expected="question, and image where there is one"
        )
    placed = sum(part.type == "image" for turn in turns for part in turn.content)
    if placed != len(images):
        raise DataError("image parts and images differ", got=f"{placed} parts, {len(images)} images")
    return ChatSample(id="request", turns=turns, images=images)


def _turn(message: Mapping[str, Any]) -> Turn:
    content = message.get("content") or ""
    parts = [{"type": "text", "text": content}] if isinstance(content, str) else content
    shown = tuple(
        Part("text", str(part.get("text", ""))) if part.get("type") == "text" else Part("image") for part in parts
    )
    return Turn(message.get("role", "user"), shown)

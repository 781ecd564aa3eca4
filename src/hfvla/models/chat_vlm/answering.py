"""Answers in words: prompts padded on the left, written greedily; one request of `hfvla predict`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from hfvla.data.samples.chat import ChatSample, ImageRef, text_turn
from hfvla.data.samples.chat_pictures import load_reference, reference_of
from hfvla.errors import DataError, PredictionError
from hfvla.family import AnswerLosses, ChatSystem
from hfvla.losses.text import IGNORE_INDEX
from hfvla.models.chat_vlm.batches import check_placeholders, conversation_of, longest, name_of, picture_name
from hfvla.models.chat_vlm.encoding import encode, encode_conversations
from hfvla.models.chat_vlm.joining import join_rows
from hfvla.models.chat_vlm.rendering import render, render_prompt
from hfvla.models.chat_vlm.videos import read_clip
from hfvla.nn.sampling import sampling

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

__all__ = ["chat_system", "ends_of", "placed", "predict", "prompt_batch", "write_answers"]

_BESIDE = ("offset_mapping", "text_replacement_offsets", "labels")


def prompt_batch(
    processor: ProcessorMixin,
    config: PreTrainedConfig,
    samples: Sequence[ChatSample],
    room: int,
    decoded: Sequence[Sequence[Any]] | None = None,
) -> dict[str, Any]:
    """Return the batch of prompts, padded on the left, whose last turn is the user's.

    Args:
        processor: of the model.
        config: of the model.
        samples: whose last turn is the user's.
        room: tokens that an answer may take.
        decoded: pictures of each sample, where they are decoded already.

    Raises:
        DataError: a picture cannot be read, or a prompt leaves no room in the context.
    """
    texts, images, clips = [], [], []
    for number, sample in enumerate(samples):
        where = name_of(sample)
        check_placeholders(processor, sample.turns, where)
        texts.append(render_prompt(processor, sample.turns, where))
        if decoded is not None:
            images.append(list(decoded[number]))
        else:
            images.append([load_reference(one, picture_name(where, n, one)) for n, one in enumerate(sample.images)])
        clips.append([read_clip(processor, path, f"{where}, video {n}") for n, path in enumerate(sample.videos)])
    if any(clips) and len(texts) > 1:  # of several lengths, perhaps
        rows = [
            _asked(processor, [text], [shown], [seen]) for text, shown, seen in zip(texts, images, clips, strict=True)
        ]
        names, pad = [name_of(sample) for sample in samples], processor.tokenizer.pad_token_id or 0
        batch = join_rows(rows, names, pad, left=True)
    else:
        batch = _asked(processor, texts, images, clips)
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


def _asked(processor: ProcessorMixin, texts: Any, images: Any, clips: Any) -> dict[str, Any]:
    batch = encode(processor, texts, images, clips, side="left")
    return {name: value for name, value in batch.items() if name not in _BESIDE}


@torch.inference_mode()
def write_answers(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    samples: Sequence[ChatSample],
    max_new_tokens: int = 64,
    **settings: Any,
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
    batch = placed(model, prompt_batch(processor, model.config, samples, max_new_tokens))
    ends = ends_of(model, processor)
    pad = processor.tokenizer.pad_token_id
    chosen = {"do_sample": False, "eos_token_id": ends, "pad_token_id": ends[0] if pad is None else pad, **settings}
    ids = model.generate(**batch, max_new_tokens=max_new_tokens, **chosen)
    written = ids[:, batch["input_ids"].shape[1] :]
    return [text.strip() for text in processor.tokenizer.batch_decode(written, skip_special_tokens=True)]


def placed(model: PreTrainedModel, batch: Mapping[str, Any]) -> dict[str, Any]:
    """Return a batch on the model's device, pixels in its own type, without what `forward` does not take."""
    accepted = inspect.signature(model.forward).parameters
    any_name = any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values())
    found = {}
    for name, value in batch.items():
        if any_name or name in accepted:
            value = value.to(model.device) if isinstance(value, torch.Tensor) else value
            found[name] = value.to(model.dtype) if name.startswith("pixel_values") else value
    return found


def chat_system(model: PreTrainedModel, processor: ProcessorMixin) -> ChatSystem:
    """Return how a model answers conversations: for evaluations, benchmarks and servers."""

    @torch.inference_mode()
    def answer_losses(samples: Sequence[ChatSample]) -> list[AnswerLosses]:
        model.eval()
        most = longest(processor, model.config)
        batch = encode_conversations(processor, [conversation_of(processor, _last(s)) for s in samples], most)
        labels = batch.pop("labels")
        given = {name: value for name, value in batch.items() if name != "sequence_weights"}
        logits = model(**placed(model, given)).logits.float().cpu()
        found = []
        for row, targets in zip(logits, labels, strict=True):
            places = (targets != IGNORE_INDEX).nonzero()[:, 0]
            ids = targets[places]
            losses = torch.nn.functional.cross_entropy(row[places - 1], ids, reduction="none")
            pieces = tuple(processor.tokenizer.decode([int(token)]) for token in ids)
            found.append(AnswerLosses(ids.numpy(), losses.numpy().astype(np.float64), pieces))
        return found

    def answer_ids(sample: ChatSample) -> list[int]:
        rendered = render(processor, _last(sample).turns, name_of(sample))
        text = rendered.suffix if rendered.suffix is not None else rendered.text[slice(*rendered.spans[-1])]
        return list(processor.tokenizer(text, add_special_tokens=False).input_ids)

    def write(samples: Sequence[ChatSample], max_new_tokens: int, temperature: float = 0.0) -> list[str]:
        return write_answers(model, processor, samples, max_new_tokens, **sampling(temperature))

    return ChatSystem(
        write=write,
        answer_losses=answer_losses,
        answer_ids=answer_ids,
        vocabulary=int(model.get_input_embeddings().weight.shape[0]),
    )


def _last(sample: ChatSample) -> ChatSample:
    """Return a sample of whose answers the last alone is learned."""
    turns = [replace(turn, train=False) for turn in sample.turns[:-1]]
    return replace(sample, turns=(*turns, replace(sample.turns[-1], train=True)), rejected=())


def ends_of(model: PreTrainedModel, processor: ProcessorMixin) -> list[int]:
    """Return the tokens that end an answer: the model's, and the tokenizer's."""
    own = model.generation_config.eos_token_id
    ends = [*(own if isinstance(own, list | tuple) else [own]), processor.tokenizer.eos_token_id]
    return [int(token) for token in dict.fromkeys(ends) if token is not None]


def predict(model: PreTrainedModel, processor: ProcessorMixin, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer {"question", "image", "video", "max_new_tokens", "temperature"}; the reply is JSON-serialisable.

    Args:
        model: of `load_checkpoint`.
        processor: its processor.
        request: `image` is one picture or a list: paths, bytes or PIL images; `video` one path or a list.

    Raises:
        DataError: no question, a picture or video cannot be read, or the model takes no videos.
        PredictionError: nothing was written.
    """
    images = tuple(_reference(image) for image in _several(request.get("image")))
    videos = tuple(str(path) for path in _several(request.get("video")))
    question = str(request.get("question") or "").strip()
    if not question:
        raise DataError(
            "the request is not complete", got="no question", expected="question, and image if there is one"
        )
    sample = ChatSample(
        "request", (text_turn("user", question, images=len(images), videos=len(videos)),), images, videos
    )
    settings = sampling(float(request.get("temperature") or 0))
    text = write_answers(model, processor, [sample], int(request.get("max_new_tokens") or 256), **settings)[0]
    if not text:
        raise PredictionError("the model ends its answer before a word", where=question)
    shown = {"images": [image.path for image in images if image.path]} | ({"videos": list(videos)} if videos else {})
    return {"question": question, "answer": text, **shown}


def _several(given: Any) -> Any:
    if given is None:
        return ()
    return given if isinstance(given, list | tuple) else [given]


def _reference(image: Any) -> ImageRef:
    if isinstance(image, bytes):
        return ImageRef(data=image)
    return ImageRef(path=str(image)) if isinstance(image, str) or hasattr(image, "__fspath__") else reference_of(image)

"""Rows to batches: the model's own processor and chat template, labels on the assistant's turns alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from hfvla.data.pictures import load_picture
from hfvla.data.samples.chat import ChatSample, ImageRef, Turn, check_chat
from hfvla.data.sources.census import UnusableError
from hfvla.errors import DataError
from hfvla.losses.text import IGNORE_INDEX
from hfvla.models.chat_vlm.objective import PAIRS, WEIGHTS
from hfvla.models.chat_vlm.rendering import Rendered, render

__all__ = ["ChatCollator", "Conversation", "encode", "encode_conversations", "open_image", "read_sample"]

logger = logging.getLogger(__name__)

_UNLIMITED = 10**6  # tokenizers without a limit say 10^30


@dataclass(frozen=True)
class Conversation:
    """A conversation ready for the processor.

    Attributes:
        rendered: its text, and what of it is learned.
        images: its pictures, decoded.
        where: names the row in errors.
        weight: of its tokens.
    """

    rendered: Rendered
    images: tuple[Any, ...]
    where: str
    weight: float = 1.0


class ChatCollator:
    """Makes batches of `hfvla.data.samples.chat.ChatSample` rows.

    Args:
        processor: of the model.
        config: of the model.
        losses: loss terms of the stage; with `dpo`, rows with `rejected` turns give a second sequence.
        training: unused: nothing is augmented.
    """

    def __init__(self, processor: Any, config: Any, losses: Sequence[str] = (), training: bool = False) -> None:
        self.processor, self.config = processor, config
        self.losses = tuple(losses) or ("sft",)
        self.max_length = longest(processor, config)
        check_vocabulary(processor, config)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return what the model's `forward` takes, `labels` [S, T], `sequence_weights` [S] and, with dpo, `pairs`.

        Raises:
            DataError: a row that cannot be used, by its name.
        """
        chosen: list[Conversation] = []
        worse: list[tuple[int, Conversation]] = []
        for row in rows:
            sample = read_sample(row)
            chosen.append(self._conversation(sample, sample.turns, sample.weight))
            if sample.rejected and "dpo" in self.losses:
                worse.append((len(chosen) - 1, self._conversation(sample, sample.rejected, 0.0)))
        conversations = [*chosen, *(conversation for _, conversation in worse)]
        batch = encode_conversations(self.processor, conversations, self.max_length)
        if "dpo" in self.losses:
            pairs = [[better, len(chosen) + number] for number, (better, _) in enumerate(worse)]
            batch[PAIRS] = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
        return batch

    def _conversation(self, sample: ChatSample, turns: Sequence[Turn], weight: float) -> Conversation:
        where = name_of(sample)
        images = tuple(open_image(image, f"{where}, picture {n}") for n, image in enumerate(sample.images))
        check_placeholders(self.processor, turns, where)
        return Conversation(render(self.processor, turns, where), images, where, weight)


def name_of(sample: ChatSample) -> str:
    """Return how errors name a sample: its source and id."""
    return f"row '{sample.id}'" + (f" of {sample.source}" if sample.source else "")


def read_sample(row: Mapping[str, Any]) -> ChatSample:
    """Return the sample of a row, checked.

    Raises:
        DataError: columns of another kind, or a conversation that cannot be trained on.
    """
    try:
        sample = ChatSample.from_row(dict(row))
    except (KeyError, TypeError, AttributeError) as error:
        raise DataError(
            "not a row of a conversation",
            where=f"row '{row.get('id', '?')}'",
            got=f"{type(error).__name__}: {error}; columns {', '.join(sorted(map(str, row)))}",
            expected="the columns of hfvla.data.samples.chat.chat_features()",
        ) from None
    try:
        check_chat(sample)
    except UnusableError as error:
        raise DataError(str(error), where=name_of(sample)) from None
    return sample


def open_image(image: ImageRef, where: str) -> Any:
    """Decode a picture from where its bytes lie.

    Raises:
        DataError: it cannot be read.
    """
    if image.data:
        return load_picture(image.data, where)
    if not image.size:
        return load_picture(image.path, f"{where}, {image.path}")
    try:
        with open(image.path, "rb") as file:
            file.seek(image.offset)
            return load_picture(file.read(image.size), f"{where}, {image.path} at {image.offset}")
    except OSError as error:
        raise DataError("a picture cannot be read", where=f"{where}, {image.path}", got=str(error)) from None


def check_placeholders(processor: Any, turns: Sequence[Turn], where: str) -> None:
    """Refuse texts that hold the model's own placeholder of a picture or video.

    Raises:
        DataError: a text that does: it would stand for a picture that is not there.
    """
    for kind in ("image_token", "video_token"):
        token = getattr(processor, kind, None)
        for number, turn in enumerate(turns):
            if isinstance(token, str) and token and any(token in part.text for part in turn.content):
                raise DataError(
                    "a text holds the model's placeholder of a picture, and no picture belongs to it",
                    where=f"{where}, turn {number}",
                    got=token,
                    fix="Give the place as a part of type image, or take the placeholder out of the text.",
                )


def check_vocabulary(processor: Any, config: Any) -> None:
    """Refuse a tokenizer with tokens that the model has no embedding for.

    Raises:
        DataError: naming both sizes.
    """
    size = getattr(config.get_text_config(), "vocab_size", None)
    tokens = len(processor.tokenizer)
    if size is not None and tokens > size:
        raise DataError(
            "the tokenizer has more tokens than the model has embeddings",
            where=type(config).__name__,
            got=f"{tokens} tokens, vocab_size {size}",
            fix="Name further tokens in model.options.tokens: embeddings are then added for them.",
        )


def longest(processor: Any, config: Any) -> int:
    """Return the most tokens of a conversation: the tokenizer's limit, or the model's context if that is less."""
    context = getattr(config.get_text_config(), "max_position_embeddings", None) or _UNLIMITED
    return int(min(processor.tokenizer.model_max_length, context, _UNLIMITED))


def encode(
    processor: Any, texts: Sequence[str], images: Sequence[Sequence[Any]], side: str = "right", **more: Any
) -> dict[str, Any]:
    """Return a processor's batch for texts and pictures, with `offset_mapping` and `text_replacement_offsets`."""
    return dict(
        processor(
            text=list(texts),
            images=[list(pictures) for pictures in images] if any(images) else None,
            padding=True,
            padding_side=side,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_text_replacement_offsets=True,
            return_tensors="pt",
            **more,
        )
    )


def encode_conversations(processor: Any, conversations: Sequence[Conversation], max_length: int) -> dict[str, Tensor]:
    """Return the batch of several conversations with labels and weights.

    Raises:
        DataError: a conversation is too long, or the place of an answer in the tokens is not certain.
    """
    try:
        suffixes = [c.rendered.suffix for c in conversations if c.rendered.suffix is not None]
        more: dict[str, Any] = {"suffix": suffixes} if suffixes else {}
        batch = encode(processor, [c.rendered.text for c in conversations], [c.images for c in conversations], **more)
    except (ValueError, IndexError, TypeError, StopIteration) as error:
        names = ", ".join(c.where for c in conversations[:4])
        raise DataError(
            "the processor refuses these conversations", where=names, got=str(error).splitlines()[0]
        ) from error
    offsets, replaced = batch.pop("offset_mapping"), batch.pop("text_replacement_offsets", None)
    ids, mask = batch["input_ids"], batch["attention_mask"]
    labels = batch["labels"] if suffixes else torch.full_like(ids, IGNORE_INDEX)
    for number, conversation in enumerate(conversations):
        length = int(mask[number].sum())
        if length > max_length:
            raise DataError(
                "a conversation is longer than the context",
                where=conversation.where,
                got=f"{length} tokens with its {len(conversation.images)} pictures",
                expected=f"at most {max_length}",
                fix="Raise model.options.max_length, show fewer or smaller pictures, or say too_long: drop.",
            )
        if not suffixes:
            learned = _learned(conversation, offsets[number], replaced[number] if replaced else [])
            labels[number, learned] = ids[number, learned]
    batch["labels"] = labels
    batch[WEIGHTS] = torch.tensor([conversation.weight for conversation in conversations], dtype=torch.float32)
    return {name: value for name, value in batch.items() if isinstance(value, Tensor)}


def _learned(conversation: Conversation, offsets: Tensor, replaced: Sequence[Mapping[str, Any]]) -> Tensor:
    """Return [T] bool: the tokens of what is learned.

    Args:
        conversation: with spans in the text before pictures take their places.
        offsets: [T, 2] characters of each token in the text after.
        replaced: where that happened.

    Raises:
        DataError: a token lies across the border of an answer, or an answer has no token.
    """
    starts, ends = offsets[:, 0], offsets[:, 1]
    if int(ends.max()) > _moved(len(conversation.rendered.text), replaced):
        raise DataError(
            "which tokens are the assistant's is not certain: the processor changes the text that the template writes",
            where=conversation.where,
            got=repr(conversation.rendered.text[:60]),
        )
    learned = torch.zeros(len(offsets), dtype=torch.bool)
    for start, end in conversation.rendered.spans:
        first, last = (_moved(place, replaced) for place in (start, end))
        inside = (starts < last) & (ends > first) & (ends > starts)
        across = inside & ((starts < first) | (ends > last))
        if not inside.any() or across.any():
            raise DataError(
                "which tokens are the assistant's is not certain: a token lies across the border of the answer"
                if across.any()
                else "an answer has no token of its own",
                where=conversation.where,
                got=repr(conversation.rendered.text[max(start - 10, 0) : start + 10]),
                fix="Let the chat template end the line before an answer with a special token or a line break.",
            )
        learned |= inside
    return learned


def _moved(place: int, replaced: Sequence[Mapping[str, Any]]) -> int:
    """Return a character's place once pictures stand in their places."""
    gained = [one["new_span"][1] - one["span"][1] for one in replaced if one["span"][1] <= place]
    return place + (gained[-1] if gained else 0)

"""Conversations to tensors: what a model's own processor makes of them, and which of the tokens are learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hfvla.errors import DataError
from hfvla.losses.text import IGNORE_INDEX
from hfvla.models.chat_vlm.joining import ROW_AXES, join_rows, picture_axes
from hfvla.models.chat_vlm.kept import kept_by_row, kept_pictures, seen_pictures
from hfvla.models.chat_vlm.objective import WEIGHTS
from hfvla.models.chat_vlm.rendering import Rendered
from hfvla.models.chat_vlm.videos import check_clips

if TYPE_CHECKING:
    from transformers import ProcessorMixin

__all__ = ["Conversation", "axes_of", "encode", "encode_conversations"]


@dataclass(frozen=True)
class Conversation:
    """A conversation ready for the processor.

    Attributes:
        rendered: its text, and what of it is learned.
        images: its pictures, decoded.
        where: names the row in errors.
        weight: of its tokens.
        features: of its pictures, from the feature cache; None where they are to be encoded, or there are none.
        clips: its videos: frames, and where they lie in the clip.
    """

    rendered: Rendered
    images: tuple[Any, ...]
    where: str
    weight: float = 1.0
    features: Mapping[str, Tensor] | None = None
    clips: tuple[tuple[Any, Any], ...] = ()


def encode(
    processor: ProcessorMixin,
    texts: Sequence[str],
    images: Sequence[Sequence[Any]],
    clips: Sequence[Sequence[tuple[Any, Any]]] = (),
    side: str = "right",
    **more: Any,
) -> dict[str, Any]:
    """Return a processor's batch for texts, pictures and videos, with `offset_mapping` and `text_replacement_offsets`.

    Args:
        processor: of the model.
        texts: with a placeholder for each picture and video.
        images: of each text.
        clips: of each text: frames, and where they lie in the clip. With any, there is one text: what several show
            may be of different lengths, and `joining.join_rows` puts them together.
        side: that is padded.
        more: for the processor.
    """
    shown = [clip for row in clips for clip in row]
    if shown:
        check_clips(processor, any(images), shown)
        more |= {"videos": [frames for frames, _ in shown], "video_metadata": [told for _, told in shown]}
        more["do_sample_frames"] = False
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


def encode_conversations(
    processor: ProcessorMixin, conversations: Sequence[Conversation], max_length: int
) -> dict[str, Tensor]:
    """Return the batch of several conversations with labels and weights.

    Raises:
        DataError: a conversation is too long, or the place of an answer in the tokens is not certain.
    """
    if len(conversations) > 1 and any(one.clips for one in conversations):
        rows = [encode_conversations(processor, [one], max_length) for one in conversations]
        pad = processor.tokenizer.pad_token_id or 0
        return join_rows(rows, [one.where for one in conversations], pad, axes=axes_of(conversations, rows))
    try:
        suffixes = [c.rendered.suffix for c in conversations if c.rendered.suffix is not None]
        more: dict[str, Any] = {"suffix": suffixes} if suffixes else {}
        texts, images = [c.rendered.text for c in conversations], [c.images for c in conversations]
        features = [c.features for c in conversations]
        with nullcontext() if not any(features) else kept_pictures(processor, features):
            batch = encode(processor, texts, images, [c.clips for c in conversations], **more)
        if any(features):
            batch = seen_pictures(batch, features)
        if any(one.clips for one in conversations) and axes_of(conversations, [batch]):
            batch = _in_one_row(batch)
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
                got=f"{length} tokens with its {_shown(conversation)}",
                expected=f"at most {max_length}",
                fix="Raise model.options.max_length, show fewer or smaller pictures, or say too_long: leave_out.",
            )
        if suffixes:
            continue
        if replaced is None:  # a processor that does not tell where pictures took their places
            places = _aligned(processor, conversation, ids[number, mask[number].bool()])
            learned = torch.zeros(ids.shape[1], dtype=torch.bool)
            learned[mask[number].bool()] = _learned(conversation, places, [])
        else:
            learned = _learned(conversation, offsets[number], replaced[number] if len(replaced) else [])
        labels[number, learned] = ids[number, learned]
    batch["labels"] = labels
    batch[WEIGHTS] = torch.tensor([conversation.weight for conversation in conversations], dtype=torch.float32)
    return {name: value for name, value in batch.items() if isinstance(value, Tensor)}


def axes_of(conversations: Sequence[Conversation], rows: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return along which axis pictures of encoded conversations follow one another (`joining.picture_axes`)."""
    kept = any(one.features is not None and kept_by_row(one.features) for one in conversations)
    return dict(ROW_AXES) if kept else picture_axes(rows)


def _in_one_row(batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch of one conversation with its videos behind one another, where each was a row (SmolVLM)."""
    return {
        name: value.flatten(0, 1)[None] if name in ROW_AXES and len(value) > 1 else value
        for name, value in batch.items()
    }


def _shown(conversation: Conversation) -> str:
    clips = f" and {len(conversation.clips)} videos" if conversation.clips else ""
    return f"{len(conversation.images)} pictures{clips}"


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


def _aligned(processor: ProcessorMixin, conversation: Conversation, ids: Tensor) -> Tensor:
    """Return [T, 2] characters of each token in the text before pictures take their places; [0, 0] for theirs.

    Args:
        processor: of the model.
        conversation: with one placeholder a picture in its text.
        ids: [T] as the processor made them of it.

    Raises:
        DataError: without what belongs to pictures, the two are not the same tokens.
    """
    plain = processor.tokenizer(conversation.rendered.text, add_special_tokens=False, return_offsets_mapping=True)
    token = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
    pictures = ({token} | (set(ids.tolist()) - set(plain.input_ids))) if conversation.images else set()
    words = [
        (id_, place) for id_, place in zip(plain.input_ids, plain.offset_mapping, strict=True) if id_ not in pictures
    ]
    kept = [number for number, id_ in enumerate(ids.tolist()) if id_ not in pictures]
    if [id_ for id_, _ in words] != [int(ids[number]) for number in kept]:
        raise DataError(
            "which tokens are the assistant's is not certain: the processor changes the text around pictures",
            where=conversation.where,
            got=repr(conversation.rendered.text[:60]),
            fix="Let the chat template write a line break behind each picture.",
        )
    places = torch.zeros(len(ids), 2, dtype=torch.long)
    places[kept] = torch.tensor([place for _, place in words], dtype=torch.long).reshape(-1, 2)
    return places


def _moved(place: int, replaced: Sequence[Mapping[str, Any]]) -> int:
    """Return a character's place once pictures stand in their places."""
    gained = [one["new_span"][1] - one["span"][1] for one in replaced if one["span"][1] <= place]
    return place + (gained[-1] if gained else 0)

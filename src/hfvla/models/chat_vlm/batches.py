"""Rows to batches: the model's own processor and chat template, labels on the assistant's turns alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hfvla.data.packing import layout_for, pack_batch, unpacked
from hfvla.data.rows.group_ids import SOURCE_IDS, source_ids
from hfvla.data.samples.chat import ChatSample, ImageRef, Turn, check_chat
from hfvla.data.samples.chat_pictures import load_reference
from hfvla.data.sources.census import UnusableError
from hfvla.errors import DataError, RecipeError
from hfvla.family import CACHED_FEATURES
from hfvla.losses.text import IGNORE_INDEX
from hfvla.models.chat_vlm.kept import blank_images, kept_by_row, kept_pictures, seen_pictures
from hfvla.models.chat_vlm.lengths import TokenLengths
from hfvla.models.chat_vlm.objective import PAIRS, WEIGHTS
from hfvla.models.chat_vlm.rendering import Rendered, render
from hfvla.models.chat_vlm.tower import TILES
from hfvla.models.chat_vlm.videos import check_kinds, read_clip

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin

__all__ = [
    "ChatCollator",
    "Conversation",
    "check_placeholders",
    "conversation_of",
    "encode",
    "encode_conversations",
    "longest",
    "name_of",
    "picture_name",
    "read_sample",
]

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
        features: of its pictures, from the feature cache; None where they are to be encoded, or there are none.
        clips: its videos: frames, and where they lie in the clip.
    """

    rendered: Rendered
    images: tuple[Any, ...]
    where: str
    weight: float = 1.0
    features: Mapping[str, Tensor] | None = None
    clips: tuple[tuple[Any, Any], ...] = ()


class ChatCollator:
    """Makes batches of `hfvla.data.samples.chat.ChatSample` rows, padded or packed (`hfvla.data.packing`).

    Args:
        processor: of the model.
        config: of the model.
        losses: loss terms of the stage; with `dpo`, rows with `rejected` turns give a second sequence.
        training: unused: nothing is augmented.
    """

    def __init__(
        self, processor: ProcessorMixin, config: PreTrainedConfig, losses: Sequence[str] = (), training: bool = False
    ) -> None:
        self.processor, self.config = processor, config
        self.losses = tuple(losses) or ("sft",)
        self.max_length = longest(processor, config)
        self.lengths = TokenLengths(processor)
        check_vocabulary(processor, config)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return what the model's `forward` takes, `labels` [S, T], `sequence_weights` [S] and, with dpo, `pairs`.

        Raises:
            DataError: a row that cannot be used, by its name.
        """
        packs = unpacked(rows)
        rows = rows if packs is None else [row for members in packs for row in members]
        chosen: list[Conversation] = []
        worse: list[tuple[int, Conversation]] = []
        for row in rows:
            sample, features = read_sample(row), row.get(CACHED_FEATURES)
            if sample.videos and CACHED_FEATURES in row:
                raise DataError(
                    "the feature cache keeps pictures, and this row has a video",
                    where=name_of(sample),
                    fix="Leave `cache` out of the stage.",
                )
            chosen.append(conversation_of(self.processor, sample, features))
            if sample.rejected and "dpo" in self.losses:
                pair = replace(sample, turns=sample.rejected, weight=0.0)
                worse.append((len(chosen) - 1, conversation_of(self.processor, pair, features)))
        conversations = [*chosen, *(conversation for _, conversation in worse)]
        if packs is not None:
            return self._packed(packs, rows, chosen)
        batch = encode_conversations(self.processor, conversations, self.max_length)
        batch[SOURCE_IDS] = torch.tensor(source_ids([*rows, *(rows[better] for better, _ in worse)]))
        if "dpo" in self.losses:
            pairs = [[better, len(chosen) + number] for number, (better, _) in enumerate(worse)]
            batch[PAIRS] = torch.tensor(pairs, dtype=torch.long).reshape(-1, 2)
        return batch

    def token_lengths(self, rows: Any) -> list[int]:
        """Return the tokens of each row, its pictures' included; of pictures only the headers are read."""
        return [self.lengths(read_sample(row)) for row in rows]

    def _packed(
        self, packs: Sequence[Sequence[Any]], rows: Sequence[Any], conversations: Sequence[Conversation]
    ) -> dict[str, Tensor]:
        if "dpo" in self.losses:
            raise RecipeError("packing does not go with the dpo term", fix="Take one of them out of the stage.")
        encoded = [encode_conversations(self.processor, [one], self.max_length) for one in conversations]
        weights = torch.cat([one.pop(WEIGHTS) for one in encoded])
        wide = any("pixel_attention_mask" in one and one["pixel_values"].ndim == 5 for one in encoded)  # Idefics' kind
        wide = wide or any(one.features is not None and kept_by_row(one.features) for one in conversations)
        axes = {"pixel_values": 1, "pixel_attention_mask": 1, TILES: 1} if wide else {}
        parts = iter(encoded)
        batch = pack_batch(
            [[next(parts) for _ in members] for members in packs],
            self.processor.tokenizer.pad_token_id or 0,
            layout_for(getattr(self.config, "_attn_implementation", None)),
            axes,
        )
        return {**batch, WEIGHTS: weights, SOURCE_IDS: torch.tensor(source_ids(rows))}


def conversation_of(
    processor: ProcessorMixin, sample: ChatSample, features: Mapping[str, Tensor] | None = None
) -> Conversation:
    """Return a sample ready for the processor, its pictures decoded unless their features are kept.

    Raises:
        DataError: a picture cannot be read, or which tokens are the assistant's is not certain.
    """
    where = name_of(sample)
    check_placeholders(processor, sample.turns, where)
    if features is not None:
        images = blank_images(len(sample.images))
    else:
        images = tuple(load_reference(image, picture_name(where, n, image)) for n, image in enumerate(sample.images))
    clips = tuple(read_clip(processor, path, f"{where}, video {n}") for n, path in enumerate(sample.videos))
    return Conversation(render(processor, sample.turns, where), images, where, sample.weight, features, clips)


def name_of(sample: ChatSample) -> str:
    """Return how errors name a sample: its source and id."""
    return f"row '{sample.id}'" + (f" of {sample.source}" if sample.source else "")


def picture_name(where: str, number: int, image: ImageRef) -> str:
    """Return how errors name a picture of a sample."""
    return f"{where}, picture {number}" + (f", {image.path}" if image.path else "")


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


def check_placeholders(processor: ProcessorMixin, turns: Sequence[Turn], where: str) -> None:
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


def check_vocabulary(processor: ProcessorMixin, config: PreTrainedConfig) -> None:
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


def longest(processor: ProcessorMixin, config: PreTrainedConfig) -> int:
    """Return the most tokens of a conversation: the tokenizer's limit, or the model's context if that is less."""
    context = getattr(config.get_text_config(), "max_position_embeddings", None) or _UNLIMITED
    return int(min(processor.tokenizer.model_max_length, context, _UNLIMITED))


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
        clips: of each text: frames, and where they lie in the clip.
        side: that is padded.
        more: for the processor.
    """
    shown = [clip for row in clips for clip in row]
    if shown:
        check_kinds(processor, any(images))
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
    try:
        suffixes = [c.rendered.suffix for c in conversations if c.rendered.suffix is not None]
        more: dict[str, Any] = {"suffix": suffixes} if suffixes else {}
        texts, images = [c.rendered.text for c in conversations], [c.images for c in conversations]
        features = [c.features for c in conversations]
        with nullcontext() if not any(features) else kept_pictures(processor, features):
            batch = encode(processor, texts, images, [c.clips for c in conversations], **more)
        if any(features):
            batch = seen_pictures(batch, features)
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

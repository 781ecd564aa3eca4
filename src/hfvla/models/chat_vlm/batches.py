"""Rows to batches: the model's own processor and chat template, labels on the assistant's turns alone."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
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
from hfvla.models.chat_vlm.encoding import Conversation, axes_of, encode_conversations
from hfvla.models.chat_vlm.joining import check_together
from hfvla.models.chat_vlm.kept import blank_clips, blank_images
from hfvla.models.chat_vlm.lengths import TokenLengths
from hfvla.models.chat_vlm.objective import PAIRS, WEIGHTS
from hfvla.models.chat_vlm.rendering import render
from hfvla.models.chat_vlm.videos import read_clip

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin

__all__ = [
    "ChatCollator",
    "check_placeholders",
    "conversation_of",
    "longest",
    "name_of",
    "picture_name",
    "read_sample",
]

logger = logging.getLogger(__name__)

_UNLIMITED = 10**6  # tokenizers without a limit say 10^30


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
        """Return the tokens of each row, its pictures' and videos' included; of these only the headers are read."""
        return [self.lengths(read_sample(row)) for row in rows]

    def _packed(
        self, packs: Sequence[Sequence[Any]], rows: Sequence[Any], conversations: Sequence[Conversation]
    ) -> dict[str, Tensor]:
        if "dpo" in self.losses:
            raise RecipeError("packing does not go with the dpo term", fix="Take one of them out of the stage.")
        encoded = [encode_conversations(self.processor, [one], self.max_length) for one in conversations]
        weights = torch.cat([one.pop(WEIGHTS) for one in encoded])
        check_together(encoded, [one.where for one in conversations])
        parts = iter(encoded)
        batch = pack_batch(
            [[next(parts) for _ in members] for members in packs],
            self.processor.tokenizer.pad_token_id or 0,
            layout_for(getattr(self.config, "_attn_implementation", None)),
            axes_of(conversations, encoded),
        )
        return {**batch, WEIGHTS: weights, SOURCE_IDS: torch.tensor(source_ids(rows))}


def conversation_of(
    processor: ProcessorMixin, sample: ChatSample, features: Mapping[str, Tensor] | None = None
) -> Conversation:
    """Return a sample ready for the processor, its pictures and videos decoded unless their features are kept.

    Raises:
        DataError: a picture cannot be read, or which tokens are the assistant's is not certain.
    """
    where = name_of(sample)
    check_placeholders(processor, sample.turns, where)
    if features is not None:
        images, clips = blank_images(len(sample.images)), blank_clips(len(sample.videos))
    else:
        images = tuple(load_reference(one, picture_name(where, n, one)) for n, one in enumerate(sample.images))
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

"""From video-question rows to batches, and the tokenizer a model from scratch learns on its training text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hfvla.data.choices import LETTERS, reorder_choices, shuffle_choices
from hfvla.data.epoch import AUGMENTATION_SEED
from hfvla.data.tokenizers import learn_tokenizer
from hfvla.errors import CheckpointError, DataError
from hfvla.family import CACHED_FEATURES
from hfvla.losses.text import IGNORE_INDEX
from hfvla.models.internvl_video_qa.configuration_internvl_video_qa import InternVLVideoQAConfig
from hfvla.models.internvl_video_qa.frames_internvl_video_qa import FrameMode
from hfvla.models.internvl_video_qa.processing_internvl_video_qa import InternVLVideoQAProcessor
from hfvla.models.internvl_video_qa.prompts_internvl_video_qa import PromptItem

__all__ = ["InternVLVideoQACollator", "build_tokenizer", "draw_mode", "training_texts"]


def draw_mode(row: Mapping[str, Any], support_dropout: float) -> tuple[FrameMode, np.random.Generator | None]:
    """Return how a row's frames are chosen this time, and the generator for its further draws.

    A row without a seed (validation, tests) is not augmented: its support frames are used where it has some.
    """
    if AUGMENTATION_SEED not in row:
        return "support", None
    generator = np.random.default_rng(row[AUGMENTATION_SEED])
    return ("segments" if generator.random() < support_dropout else "support"), generator


class InternVLVideoQACollator:
    """Reads the frames, puts the choices into this epoch's order, and encodes the questions.

    Rows that carry a seed are augmented from it: support frames are left out with `config.support_dropout`, choices
    shuffled with `config.shuffle_choices`. A resumed run sees the same again.

    Args:
        processor: the checkpoint's processor.
        config: the model's config.
        losses: loss terms of the stage; "lm" appends the letter to the prompt, "words" adds a sequence a row in which
            the choices are not shown and the answer is the right one's text.
        training: taken for the contract; what is augmented is said by the rows.
    """

    def __init__(
        self,
        processor: InternVLVideoQAProcessor,
        config: InternVLVideoQAConfig,
        losses: Sequence[str] = ("letters",),
        training: bool = True,
    ) -> None:
        for name in ("frames", "tiling"):
            if getattr(processor, name) != getattr(config, name):
                raise CheckpointError(
                    f"processor and config disagree about {name}",
                    where="InternVLVideoQACollator",
                    got=getattr(config, name),
                    expected=getattr(processor, name),
                    fix=f"{name} is decided where the model is built, and kept from then on.",
                )
        self.processor, self.config, self.losses, self.training = processor, config, tuple(losses), training

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return a batch for `InternVLForVideoQA.forward`; see there for shapes.

        Raises:
            DataError: a video cannot be read, or a question is not one.
        """
        drawn = [draw_mode(row, self.config.support_dropout) for row in rows]
        with_letters = [i for i in range(len(rows)) if "letters" in self.losses or "lm" in self.losses]
        in_words = [i for i, row in enumerate(rows) if "words" in self.losses and row["answer"] >= 0]
        places = [*with_letters, *in_words]
        if not places:
            raise DataError(
                "no row of the batch has an answer to learn", where=str(rows[0]["id"]), fix="Use labelled rows."
            )
        visual, frame_tiles = self._frames(rows, [mode for mode, _ in drawn], places)
        items = [self._item(rows[i], drawn[i][1], tiles) for i, tiles in zip(places, frame_tiles, strict=True)]
        items[len(with_letters) :] = [replace(item, in_words=True) for item in items[len(with_letters) :]]
        batch = self.processor.encode(items, with_answer=len(in_words) > 0 or "lm" in self.losses)
        if in_words:
            batch["words_mask"] = torch.arange(len(items)) >= len(with_letters)
            if "lm" not in self.losses:
                batch["labels"][: len(with_letters)] = IGNORE_INDEX
        return {**batch, **visual}

    def _frames(
        self, rows: Sequence[Mapping[str, Any]], modes: Sequence[FrameMode], places: Sequence[int]
    ) -> tuple[dict[str, Tensor], Sequence[Sequence[int]]]:
        """Return the tensors of the frames, and the tiles of each frame, for the rows at these places."""
        if CACHED_FEATURES in rows[0]:
            cached = [rows[i][CACHED_FEATURES] for i in places]
            features = torch.cat([found["image_features"] for found in cached])
            return {"image_features": features}, [found["frame_tiles"].tolist() for found in cached]
        clips = [
            self.processor.read_clip(row["video"], row["support_frames"], mode=mode, where=str(row["id"]))
            for row, mode in zip(rows, modes, strict=True)
        ]
        tiles = self.processor.tiles([clips[i] for i in places])
        return {"pixel_values": tiles.pixel_values, "tile_index": tiles.index}, tiles.counts

    def _item(
        self, row: Mapping[str, Any], generator: np.random.Generator | None, frame_tiles: Sequence[int]
    ) -> PromptItem:
        choices, answer = row["choices"], int(row["answer"])
        if generator is not None and self.config.shuffle_choices:
            shown = shuffle_choices(choices, answer, generator)
        else:
            shown = reorder_choices(choices, answer, range(len(choices)))
        return PromptItem(row["question"], shown.choices, frame_tiles, shown.answer, str(row["id"]))


def training_texts(rows: Iterable[Mapping[str, Any]]) -> Iterable[str]:
    """Yield the texts of the rows that a tokenizer is learned on."""
    for row in rows:
        yield row["question"]
        yield from row["choices"]


def build_tokenizer(texts: Iterable[str], vocab_size: int) -> Any:
    """Learn a tokenizer on training texts and on the words that prompts put around them.

    Args:
        texts: training texts.
        vocab_size: size including special tokens; deterministic for the same texts in the same order.

    Returns:
        `PreTrainedTokenizerFast`
    """
    frames = [f"Frame{number}: \n" for number in range(1, 10)] * 64
    choices = [f"{letter}. \nAnswer:{letter}" for letter in LETTERS] * 64
    return learn_tokenizer([*texts, *frames, *choices], vocab_size)

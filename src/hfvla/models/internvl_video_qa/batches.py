"""From video-question rows to batches, and the tokenizer a model from scratch learns on its training text."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from zlib import crc32

import numpy as np
import torch
from torch import Tensor

from hfvla.data.choices import LETTERS, reorder_choices, shuffle_choices
from hfvla.data.rows.agreement import check_agreement
from hfvla.data.rows.epoch import AUGMENTATION_SEED
from hfvla.data.tokenizers import learn_tokenizer
from hfvla.data.video import plan_tiles
from hfvla.family import CACHED_FEATURES, as_names
from hfvla.losses.text import IGNORE_INDEX
from hfvla.models.internvl_video_qa.configuration_internvl_video_qa import InternVLVideoQAConfig
from hfvla.models.internvl_video_qa.frames import FrameMode
from hfvla.models.internvl_video_qa.processing_internvl_video_qa import InternVLVideoQAProcessor
from hfvla.models.internvl_video_qa.wording import PromptItem

if TYPE_CHECKING:
    from hfvla.models.internvl_video_qa.modeling_internvl_video_qa import InternVLForVideoQA

__all__ = [
    "InternVLVideoQACollator",
    "build_tokenizer",
    "draw_mode",
    "plan_batch",
    "plan_tower_maps",
    "plan_visual_tokens",
    "training_texts",
]


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
        losses: loss terms of the stage; "lm" appends the letter to the prompt, "spelt" the right choice's text and
            its letter (beside "lm", in a sequence of its own); "words" adds a sequence a row in which the choices are
            not shown and the answer is the right one's text, "binding" one without a clip that names one of the
            choices and asks for its letter.
        training: taken for the contract; what is augmented is said by the rows.
    """

    def __init__(
        self,
        processor: InternVLVideoQAProcessor,
        config: InternVLVideoQAConfig,
        losses: Sequence[str] = ("letters",),
        training: bool = True,
    ) -> None:
        check_agreement(processor, config, ("frames", "tiling"), "InternVLVideoQACollator")
        self.processor, self.config, self.losses, self.training = processor, config, as_names(losses), training

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return a batch for `InternVLForVideoQA.forward`; see there for shapes.

        Rows of which none has an answer to learn become questions without frames: a batch without a loss term.

        Raises:
            DataError: a video cannot be read, or a question is not one.
        """
        drawn = [draw_mode(row, self.config.support_dropout) for row in rows]
        everyone, wanted = list(range(len(rows))), {*self.losses}
        sequences = {
            "letters": everyone if {"letters", "lm", "spelt"} & wanted else [],
            "spelt": everyone if {"lm", "spelt"} <= wanted else [],
            "words": [i for i in everyone if "words" in wanted and rows[i]["answer"] >= 0],
        }
        kinds = [kind for kind, members in sequences.items() for _ in members]
        places = [i for members in sequences.values() for i in members]
        if not places and "binding" not in wanted:
            items = [self._item(row, generator, ()) for row, (_, generator) in zip(rows, drawn, strict=True)]
            return self._marked(self.processor.encode(items), ["letters"] * len(rows))
        visual, frame_tiles = self._frames(rows, [mode for mode, _ in drawn], places) if places else ({}, [])
        items = [self._item(rows[i], drawn[i][1], tiles) for i, tiles in zip(places, frame_tiles, strict=True)]
        if "spelt" in wanted and "lm" not in wanted:
            kinds = ["spelt" if kind == "letters" else kind for kind in kinds]
        items = [
            replace(item, in_words=kind == "words", spelt=kind == "spelt")
            for item, kind in zip(items, kinds, strict=True)
        ]
        if "binding" in wanted:
            items += [self._binding_item(row, generator) for row, (_, generator) in zip(rows, drawn, strict=True)]
            kinds += ["binding"] * len(rows)
        batch = self.processor.encode(items, with_answer="lm" in wanted or bool({"words", "spelt"} & {*kinds}))
        return {**self._marked(batch, kinds), **visual}

    def _marked(self, batch: dict[str, Tensor], kinds: Sequence[str]) -> dict[str, Tensor]:
        """Mark which sequences count in which term."""
        masks = {
            kind: torch.tensor([each == kind for each in kinds]) for kind in ("letters", "spelt", "words", "binding")
        }
        batch |= {f"{kind}_mask": masks[kind] for kind in ("words", "spelt") if masks[kind].any()}
        if "labels" in batch:
            written = masks["words"] | masks["spelt"] | (masks["letters"] if "lm" in self.losses else False)
            batch["labels"][~written] = IGNORE_INDEX
        right = batch["letter_labels"]
        if "binding" in self.losses:
            batch["binding_labels"] = right.masked_fill(~masks["binding"], -1)
        again = masks["spelt"] if masks["letters"].any() else torch.zeros_like(masks["spelt"])
        batch["letter_labels"] = right.masked_fill(masks["binding"] | again, -1)  # each question once
        return batch

    def _frames(
        self, rows: Sequence[Mapping[str, Any]], modes: Sequence[FrameMode], places: Sequence[int]
    ) -> tuple[dict[str, Tensor], Sequence[Sequence[int]]]:
        """Return the tensors of the frames, and the tiles of each frame, for the rows at these places."""
        if CACHED_FEATURES in rows[0]:
            cached = [rows[i][CACHED_FEATURES] for i in places]
            name = "tower_features" if "tower_features" in cached[0] else "image_features"
            return {name: torch.cat([found[name] for found in cached])}, [
                found["frame_tiles"].tolist() for found in cached
            ]
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

    def _binding_item(self, row: Mapping[str, Any], generator: np.random.Generator | None) -> PromptItem:
        """Return the question which letter stands beside one of the row's choices: never about its right answer."""
        draws = np.random.default_rng(crc32(str(row["id"]).encode())) if generator is None else generator
        named = int(draws.integers(len(row["choices"])))
        item = self._item({**row, "answer": named}, generator, ())
        return replace(item, question=f"Answer: {row['choices'][named].strip()}")


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


_DASHCAM = (1280, 720)  # width, height of the frames that are assumed
_TEXT_TOKENS = 120  # frame marks, question, four choices, instruction; the longest of a batch
_LETTER_TOKENS, _WORD_TOKENS = 2, 8  # of an answer, with its end
_TEXT_TOKEN = 20  # of tiny vocabularies too; special tokens come before


def plan_batch(config: InternVLVideoQAConfig, batch_size: int, losses: Sequence[str]) -> dict[str, Any]:
    """Return a batch for `InternVLForVideoQA.forward` with the most frames of 720p that the config allows.

    Args:
        config: the model's config.
        batch_size: questions.
        losses: loss terms of the stage.
    """
    tiling, tokens = config.tiling, config.tokens_per_tile
    plan = plan_tiles(
        [_DASHCAM] * int(config.frames["most"]),
        tiling["token_budget"],
        max_tiles=tiling["most_tiles"],
        tokens_per_tile=tokens,
        tile_px=config.tile_size,
    )
    tiles = plan.tokens // tokens
    told, bound = (batch_size * (name in losses) for name in ("words", "binding"))
    lettered = batch_size if {"letters", "lm", "spelt"} & {*losses} or not told + bound else 0
    lettered *= 2 if {"lm", "spelt"} <= {*losses} else 1
    shown, sequences = lettered + told, lettered + told + bound  # what names a choice shows no clip
    answer = _WORD_TOKENS if "words" in losses or "spelt" in losses else _LETTER_TOKENS if "lm" in losses else 0
    positions = config.get_text_config().max_position_embeddings
    width = min(plan.tokens + _TEXT_TOKENS + answer, positions)
    ids = torch.full((sequences, width), _TEXT_TOKEN)
    ids[:shown, : plan.tokens] = config.backbone_config.image_token_id
    mask = torch.ones_like(ids)
    mask[0, -1] = 0  # one row is shorter: a padded batch takes another attention kernel
    side = config.tile_size
    batch = {
        "input_ids": ids,
        "attention_mask": mask,
        "pixel_values": torch.empty(batch_size * tiles, 3, side, side, device="meta"),
        "tile_index": torch.arange(shown * tiles) % (batch_size * tiles),
        "answer_positions": torch.full((sequences,), width - 1 - answer),
        "letter_labels": torch.zeros(sequences, dtype=torch.long),
        "letter_mask": torch.ones(sequences, len(LETTERS), dtype=torch.bool),
    }
    if "words" in losses:
        batch["words_mask"] = (torch.arange(sequences) >= lettered) & (torch.arange(sequences) < shown)
    if "spelt" in losses:
        batch["spelt_mask"] = (torch.arange(sequences) < lettered) & (torch.arange(sequences) >= lettered - batch_size)
    if answer:
        batch["labels"] = torch.full_like(ids, IGNORE_INDEX)
        batch["labels"][:shown, -answer:] = _TEXT_TOKEN
    if bound:
        batch["binding_labels"] = torch.where(torch.arange(sequences) >= shown, 0, -1)
    return batch if shown else {name: batch[name] for name in batch if name not in ("pixel_values", "tile_index")}


def plan_visual_tokens(model: InternVLForVideoQA, batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch of `plan_batch` as the feature cache leaves it: projected tiles in place of the pixels."""
    if "pixel_values" not in batch:  # a stage that trains `binding` alone
        return batch
    pixels, tiles = batch.pop("pixel_values"), batch.pop("tile_index")
    features = model.get_image_features(pixels)
    return {**batch, "image_features": features.new_empty(len(tiles), *features.shape[1:])}


def plan_tower_maps(model: InternVLForVideoQA, batch: dict[str, Any]) -> dict[str, Any]:
    """Return a batch of `plan_batch` with what the projector takes in place of the pixels."""
    if "pixel_values" not in batch:
        return batch
    pixels, tiles = batch.pop("pixel_values"), batch.pop("tile_index")
    features = model.get_tower_features(pixels)
    return {**batch, "tower_features": features.new_empty(len(tiles), *features.shape[1:])}

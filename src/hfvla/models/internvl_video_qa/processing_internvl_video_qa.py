"""What InternVL for video questions needs around its tensors: frames, tiles, prompts, and back to a choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import AutoProcessor, BatchFeature, ProcessorMixin

from hfvla.data.choices import LETTERS
from hfvla.data.text import clean_text
from hfvla.data.video import VideoReader
from hfvla.data.video.files import FileIdentity, check_video_file
from hfvla.errors import CheckpointError, DataError
from hfvla.loading import check_same
from hfvla.losses.text import IGNORE_INDEX
from hfvla.models.internvl_video_qa.configuration_internvl_video_qa import (
    FRAMES,
    PROMPTS,
    TILING,
    InternVLVideoQAConfig,
)
from hfvla.models.internvl_video_qa.frames import Clip, FrameMode, Tiles, choose_times, cut_tiles
from hfvla.models.internvl_video_qa.wording import ParsedAnswer, PromptItem, padded, parse_answer, question_lines

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase
    from transformers.image_processing_utils import BaseImageProcessor

__all__ = ["InternVLVideoQAProcessor"]

_FRAME_CACHE_BYTES = 256 * 2**20
_IMAGE_TOKEN = "<image>"  # of LLaVA's processors, whose tokenizers do not name it


class InternVLVideoQAProcessor(ProcessorMixin):
    """Image processor, tokenizer and the rules for frames and tiles, saved together.

    Args:
        image_processor: InternVL's; resizes, tiles and normalises frames.
        tokenizer: fast tokenizer with `start_image_token`, `context_image_token` and `end_image_token`, or one
            that knows `image_token` alone ("<image>" where it does not say).
        frames (`dict`): a config's `frames`.
        tiling (`dict`): a config's `tiling`.
        tokens_per_tile (`int`): placeholders a tile takes.
        max_length (`int`): positions of the language model.
        prompts (`dict`): a config's `prompts`.
        chat_template (`str`, *optional*): with one, questions are put as a user's turn; without, as plain text.
    """

    def __init__(
        self,
        image_processor: BaseImageProcessor = None,
        tokenizer: PreTrainedTokenizerBase = None,
        frames: Mapping[str, float] | None = None,
        tiling: Mapping[str, int] | None = None,
        tokens_per_tile: int = 256,
        max_length: int = 32_768,
        prompts: Mapping[str, str] | None = None,
        chat_template: str | None = None,
    ) -> None:
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.frames = {**FRAMES, **(frames or {})}
        self.tiling = {**TILING, **(tiling or {})}
        self.prompts = {**PROMPTS, **(prompts or {})}
        self.tokens_per_tile, self.max_length = tokens_per_tile, max_length
        self._reader: VideoReader | None = None
        self._durations: dict[FileIdentity, float] = {}
        self.letter_token_ids = self._letter_ids()

    def check_config(self, config: PreTrainedConfig) -> None:
        """Refuse a config that this processor does not fit.

        Raises:
            CheckpointError: other letters' tokens, tiles, frames, lengths or tokens.
        """
        side, text = self.image_processor.size, config.get_text_config()
        pairs = {
            name: (getattr(self, name), getattr(config, name)) for name in ("letter_token_ids", "tokens_per_tile")
        }
        pairs["tile_size"] = ([side["height"], side["width"]], [config.tile_size, config.tile_size])
        pairs["prompts"] = (self.prompts, config.prompts)
        pairs["tiling"], pairs["frames"] = (self.tiling, config.tiling), (self.frames, config.frames)
        pairs["max_length"] = (min(self.max_length, text.max_position_embeddings), self.max_length)
        pairs["tokens"] = (max(len(self.tokenizer), text.vocab_size), text.vocab_size)
        pairs["image_token_id"] = (self._image_token_id(), config.backbone_config.image_token_id)
        check_same("InternVLVideoQAProcessor", pairs)

    def _image_tokens(self) -> tuple[str, str, str]:
        """Return what stands before, in the place of, and behind the tokens of a picture."""
        known = self.tokenizer
        if hasattr(known, "context_image_token"):
            return known.start_image_token, known.context_image_token, known.end_image_token
        return "", getattr(known, "image_token", _IMAGE_TOKEN), ""

    def _image_token_id(self) -> int:
        return int(self.tokenizer.convert_tokens_to_ids(self._image_tokens()[1]))

    def _letter_ids(self) -> list[int]:
        if self.tokenizer is None:
            return []
        pieces = [self.tokenizer(letter, add_special_tokens=False).input_ids for letter in LETTERS]
        if any(len(piece) != 1 for piece in pieces):
            raise CheckpointError(
                "a letter must be one token", where="InternVLVideoQAProcessor", got=pieces, expected="one id each"
            )
        return [piece[0] for piece in pieces]

    def special_ids(self) -> dict[str, Any]:
        """Return what the config must know of the tokenizer: `letter_token_ids` and `image_token_id`."""
        return {
            "letter_token_ids": self.letter_token_ids,
            "image_token_id": self._image_token_id(),
        }

    # ---- video ------------------------------------------------------------------------------------------------------

    @property
    def reader(self) -> VideoReader:
        """The video reader; frames that were decoded lately are remembered."""
        if self._reader is None:
            threads = 1 if torch.utils.data.get_worker_info() is not None else None
            self._reader = VideoReader(cache_bytes=_FRAME_CACHE_BYTES, threads=threads)
        return self._reader

    def forget(self) -> None:
        """Close the video reader and drop frames and lengths: the next read starts from the file."""
        self._durations.clear()
        if self._reader is not None:
            self._reader.close()

    def duration_s(self, video: str) -> float:
        """Return the length of a video file; each file is asked once, until it changes.

        Raises:
            DataError: the file cannot be read.
        """
        identity = check_video_file(video)
        if identity not in self._durations:
            self._durations[identity] = self.reader.probe(video).duration_s
        return self._durations[identity]

    def read_clip(
        self, video: str, support_s: Sequence[float] = (), *, mode: FrameMode = "support", where: str = ""
    ) -> Clip:
        """Read the frames of one question.

        Args:
            video: path of the file.
            support_s: seconds of the support frames; may be empty.
            mode: see `FRAME_MODES`.
            where: sample, for errors.

        Raises:
            DataError: the file cannot be read, or a support time lies outside the clip.
        """
        if mode == "none":
            return Clip(video, torch.zeros(0, 1, 1, 3, dtype=torch.uint8).numpy(), ())
        times_s, favour = choose_times(support_s, self.duration_s(video), self.frames, mode, where or video)
        found = self.reader.read(video, times_s)
        return Clip(video, found.pixels, tuple(found.indices.tolist()), favour)

    def tiles(self, clips: Sequence[Clip]) -> Tiles:
        """Cut the frames of clips into normalised tiles; each different tile is there once."""
        return cut_tiles(clips, self.image_processor, self.tiling, self.tokens_per_tile)

    # ---- text -------------------------------------------------------------------------------------------------------

    def prompt(self, item: PromptItem) -> str:
        """Return the text of a question, up to where its answer begins.

        Raises:
            DataError: an empty question, fewer than 2 or more than 4 choices, or a special token in a text.
        """
        question = question_lines(item, self.tokenizer.all_special_tokens)
        return self._put(item.frame_tiles, question, self.prompts["in_words" if item.in_words else "instruction"])

    def open_prompt(self, question: str, frame_tiles: Sequence[int]) -> str:
        """Return the text of a question without choices, up to where its answer begins.

        Args:
            question: anything about the clip.
            frame_tiles: tiles of each frame, in order.

        Raises:
            DataError: an empty question, or a special token in it.
        """
        if not question.strip():
            raise DataError("the question is empty", where="question")
        for token in self.tokenizer.all_special_tokens:
            if token in question:
                raise DataError("a special token in the text", where="question", got=token, fix="Take it out.")
        return self._put(frame_tiles, [clean_text(question)], "")

    def _put(self, frame_tiles: Sequence[int], lines: Sequence[str], instruction: str) -> str:
        head = self.prompts["frame"]
        frames = [
            f"{head.replace('{number}', str(number))} {self.image_text(tiles)}".lstrip()
            for number, tiles in enumerate(frame_tiles, start=1)
        ]
        if not self.chat_template:
            return "\n".join([*frames, *lines, self.prompts["answer"]])
        turn = "\n".join([*frames, *lines, *([instruction] if instruction else [])])
        system = [{"role": "system", "content": self.prompts["system"]}] if self.prompts["system"] else []
        messages = [*system, {"role": "user", "content": turn}]
        return self.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)

    def image_text(self, tiles: int) -> str:
        """Return the placeholders of one picture or frame of so many tiles."""
        before, placeholder, behind = self._image_tokens()
        return f"{before}{placeholder * (self.tokens_per_tile * tiles)}{behind}"

    def encode(
        self, items: Sequence[PromptItem], *, with_answer: bool = False, padding_side: str = "right"
    ) -> dict[str, Tensor]:
        """Return the text part of a batch for `InternVLForVideoQA.forward`.

        Args:
            items: questions.
            with_answer: append the right letter (or the right choice's text, `in_words`; or both, `spelt`) and the end
                token, with `labels` on them.
            padding_side: "left" for generation.

        Returns:
            `dict`: input_ids, attention_mask [B, T], answer_positions, letter_labels [B], letter_mask [B, 4], and
            with answers labels [B, T].

        Raises:
            DataError: see `prompt`; or a question too long for the language model.
        """
        tokenizer = self.tokenizer
        prompts = tokenizer([self.prompt(item) for item in items], add_special_tokens=False).input_ids
        ids, labels = [], []
        for item, prompt in zip(items, prompts, strict=True):
            target = self._target(item) if with_answer and item.answer >= 0 else []
            self._check_length(len(prompt) + len(target), item.where)
            ids.append([*prompt, *target])
            labels.append([IGNORE_INDEX] * len(prompt) + target)
        left = padding_side == "left"
        width = max(map(len, ids))
        positions = [
            len(prompt) - 1 + (width - len(row) if left else 0) for prompt, row in zip(prompts, ids, strict=True)
        ]
        counts = torch.tensor([0 if item.in_words else len(item.choices) for item in items])
        batch = {
            "input_ids": padded(ids, tokenizer.pad_token_id, left=left),
            "attention_mask": padded([[1] * len(row) for row in ids], 0, left=left),
            "answer_positions": torch.tensor(positions),
            "letter_labels": torch.tensor([-1 if item.in_words else item.answer for item in items]),
            "letter_mask": torch.arange(len(LETTERS)) < counts[:, None],
        }
        if with_answer:
            batch["labels"] = padded(labels, IGNORE_INDEX, left=left)
        return batch

    def _target(self, item: PromptItem) -> list[int]:
        letter = [] if item.in_words else [self.letter_token_ids[item.answer]]
        if letter and not item.spelt:
            return [*letter, self.tokenizer.eos_token_id]
        # As in "A. Red": the same tokens as in the list of choices.
        text = item.choices[item.answer].strip() if self.chat_template else f" {item.choices[item.answer].strip()}"
        return [*self.tokenizer(text, add_special_tokens=False).input_ids, *letter, self.tokenizer.eos_token_id]

    def _check_length(self, length: int, where: str) -> None:
        if length > self.max_length:
            raise DataError(
                "text and image tokens exceed the language model's positions",
                where=where,
                got=f"{length} tokens",
                expected=f"at most {self.max_length}",
                fix="Lower tiling.token_budget or frames.most.",
            )

    def __call__(
        self, videos: Any = None, text: Any = None, choices: Any = None, *, support_frames: Any = (), **kwargs: Any
    ) -> BatchFeature:
        """Encode questions on video files for `model(**batch)`.

        Args:
            videos: path, or one a question.
            text: question, or several.
            choices: the choices of the question, or of each.
            support_frames: seconds, for one question; or one list a question.
            **kwargs: `mode`, see `read_clip`.
        """
        if isinstance(text, str):
            videos, text, choices, support_frames = [videos], [text], [choices], [support_frames]
        supports = list(support_frames) or [()] * len(text)
        clips = [self.read_clip(video, times, **kwargs) for video, times in zip(videos, supports, strict=True)]
        tiles = self.tiles(clips)
        items = [PromptItem(*parts) for parts in zip(text, choices, tiles.counts, strict=True)]
        batch = self.encode(items)
        del batch["letter_labels"]
        if tiles.pixel_values is not None:
            batch |= {"pixel_values": tiles.pixel_values, "tile_index": tiles.index}
        return BatchFeature(batch)

    # ---- back to a choice -------------------------------------------------------------------------------------------

    def parse_answer(self, token_ids: Any, choices: Sequence[str]) -> ParsedAnswer:
        """Read generated tokens as one of the choices, or as a failure with its reason."""
        return parse_answer(self.tokenizer.decode(token_ids, skip_special_tokens=True), choices)


AutoProcessor.register(InternVLVideoQAConfig, InternVLVideoQAProcessor, exist_ok=True)

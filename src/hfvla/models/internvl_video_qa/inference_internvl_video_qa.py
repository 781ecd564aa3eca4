"""What a trained model is asked for: letters scored for one question or many, a video's features, words parsed."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hfvla.data.choices import LETTERS
from hfvla.errors import DataError
from hfvla.models.internvl_video_qa.frames_internvl_video_qa import Clip, FrameMode
from hfvla.models.internvl_video_qa.prompts_internvl_video_qa import PromptItem

if TYPE_CHECKING:
    from hfvla.family import EvaluationContext
    from hfvla.models.internvl_video_qa.processing_internvl_video_qa import InternVLVideoQAProcessor

__all__ = ["LetterScores", "VideoAnswer", "VideoAnswerMixin", "VideoFeatures", "predict_letters"]


@dataclass(frozen=True)
class VideoAnswer:
    """The answer to one question.

    Attributes:
        index: of the choice; -1 = failed.
        letter: of the choice, or "".
        probabilities: calibrated, by choice; sums to 1.
        failed: no choice was found (only a written answer can fail).
        reason: why it failed, or "".
        text: what was written, or "" when the letters were scored.
    """

    index: int
    letter: str
    probabilities: tuple[float, ...]
    failed: bool = False
    reason: str = ""
    text: str = ""


@dataclass(frozen=True)
class VideoFeatures:
    """A video as the language model sees it, for any number of questions.

    Attributes:
        features: [M, tokens, D] tiles in order.
        frame_tiles: tiles of each frame.
    """

    features: Tensor
    frame_tiles: tuple[int, ...]


@dataclass
class LetterScores:
    """Scores of every row; a row that could not be read is NaN and named in `failures`.

    Shapes: N rows, L letters (A to D), as the choices were shown.

    Attributes:
        log_likelihoods: [N, L] log-likelihood of each letter after the prompt; -inf where there is no choice.
        probabilities: [N, L] calibrated; 0 where there is no choice.
        answers: [N] index of the right letter as shown, or -1.
        orders: for each row, which of the row's choices stands at each letter.
        seconds: [N] a row's share of its batch: decoding, encoding and scoring.
        failures: reason by row number.
    """

    log_likelihoods: np.ndarray
    probabilities: np.ndarray
    answers: np.ndarray
    orders: list[tuple[int, ...]]
    seconds: np.ndarray
    failures: dict[int, str] = field(default_factory=dict)

    @property
    def predictions(self) -> np.ndarray:
        """[N] index of the most likely letter as shown; -1 for a row that failed."""
        known = ~np.isnan(self.probabilities).any(1)
        return np.where(known, np.argmax(np.nan_to_num(self.probabilities), 1), -1)

    def by_choice(self) -> np.ndarray:
        """Return the probabilities [N, L] in the order of the row's own choices."""
        found = np.full_like(self.probabilities, np.nan)
        for row, order in enumerate(self.orders):
            if row not in self.failures:
                found[row] = 0.0
                found[row, list(order)] = self.probabilities[row, : len(order)]
        return found


class VideoAnswerMixin:
    """Inference methods of `InternVLForVideoQA`."""

    def probabilities(self, letter_logits: Tensor) -> Tensor:
        """Return calibrated probabilities [B, L] of the letters from their log-likelihoods [B, L]."""
        return torch.softmax(letter_logits.float() / self.config.calibration["temperature"], dim=-1)

    @torch.inference_mode()
    def encode_video(
        self,
        processor: InternVLVideoQAProcessor,
        video: str,
        support_frames: Sequence[float] = (),
        mode: FrameMode = "support",
    ) -> VideoFeatures:
        """Run the vision tower once on a video.

        Raises:
            DataError: the video cannot be read.
        """
        self.eval()
        tiles = processor.tiles([processor.read_clip(video, support_frames, mode=mode)])
        if tiles.pixel_values is None:  # mode "none"
            width = self.config.get_text_config().hidden_size
            empty = torch.zeros(0, self.config.tokens_per_tile, width, device=self.device)
            return VideoFeatures(empty, tiles.counts[0])
        features = self.get_image_features(tiles.pixel_values.to(self.device))
        return VideoFeatures(features[tiles.index.to(self.device)], tiles.counts[0])

    @torch.inference_mode()
    def answer_features(
        self,
        processor: InternVLVideoQAProcessor,
        features: VideoFeatures,
        questions: Sequence[tuple[str, Sequence[str]]],
    ) -> list[VideoAnswer]:
        """Answer several questions on one video whose features are there.

        Args:
            processor: the checkpoint's processor.
            features: from `encode_video`.
            questions: (question, choices) each.

        Raises:
            DataError: a question is empty or has another number of choices than 2 to 4.
        """
        self.eval()
        batch = processor.encode([PromptItem(text, choices, features.frame_tiles) for text, choices in questions])
        del batch["letter_labels"]
        batch = {name: tensor.to(self.device) for name, tensor in batch.items()}
        output = self(**batch, image_features=features.features.repeat(len(questions), 1, 1))
        found = self.probabilities(output.letter_logits).tolist()
        return [_answer(row[: len(choices)]) for row, (_, choices) in zip(found, questions, strict=True)]

    def answer(
        self,
        processor: InternVLVideoQAProcessor,
        video: str,
        question: str,
        choices: Sequence[str],
        support_frames: Sequence[float] = (),
    ) -> VideoAnswer:
        """Answer one question by scoring the letters of its choices.

        Args:
            processor: the checkpoint's processor.
            video: path of the file.
            question: its text.
            choices: 2 to 4 texts, without letters.
            support_frames: seconds at which the answer is to be seen, where known.

        Raises:
            DataError: the video cannot be read, or the question is not one.
        """
        features = self.encode_video(processor, video, support_frames)
        return self.answer_features(processor, features, [(question, choices)])[0]

    @torch.inference_mode()
    def generate_answer(
        self,
        processor: InternVLVideoQAProcessor,
        video: str,
        question: str,
        choices: Sequence[str],
        support_frames: Sequence[float] = (),
        max_new_tokens: int = 16,
        **generate_kwargs: Any,
    ) -> VideoAnswer:
        """Let the model write its answer and read it strictly: what is not clearly a choice is `failed`.

        Raises:
            DataError: the video cannot be read, or the question is not one.
        """
        features = self.encode_video(processor, video, support_frames)
        batch = processor.encode([PromptItem(question, choices, features.frame_tiles)], padding_side="left")
        scored = self.answer_features(processor, features, [(question, choices)])[0]
        embeddings = self.embed(batch["input_ids"].to(self.device), features.features)
        tokenizer = processor.tokenizer
        ids = self.backbone.generate(
            inputs_embeds=embeddings,
            attention_mask=batch["attention_mask"].to(self.device),
            max_new_tokens=max_new_tokens,
            **{
                "do_sample": False,
                "eos_token_id": tokenizer.eos_token_id,
                "pad_token_id": tokenizer.pad_token_id,
                **generate_kwargs,
            },
        )[0]
        parsed = processor.parse_answer(ids, choices)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        letter = "" if parsed.failed else LETTERS[parsed.index]
        return VideoAnswer(parsed.index, letter, scored.probabilities, parsed.failed, parsed.reason, text)


def _answer(probabilities: Sequence[float]) -> VideoAnswer:
    index = int(np.argmax(probabilities))
    return VideoAnswer(index, LETTERS[index], tuple(probabilities))


def predict_letters(
    model: Any,
    processor: InternVLVideoQAProcessor,
    rows: Sequence[Mapping[str, Any]],
    context: EvaluationContext,
    *,
    mode: FrameMode = "support",
    orders: Sequence[Sequence[int]] | None = None,
) -> LetterScores:
    """Score the letters of every row; questions on one clip that share a batch share its tiles.

    A row whose video or question cannot be used is not answered: it is NaN, and its reason is in `failures`.

    Args:
        model: `InternVLForVideoQA`.
        processor: its processor.
        rows: video-question rows (`VideoQuestion.to_row()`).
        context: batch size and device.
        mode: "support" uses the rows' support frames where they have some; "segments" never does; "middle" shows the
            middle frame alone; "none" shows no frame.
        orders: for each row, the order its choices are shown in (`orders[n][place] = choice`); default: their own.

    Returns:
        `LetterScores`: in the order of the rows.
    """
    count = len(rows)
    scores = LetterScores(
        np.full((count, len(LETTERS)), np.nan),
        np.full((count, len(LETTERS)), np.nan),
        np.full(count, -1),
        [tuple(range(len(row["choices"]))) for row in rows] if orders is None else [tuple(order) for order in orders],
        np.zeros(count),
    )
    model.eval().to(context.device)
    # Neighbours share clips, so that a clip is decoded and encoded once.
    ranked = sorted(range(count), key=lambda number: (rows[number]["video"], tuple(rows[number]["support_frames"])))
    for start in range(0, count, context.batch_size):
        numbers = ranked[start : start + context.batch_size]
        started = time.perf_counter()
        read = list(_read(processor, rows, numbers, mode, scores.failures))
        if read:
            _score(model, processor, rows, read, scores)
        scores.seconds[numbers] = (time.perf_counter() - started) / len(numbers)
    return scores


def _read(
    processor: InternVLVideoQAProcessor,
    rows: Sequence[Mapping[str, Any]],
    numbers: Sequence[int],
    mode: FrameMode,
    failures: dict[int, str],
) -> Iterator[tuple[int, Clip]]:
    for number in numbers:
        row = rows[number]
        try:
            processor.prompt(PromptItem(row["question"], row["choices"], (), where=str(row["id"])))
            clip = processor.read_clip(row["video"], row["support_frames"], mode=mode, where=str(row["id"]))
        except DataError as error:
            failures[number] = str(error)
        else:
            yield number, clip


@torch.inference_mode()
def _score(
    model: Any,
    processor: InternVLVideoQAProcessor,
    rows: Sequence[Mapping[str, Any]],
    read: Sequence[tuple[int, Clip]],
    scores: LetterScores,
) -> None:
    tiles = processor.tiles([clip for _, clip in read])
    items = []
    for (number, _), counts in zip(read, tiles.counts, strict=True):
        row, order = rows[number], scores.orders[number]
        answer = order.index(row["answer"]) if row["answer"] >= 0 else -1
        items.append(PromptItem(row["question"], [row["choices"][i] for i in order], counts, answer, str(row["id"])))
    batch = processor.encode(items)
    if tiles.pixel_values is not None:
        batch |= {"pixel_values": tiles.pixel_values, "tile_index": tiles.index}
    labels = batch.pop("letter_labels")
    logits = model(**{name: tensor.to(model.device) for name, tensor in batch.items()}).letter_logits
    numbers = [number for number, _ in read]
    scores.log_likelihoods[numbers] = logits.double().cpu().numpy()
    scores.probabilities[numbers] = model.probabilities(logits).double().cpu().numpy()
    scores.answers[numbers] = labels.numpy()

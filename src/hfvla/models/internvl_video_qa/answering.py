"""What a trained model is asked for: one question or many on a video's features, scored letters, words parsed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hfvla.data.choices import LETTERS
from hfvla.errors import PredictionError
from hfvla.models.internvl_video_qa.evaluation.predicting import NOT_FINITE
from hfvla.models.internvl_video_qa.frames import FrameMode
from hfvla.models.internvl_video_qa.wording import PromptItem
from hfvla.nn.sampling import sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin
    from transformers import PreTrainedModel as _Model

    from hfvla.models.internvl_video_qa.processing_internvl_video_qa import InternVLVideoQAProcessor
else:
    _Model = object  # of a mixin: the model it is mixed into has what its methods use

__all__ = ["VideoAnswer", "VideoAnswerMixin", "VideoFeatures", "predict"]


@dataclass(frozen=True)
class VideoAnswer:
    """The answer to one question.

    Attributes:
        index: of the choice; -1 = failed.
        letter: of the choice, or "".
        probabilities: calibrated, by choice; sums to 1. Empty where the model's scores are not finite.
        failed: no choice was found, or the scores are not finite.
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


class VideoAnswerMixin(_Model):
    """Inference methods of `InternVLForVideoQA`."""

    def probabilities(self, letter_logits: Tensor) -> Tensor:
        """Return calibrated probabilities [B, L] of the letters from their log-likelihoods [B, L]."""
        return torch.softmax(letter_logits.float() / self.config.calibration["temperature"], dim=-1)

    @torch.inference_mode()
    def choice_logits(
        self, processor: InternVLVideoQAProcessor, items: Sequence[PromptItem], features: Tensor | None
    ) -> Tensor:
        """Return a log-likelihood [B, L] of each choice; -inf where there is none.

        By `config.answer_by` it is that of the choice's letter, or the mean one per token of the choice's text: one
        pass of the language model either way.

        Args:
            processor: the checkpoint's processor.
            items: B questions.
            features: [M, tokens, D] tiles of all of them, in order; None without any frame.

        Raises:
            DataError: a question cannot be asked.
        """
        if self.config.answer_by == "words":
            return self._word_logits(processor, items, features)
        batch = {name: tensor.to(self.device) for name, tensor in processor.encode(items).items()}
        del batch["letter_labels"]
        return self(**batch, image_features=features).letter_logits

    def _word_logits(
        self, processor: InternVLVideoQAProcessor, items: Sequence[PromptItem], features: Tensor | None
    ) -> Tensor:
        told = [
            replace(item, answer=place, in_words=True) for item in items for place in range(len(item.choices))
        ]  # a sequence a choice
        owners = [number for number, item in enumerate(items) for _ in item.choices]
        batch = {name: tensor.to(self.device) for name, tensor in processor.encode(told, with_answer=True).items()}
        if features is not None:
            parts = features.split([sum(item.frame_tiles) for item in items])
            features = torch.cat([parts[number] for number in owners])
        found = self.answer_log_likelihoods(batch["input_ids"], batch["attention_mask"], batch["labels"], features)
        logits = torch.full((len(items), len(LETTERS)), float("-inf"), device=found.device)
        logits[torch.tensor(owners), torch.tensor([item.answer for item in told])] = found
        return logits

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
        items = [PromptItem(text, choices, features.frame_tiles) for text, choices in questions]
        logits = self.choice_logits(processor, items, features.features.repeat(len(questions), 1, 1))
        rows = zip(logits.tolist(), self.probabilities(logits).tolist(), questions, strict=True)
        return [_answer(scores[: len(choices)], found[: len(choices)]) for scores, found, (_, choices) in rows]

    def answer(
        self,
        processor: InternVLVideoQAProcessor,
        video: str,
        question: str,
        choices: Sequence[str],
        support_frames: Sequence[float] = (),
    ) -> VideoAnswer:
        """Answer one question by scoring its choices; see `config.answer_by`.

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
        temperature: float = 0.0,
        **generate_kwargs: Any,
    ) -> VideoAnswer:
        """Let the model write its answer and read it strictly: what is not clearly a choice is `failed`.

        Args:
            processor: the checkpoint's processor.
            video: path of the file.
            question: its text.
            choices: 2 to 4 texts, without letters.
            support_frames: seconds at which the answer is to be seen, where known.
            max_new_tokens: tokens that may be written.
            temperature: 0 writes the likeliest word each time; above 0 words are drawn.
            **generate_kwargs: as for `generate`.

        Raises:
            DataError: the video cannot be read, or the question is not one.
        """
        features = self.encode_video(processor, video, support_frames)
        in_words = self.config.answer_by == "words"
        item = PromptItem(question, choices, features.frame_tiles, in_words=in_words)
        batch = processor.encode([item], padding_side="left")
        scored = self.answer_features(processor, features, [(question, choices)])[0]
        if scored.failed:
            return scored
        embeddings = self.embed(batch["input_ids"].to(self.device), features.features)
        tokenizer = processor.tokenizer
        ids = self.backbone.generate(
            inputs_embeds=embeddings,
            attention_mask=batch["attention_mask"].to(self.device),
            **_generation(tokenizer, max_new_tokens, temperature, generate_kwargs),
        )[0]
        parsed = processor.parse_answer(ids, choices)
        text = tokenizer.decode(ids, skip_special_tokens=True)
        letter = "" if parsed.failed else LETTERS[parsed.index]
        return VideoAnswer(parsed.index, letter, scored.probabilities, parsed.failed, parsed.reason, text)

    @torch.inference_mode()
    def chat(
        self,
        processor: InternVLVideoQAProcessor,
        video: str,
        question: str,
        *,
        max_new_tokens: int = 128,
        temperature: float = 0.0,
        **generate_kwargs: Any,
    ) -> str:
        """Let the model write what it likes about a video: a question without choices.

        A model that was only taught to choose answers in letters; one that learned in words, or whose language model
        is still its own (LoRA), answers in words.

        Args:
            processor: the checkpoint's processor.
            video: path of the file.
            question: its text.
            max_new_tokens: tokens that may be written.
            temperature: 0 writes the likeliest word each time; above 0 words are drawn.
            **generate_kwargs: as for `generate`.

        Raises:
            DataError: the video cannot be read, or the question is none or too long.
        """
        features = self.encode_video(processor, video)
        tokenizer = processor.tokenizer
        text = processor.open_prompt(question, features.frame_tiles)
        batch = tokenizer(text, add_special_tokens=False, return_tensors="pt")
        processor._check_length(batch.input_ids.shape[1] + max_new_tokens, video)
        ids = self.backbone.generate(
            inputs_embeds=self.embed(batch.input_ids.to(self.device), features.features),
            attention_mask=batch.attention_mask.to(self.device),
            **_generation(tokenizer, max_new_tokens, temperature, generate_kwargs),
        )[0]
        return str(tokenizer.decode(ids, skip_special_tokens=True)).strip()


def _generation(tokenizer: Any, max_new_tokens: int, temperature: float, more: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `generate`."""
    ends = {"eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id}
    return {"max_new_tokens": max_new_tokens, **sampling(temperature), **ends, **more}


def _answer(scores: Sequence[float], probabilities: Sequence[float]) -> VideoAnswer:
    if not np.isfinite(scores).all():
        return VideoAnswer(-1, "", (), failed=True, reason=f"{NOT_FINITE}; got {list(scores)}")
    index = int(np.argmax(probabilities))
    return VideoAnswer(index, LETTERS[index], tuple(probabilities))


def predict(model: PreTrainedModel, processor: ProcessorMixin, request: Mapping[str, Any]) -> dict[str, Any]:
    """Answer a question as `FAMILY.request` says; the reply is JSON-serialisable.

    Raises:
        DataError: video, question or choices cannot be used.
        PredictionError: the model's scores are not finite.
    """
    writing = {key: request[key] for key in ("max_new_tokens", "temperature") if request.get(key) is not None}
    if not request.get("choices"):
        text = model.chat(processor, str(request["video"]), request["question"], **writing)
        return {"question": request["question"], "answer": text, "text": text, "failed": not text}
    choices = list(request["choices"])
    asked = (processor, str(request["video"]), request["question"], choices, request.get("support_frames") or ())
    answer = model.generate_answer(*asked, **writing) if request.get("generate") else model.answer(*asked)
    if answer.failed and not answer.probabilities:
        raise PredictionError("the question has no answer", where=str(request["video"]), got=answer.reason)
    return {
        "question": request["question"],
        "letter": answer.letter,
        "answer": choices[answer.index] if answer.index >= 0 else None,
        "probabilities": dict(zip(LETTERS, answer.probabilities, strict=False)),
        "failed": answer.failed,
        "reason": answer.reason,
        "text": answer.text,
    }

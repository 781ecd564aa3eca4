"""EmberVLM as something that answers conversations: for evaluations and benchmarks that know no family."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F

from hfvla.data.samples.chat import ChatSample
from hfvla.family.chat import AnswerLosses, ChatSystem
from hfvla.losses.text import IGNORE_INDEX
from hfvla.models.ember_vlm.conversations import as_task, asks_for_caption
from hfvla.models.ember_vlm.processing_ember_vlm import EmberVLMProcessor, TargetText
from hfvla.nn.sampling import sampling

if TYPE_CHECKING:
    from hfvla.models.ember_vlm.modeling_ember_vlm import EmberVLMForRobotSelection

__all__ = ["chat_system"]


def chat_system(model: EmberVLMForRobotSelection, processor: EmberVLMProcessor) -> ChatSystem:
    """Return the model as a `ChatSystem`: one picture, questions and answers in the words of its second stage."""

    def write(samples: Sequence[ChatSample], max_new_tokens: int, temperature: float = 0.0) -> list[str]:
        model.eval()
        rows = [as_task(sample.to_row()) for sample in samples]
        targets = [_target(processor, sample, row) for sample, row in zip(samples, rows, strict=True)]
        texts = [processor.expand(target.prompt) for target in targets]
        tokenizer = processor.tokenizer
        batch = tokenizer(texts, padding=True, padding_side="left", add_special_tokens=False, return_tensors="pt")
        processor.check_length(batch.input_ids.shape[1] + 1, samples[0].id)
        pixels = processor.pixels([row["image"] for row in rows])
        with torch.inference_mode():
            ids = model.generate_reasoning(
                batch.input_ids.to(model.device),
                None if pixels is None else pixels.to(model.device),
                batch.attention_mask.to(model.device),
                max_new_tokens=max_new_tokens,
                **sampling(temperature),
            )
        return [text.strip() for text in tokenizer.batch_decode(ids, skip_special_tokens=True)]

    def answer_losses(samples: Sequence[ChatSample]) -> list[AnswerLosses]:
        return [_answer_losses(model, processor, sample) for sample in samples]

    def answer_ids(sample: ChatSample) -> Sequence[int]:
        return _encoded(processor, sample, as_task(sample.to_row()))[1]

    def embed_pairs(samples: Sequence[ChatSample]) -> tuple[np.ndarray, np.ndarray]:
        return _embed_pairs(model, processor, samples)

    vocabulary = len(processor.tokenizer)
    return ChatSystem(write, answer_losses, answer_ids, embed_pairs, vocabulary=vocabulary, max_pictures=1)


@torch.inference_mode()
def _embed_pairs(
    model: EmberVLMForRobotSelection, processor: EmberVLMProcessor, samples: Sequence[ChatSample]
) -> tuple[np.ndarray, np.ndarray]:
    """Return unit vectors [N, D] of pictures and of the last turns, as the contrastive loss compares them."""
    model.eval()
    rows = [as_task(sample.to_row()) for sample in samples]
    pixels = processor.pixels([row["image"] for row in rows])
    texts = [sample.turns[-1].text for sample in samples]
    batch = processor.tokenizer(texts, padding=True, add_special_tokens=False, return_tensors="pt").to(model.device)
    pictures = model.get_image_features(pixels.to(model.device)).mean(1)
    captions = model.embed_captions(batch.input_ids, batch.attention_mask)
    images, words = (F.normalize(found.float(), dim=-1).cpu().numpy() for found in (pictures, captions))
    return images, words


def _target(processor: EmberVLMProcessor, sample: ChatSample, row: Any) -> TargetText:
    """Return the last turn as training has it: a caption, or the last answer of a dialogue; written or yet to be."""
    if asks_for_caption(sample):
        return processor.caption_target(row)
    return processor.dialogue_targets(row, all_turns=True)[-1]


def _encoded(processor: EmberVLMProcessor, sample: ChatSample, row: Any) -> tuple[list[int], list[int]]:
    """Return the ids of prompt and of answer, the end token included."""
    target, tokenizer = _target(processor, sample, row), processor.tokenizer
    prompt = tokenizer(processor.expand(target.prompt), add_special_tokens=False).input_ids
    return prompt, [*tokenizer(target.target, add_special_tokens=False).input_ids, tokenizer.eos_token_id]


@torch.inference_mode()
def _answer_losses(model: EmberVLMForRobotSelection, processor: EmberVLMProcessor, sample: ChatSample) -> AnswerLosses:
    model.eval()
    row = as_task(sample.to_row())
    prompt, answer = _encoded(processor, sample, row)
    processor.check_length(len(prompt) + len(answer), sample.id)
    pixels = processor.pixels([row["image"]])
    ids = torch.tensor([prompt + answer], device=model.device)
    labels = torch.tensor([[IGNORE_INDEX] * len(prompt) + answer], device=model.device)
    kind = torch.zeros(1, dtype=torch.long, device=model.device)
    pixels = None if pixels is None else pixels.to(model.device)
    ngrams = processor.ngram_ids([""])
    logits = model(
        ids,
        pixel_values=pixels,
        labels=labels,
        text_kind=kind,
        ngram_ids=None if ngrams is None else ngrams.to(model.device),
    ).logits
    losses = F.cross_entropy(logits.float(), ids[0, len(prompt) :], reduction="none").cpu().numpy()
    texts = tuple(processor.tokenizer.convert_ids_to_tokens(answer))
    return AnswerLosses(np.array(answer), losses.astype(np.float64), texts)

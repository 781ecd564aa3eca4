"""Answers are written and compared with the accepted ones; the same with a blank picture, and without any."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from hfvla.data.samples.chat import ChatSample, ImageRef, Turn
from hfvla.errors import DataError
from hfvla.family import EvaluationContext, EvaluationResult
from hfvla.metrics.bootstrap import bootstrap_intervals
from hfvla.models.chat_vlm.answering import write_answers
from hfvla.models.chat_vlm.batches import open_image, read_sample

__all__ = ["evaluate"]

_MOST_TOKENS = 32
_GREY = (128, 128, 128)


def evaluate(model: Any, processor: Any, rows: Any, context: EvaluationContext) -> EvaluationResult:
    """Let the model answer the last question of each conversation, and score it.

    Args:
        model: of transformers.
        processor: its processor.
        rows: of `ChatSample`.
        context: batch size, seed, resamples, and how many answers are written.

    Raises:
        DataError: no rows.
    """
    samples = [read_sample(rows[number]) for number in range(min(len(rows), context.max_generate or len(rows)))]
    if not samples:
        raise DataError("there is nothing to evaluate", got="0 rows", fix="Check the evaluation source's options.")
    asked = [replace(sample, turns=sample.turns[:-1], rejected=()) for sample in samples]
    ways = {"": asked}
    if context.ablations:
        ways |= {"blank_image": [_blank(s) for s in asked], "question_only": [_without(s) for s in asked]}
    written = {name: _written(model, processor, given, context) for name, given in ways.items()}
    right = {
        name: np.array([_right(text, sample) for text, sample in zip(texts, samples, strict=True)], dtype=float)
        for name, texts in written.items()
    }
    kinds = np.array([sample.kind for sample in samples])
    result = EvaluationResult({"n": len(samples), "accuracy": float(right[""].mean())})
    result.baselines = {name: {"accuracy": float(found.mean())} for name, found in right.items() if name}
    result.metrics |= {f"accuracy/{kind}": float(right[""][kinds == kind].mean()) for kind in sorted({*kinds} - {""})}
    result.intervals = bootstrap_intervals(
        lambda right: {"accuracy": float(right.mean())},
        {"right": right[""]},
        [sample.group or sample.id for sample in samples],
        context.bootstrap_samples,
        context.seed,
    )
    result.rows = [
        {
            "id": sample.id,
            "group": sample.group,
            "question": sample.turns[-2].text,
            "prediction": text,
            "gold": sample.turns[-1].text,
            "scores": {"accuracy": float(one)},
        }
        for sample, text, one in zip(samples, written[""], right[""], strict=True)
    ]
    return result


def _written(model: Any, processor: Any, samples: Sequence[ChatSample], context: EvaluationContext) -> list[str]:
    size = context.batch_size
    parts = [samples[start : start + size] for start in range(0, len(samples), size)]
    found = context.processes.share(lambda part: write_answers(model, processor, part, _MOST_TOKENS), parts)
    return [text for part in found for text in part]


def _blank(sample: ChatSample) -> ChatSample:
    from PIL import Image

    from hfvla.worlds.shapes.drawing import png

    sizes = [open_image(image, sample.id).size for image in sample.images]
    return replace(sample, images=tuple(ImageRef(data=png(Image.new("RGB", size, _GREY))) for size in sizes))


def _without(sample: ChatSample) -> ChatSample:
    turns = [Turn(t.role, tuple(part for part in t.content if part.type == "text"), t.train) for t in sample.turns]
    return replace(sample, turns=tuple(turns), images=(), videos=())


def _right(text: str, sample: ChatSample) -> bool:
    accepted = sample.references or (sample.turns[-1].text,)
    return _plain(text) in {_plain(one) for one in accepted}


def _plain(text: str) -> str:
    return re.sub(r"[^\w\s]", "", text.lower()).strip()

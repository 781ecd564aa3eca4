"""Letters of every row of a set, scored under one order of the choices or several; a clip is encoded once for all."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from hfvla.data.choices import LETTERS
from hfvla.data.processes import Processes
from hfvla.errors import DataError
from hfvla.family import EvaluationContext
from hfvla.metrics.qa import latency_scores
from hfvla.models.internvl_video_qa.frames import Clip, FrameMode
from hfvla.models.internvl_video_qa.wording import PromptItem

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

    from hfvla.family import EvaluationContext
    from hfvla.models.internvl_video_qa.processing_internvl_video_qa import InternVLVideoQAProcessor

__all__ = [
    "DeadlineError",
    "LetterScores",
    "NOT_FINITE",
    "can_interrupt",
    "deadline",
    "measure_latency",
    "predict_letters",
    "predict_orders",
]

NOT_FINITE = "the model's scores are not finite"
"""Why a question has no answer though it could be asked."""

_ARRAYS = ("log_likelihoods", "probabilities", "answers", "seconds")


@dataclass
class LetterScores:
    """Scores of every row; one without an answer is NaN and named in `failures`, one not asked is NaN.

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
            if not np.isnan(self.probabilities[row]).any():
                found[row] = 0.0
                found[row, list(order)] = self.probabilities[row, : len(order)]
        return found

    def of_rows(self, numbers: Sequence[int]) -> tuple[Any, ...]:
        """Return what was found for some rows, for `put` on another process."""
        index = list(numbers)
        arrays = [getattr(self, name)[index] for name in _ARRAYS]
        return (*arrays, {number: self.failures[number] for number in index if number in self.failures})

    def put(self, numbers: Sequence[int], found: tuple[Any, ...]) -> None:
        """Fill in what another process found for some rows."""
        for name, values in zip(_ARRAYS, found, strict=False):
            getattr(self, name)[list(numbers)] = values
        self.failures |= found[-1]

    @classmethod
    def empty(cls, orders: Sequence[Sequence[int]]) -> LetterScores:
        """Return scores to be filled in, of rows whose choices are shown in these orders."""
        count, shape = len(orders), (len(orders), len(LETTERS))
        shown = [tuple(order) for order in orders]
        return cls(np.full(shape, np.nan), np.full(shape, np.nan), np.full(count, -1), shown, np.zeros(count))


def predict_letters(
    model: PreTrainedModel,
    processor: InternVLVideoQAProcessor,
    rows: Sequence[Mapping[str, Any]],
    context: EvaluationContext,
    *,
    mode: FrameMode = "support",
    orders: Sequence[Sequence[int]] | None = None,
) -> LetterScores:
    """Score the letters of every row; questions on one clip that share a batch share its tiles.

    A row whose video or question cannot be used, or whose scores are not finite, is not answered: it is NaN, and its
    reason is in `failures`.

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
    shown = [range(len(row["choices"])) for row in rows] if orders is None else orders
    return predict_orders(model, processor, rows, context, mode=mode, orders=[[order] for order in shown])[0]


def predict_orders(
    model: PreTrainedModel,
    processor: InternVLVideoQAProcessor,
    rows: Sequence[Mapping[str, Any]],
    context: EvaluationContext,
    *,
    mode: FrameMode,
    orders: Sequence[Sequence[Sequence[int]]],
) -> list[LetterScores]:
    """Score the letters of every row under each of its orders; the vision tower sees a clip once for all of them.

    A model that answers by words is asked once: what a choice's text is worth does not depend on its place.

    Args:
        model: `InternVLForVideoQA`.
        processor: its processor.
        rows: N video-question rows.
        context: batch size (clips that are read together, and questions of one pass), device, and the processes that
            share the batches.
        mode: see `predict_letters`.
        orders: for each row, one order or more that its choices are shown in.

    Returns:
        `list[LetterScores]`: one for the first order of every row, one for the second ...; a row that has no such
        order is NaN there. Times and unreadable rows are in the first.
    """
    passes = [
        LetterScores.empty([each[place] if place < len(each) else () for each in orders])
        for place in range(max(map(len, orders), default=1))
    ]
    model.eval().to(context.device)
    # Neighbours share clips, so that a clip is decoded and encoded once.
    ranked = sorted(range(len(rows)), key=lambda n: (rows[n]["video"], tuple(rows[n]["support_frames"])))

    def ask(start: int) -> list[tuple[Any, ...]]:
        numbers = ranked[start : start + context.batch_size]
        _ask(model, processor, rows, numbers, mode, passes)
        return [scores.of_rows(numbers) for scores in passes]

    starts = range(0, len(rows), context.batch_size)
    for start, found in zip(starts, context.processes.share(ask, starts), strict=True):
        for scores, part in zip(passes, found, strict=True):
            scores.put(ranked[start : start + context.batch_size], part)
    return passes


def _ask(
    model: PreTrainedModel,
    processor: InternVLVideoQAProcessor,
    rows: Sequence[Mapping[str, Any]],
    numbers: Sequence[int],
    mode: FrameMode,
    passes: Sequence[LetterScores],
) -> None:
    """Fill in the scores of some rows under each order."""
    started = time.perf_counter()
    read = list(_read(processor, rows, numbers, mode, passes[0].failures))
    features, counts = _encode(model, processor, [clip for _, clip in read])
    known = {number: place for place, (number, _) in enumerate(read)}
    for scores in passes:
        asked = [number for number in known if scores.orders[number]]
        if scores is not passes[0] and model.config.answer_by == "words":
            _turn(passes[0], asked, scores)
        elif asked:
            places = [known[number] for number in asked]
            chosen = None if features is None else torch.cat([features[place] for place in places])
            _score(model, processor, rows, asked, [counts[place] for place in places], chosen, scores)
        if scores is passes[0]:
            scores.seconds[list(numbers)] = (time.perf_counter() - started) / len(numbers)


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
def _encode(
    model: PreTrainedModel, processor: InternVLVideoQAProcessor, clips: Sequence[Clip]
) -> tuple[Sequence[Tensor] | None, Sequence[Sequence[int]]]:
    """Return the features [tiles, tokens, D] of each clip (None: no clip has a frame), and the tiles of its frames."""
    tiles = processor.tiles(clips)
    if tiles.pixel_values is None:
        return None, tiles.counts
    features = model.get_image_features(tiles.pixel_values.to(model.device))[tiles.index.to(model.device)]
    return features.split([sum(counts) for counts in tiles.counts]), tiles.counts


@torch.inference_mode()
def _score(
    model: PreTrainedModel,
    processor: InternVLVideoQAProcessor,
    rows: Sequence[Mapping[str, Any]],
    numbers: Sequence[int],
    frame_tiles: Sequence[Sequence[int]],
    features: Tensor | None,
    scores: LetterScores,
) -> None:
    items = []
    for number, counts in zip(numbers, frame_tiles, strict=True):
        row, order = rows[number], scores.orders[number]
        answer = order.index(row["answer"]) if row["answer"] >= 0 else -1
        items.append(PromptItem(row["question"], [row["choices"][i] for i in order], counts, answer, str(row["id"])))
    logits = model.choice_logits(processor, items, features)
    found, probabilities = logits.double().cpu().numpy(), model.probabilities(logits).double().cpu().numpy()
    scores.answers[numbers] = [item.answer for item in items]
    for place, (number, item) in enumerate(zip(numbers, items, strict=True)):
        own = found[place, : len(item.choices)]
        if not np.isfinite(own).all():
            scores.failures[number] = f"{item.where}: {NOT_FINITE}; got {own.tolist()}"
            continue
        scores.log_likelihoods[number], scores.probabilities[number] = found[place], probabilities[place]


def _turn(first: LetterScores, numbers: Sequence[int], scores: LetterScores) -> None:
    """Fill in the scores of rows under another order from those under their first one."""
    for number in numbers:
        places = [first.orders[number].index(choice) for choice in scores.orders[number]]
        scores.log_likelihoods[number], scores.probabilities[number] = -np.inf, 0.0
        scores.log_likelihoods[number, : len(places)] = first.log_likelihoods[number, places]
        scores.probabilities[number, : len(places)] = first.probabilities[number, places]
        right = int(first.answers[number])
        scores.answers[number] = places.index(right) if right >= 0 else -1


_MOST_TIMED = 32


def measure_latency(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    rows: Sequence[Mapping[str, Any]],
    context: EvaluationContext,
    mode: FrameMode,
) -> tuple[dict[str, float], str]:
    """Time questions one by one as a challenge does: from the file to the answer, no frame remembered; on one process.

    Args:
        model: `InternVLForVideoQA`.
        processor: its processor.
        rows: questions whose videos can be read; at most 32 of them, drawn by the context's seed, are timed.
        context: seed and device; `max_generate`, where it is lower, limits the questions.
        mode: which frames.

    Returns:
        `tuple`: percentiles and, on a GPU, the peak memory of a question; and a note on how it was measured.
    """
    if not context.processes.is_main:
        return {}, ""
    order = np.random.default_rng(context.seed).permutation(len(rows))[: min(_MOST_TIMED, context.max_generate)]
    single, cuda = replace(context, batch_size=1, processes=Processes()), str(context.device).startswith("cuda")
    seconds, peaks = [], []
    for number, row in enumerate([order[0], *order] if len(order) else []):
        processor.reader.close()
        if cuda:
            torch.cuda.reset_peak_memory_stats(context.device)
        started = time.perf_counter()
        predict_letters(model, processor, [rows[row]], single, mode=mode)
        if number:  # the first one warms up
            seconds.append(time.perf_counter() - started)
            peaks.append(torch.cuda.max_memory_allocated(context.device) / 2**20 if cuda else 0.0)
    found = latency_scores(seconds) | ({"peak_memory_mib": max(peaks)} if cuda and peaks else {})
    note = f"Latency: {len(seconds)} questions one by one on {context.device}, decoding included, nothing cached."
    return found, note


class DeadlineError(Exception):
    """The time given to a question is over."""


def can_interrupt() -> bool:
    """Tell whether a deadline can end the work: timers exist (not on Windows), and this is the main thread."""
    return hasattr(signal, "setitimer") and threading.current_thread() is threading.main_thread()


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Raise `DeadlineError` in the body after `seconds`; an operation of torch or a decoder that runs then ends first.

    Where that is not possible (see `can_interrupt`) the body runs to its end, and the caller compares the time.

    Args:
        seconds: above 0; None for no limit.
    """
    if seconds is None or not can_interrupt():
        yield
        return

    def over(number: int, frame: Any) -> None:
        raise DeadlineError(f"{seconds:g} s are over")

    before = signal.signal(signal.SIGALRM, over)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)

"""How long a question takes, and how much memory."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from hfvla.family import EvaluationContext
from hfvla.metrics.functions.qa import latency_scores
from hfvla.models.internvl_video_qa.frames_internvl_video_qa import FrameMode
from hfvla.models.internvl_video_qa.predicting_internvl_video_qa import predict_letters

__all__ = ["measure_latency"]

_MOST_TIMED = 32


def measure_latency(
    model: Any, processor: Any, rows: Sequence[Mapping[str, Any]], context: EvaluationContext, mode: FrameMode
) -> tuple[dict[str, float], str]:
    """Time questions one by one as a challenge does: from the file to the answer, no frame remembered.

    Args:
        model: `InternVLForVideoQA`.
        processor: its processor.
        rows: questions whose videos can be read; at most 32 of them, drawn by the context's seed, are timed.
        context: seed and device; `max_generate`, where it is lower, limits the questions.
        mode: which frames.

    Returns:
        `tuple`: percentiles and, on a GPU, the peak memory of a question; and a note on how it was measured.
    """
    order = np.random.default_rng(context.seed).permutation(len(rows))[: min(_MOST_TIMED, context.max_generate)]
    single, cuda = replace(context, batch_size=1), str(context.device).startswith("cuda")
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

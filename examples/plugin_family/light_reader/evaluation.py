"""Scores on held-out rows, beside the most frequent lamp."""

from typing import Any

import numpy as np
import torch

from hfvla.family import EvaluationContext, EvaluationResult
from light_reader.batches import LightReaderCollator


def evaluate(model: Any, processor: Any, rows: Any, context: EvaluationContext) -> EvaluationResult:
    """Return accuracy, the majority baseline, and a row for each picture."""
    collate, read = LightReaderCollator(processor, model.config), []
    for start in range(0, len(rows), context.batch_size):
        batch = collate([rows[i] for i in range(start, min(start + context.batch_size, len(rows)))])
        with torch.inference_mode():
            read += model(batch["pixel_values"].to(model.device)).logits.argmax(-1).tolist()
    gold = np.array(rows["lamp"])
    right = np.array(read) == gold
    majority = np.bincount(context.train_rows["lamp"]).argmax() if context.train_rows is not None else 0
    kept = [
        {"id": row_id, "prediction": lamp, "gold": int(true), "scores": {"accuracy": float(lamp == true)}}
        for row_id, lamp, true in zip(rows["id"], read, gold, strict=True)
    ]
    return EvaluationResult(
        {"n": len(rows), "accuracy": float(right.mean())},
        baselines={"majority": {"accuracy": float((gold == majority).mean())}},
        rows=kept,
    )

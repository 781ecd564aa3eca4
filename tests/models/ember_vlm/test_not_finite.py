"""Scores that are NaN or infinite choose no robot: one error where one is asked, counted rows in an evaluation."""

import itertools

import numpy as np
import pytest
import torch

from hfvla.errors import DataError, PredictionError
from hfvla.family import EvaluationContext
from hfvla.models.ember_vlm import FAMILY


def damage(model, value):
    with torch.no_grad():
        model.selection_head.layers[-1].bias[1] = value
    return model


def damaged_for(model, processor, rows, which):
    """Let the model's logits be NaN for these rows, which are asked one by one."""
    original, ids = model.forward, itertools.cycle(rows["id"])

    def forward(**batch):
        output = original(**batch)
        if next(ids) in which:
            output.selection_logits[0, 2] = float("nan")
        return output

    model.forward = forward
    return model


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_task_is_an_error_with_the_scores(model, processor, value):
    with pytest.raises(PredictionError, match=f"scores are not finite; got .*{value}"):
        FAMILY.ask(damage(model, value), processor, {"task": "Look", "reasoning": False})


def test_a_model_that_gives_nan_for_all_is_not_scored(model, processor, rows):
    context = EvaluationContext(bootstrap_samples=2, max_generate=0, max_bad_fraction=1.0)
    with pytest.raises(DataError, match="8 of 8 rows have no prediction: the model's scores are not finite; first: "):
        FAMILY.load("evaluate")(damage(model, float("nan")), processor, rows, context)
    with pytest.raises(DataError, match="have no prediction"):
        FAMILY.load("calibrate")(model, processor, rows, context)


def test_single_rows_are_counted_named_and_left_out(model, processor, rows):
    lost, context = rows["id"][3], {"bootstrap_samples": 2, "max_generate": 0, "batch_size": 1, "ablations": False}
    whole = FAMILY.load("evaluate")(model, processor, rows, EvaluationContext(**context))
    broken = damaged_for(model, processor, rows, {lost})
    result = FAMILY.load("evaluate")(broken, processor, rows, EvaluationContext(**context, max_bad_fraction=0.2))
    assert result.metrics["failures"] == 1 and result.metrics["n"] == 7 and whole.metrics["failures"] == 0
    assert any(lost in note for note in result.notes)
    found = {row["id"]: row for row in result.rows}
    assert found[lost]["prediction"] is None and "not finite" in found[lost]["failure"]
    rest = [row["exact_match"] for row in whole.rows if row["id"] != lost]
    assert result.metrics["exact_match"] == np.mean(rest)
    with pytest.raises(DataError, match=f"1 of 8 rows have no prediction.*first: {lost}.*at most 1.0%"):
        FAMILY.load("evaluate")(broken, processor, rows, EvaluationContext(**context))

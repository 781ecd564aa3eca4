"""Actions that are NaN or infinite are never given out: not to a caller, not to a robot, not to a score."""

from copy import deepcopy

import numpy as np
import pytest
import torch

from hfvla.errors import DataError, PredictionError
from hfvla.family import EvaluationContext
from hfvla.models.sensor_vla import FAMILY
from hfvla.models.sensor_vla.evaluation.closed_loop import ChunkedPolicy
from hfvla.serve.policy import ChunkPolicy, PolicyStopped

from .conftest import observe
from .scripted import TellingModel


@pytest.fixture
def broken(model):
    copied = deepcopy(model)
    with torch.no_grad():
        for parameter in copied.expert.parameters():
            parameter.fill_(float("nan"))
    return copied


def test_a_chunk_is_an_error(broken, processor):
    with pytest.raises(
        PredictionError, match="step 0, channel 0 of chunk 0: the model's actions are not finite; got nan"
    ):
        broken.predict_actions(processor, [observe(), observe()])
    with pytest.raises(PredictionError, match="not finite"):
        ChunkedPolicy(broken, processor).plan(observe())


def test_a_policy_stops(broken, processor):
    policy = ChunkPolicy(broken, processor)
    for _ in range(2):
        with pytest.raises(PolicyStopped, match="actions are not finite"):
            policy.plan(observe())


def test_an_evaluation_counts_rows(build, rows):
    real, processor = build()
    context = {"bootstrap_samples": 2, "batch_size": 1, "ablations": False}

    class Broken(TellingModel):
        calls = 0

        def __init__(self, config):
            super().__init__(config)
            sample = self.expert.sample

            def broken(*args, **more):
                self.calls += 1
                return sample(*args, **more) * (float("inf") if self.calls == 3 else 1.0)

            self.expert.sample = broken

    evaluate = FAMILY.load("evaluate")
    with pytest.raises(DataError, match=rf"{rows[2]['id']}: 1 of 8 rows have no answer.*actions are not finite"):
        evaluate(Broken(real.config), processor, rows, EvaluationContext(**context))
    result = evaluate(Broken(real.config), processor, rows, EvaluationContext(**context, max_bad_fraction=0.5))
    assert result.metrics["failures"] == 1 and result.metrics["n"] == 7 and np.isfinite(result.metrics["mse"])
    (lost,) = [row for row in result.rows if row["prediction"] is None]
    assert lost["id"] == rows[2]["id"] and "not finite" in lost["failed"]

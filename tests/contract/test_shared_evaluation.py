"""Every family's evaluation gives the same numbers on one process and on several with rows that do not divide."""

import copy

import pytest
from tests.data.together import together

from hfvla.data.processes import Processes
from hfvla.family import EvaluationContext

TIMED = ("efficiency/", "latency", "seconds")
ROWS, BATCH = 7, 2  # four batches: one process of three has two of them


def evaluated(built, processes):
    """Return what one process finds, and how often it ran a part of the model."""
    model, processor = built.copy(), copy.deepcopy(built.processor)
    train = built.spec.load("examples")(8, 1)
    context = EvaluationContext(train, batch_size=BATCH, bootstrap_samples=4, max_generate=5)
    calls = []
    for module in model.modules():
        module.register_forward_pre_hook(lambda *_: calls.append(1))
    rows = built.rows.select(range(ROWS))
    calibration = None
    if built.spec.has("calibrate"):
        calibration = built.spec.load("calibrate")(model, processor, rows, context.of_process(processes))
    result = built.spec.load("evaluate")(model, processor, rows, context.of_process(processes))
    return result, calibration, len(calls)


def numbers(result):
    """Return everything that a report shows, without times."""
    named = {"metrics": result.metrics, **{f"baseline {k}": v for k, v in result.baselines.items()}}
    named |= {f"ablation {k}": v for k, v in result.ablations.items()}
    flat = {f"{part}/{name}": value for part, scores in named.items() for name, value in scores.items()}
    flat |= {f"low {name}": bounds[0] for name, bounds in result.intervals.items()}
    flat |= {f"high {name}": bounds[1] for name, bounds in result.intervals.items()}
    return {name: value for name, value in flat.items() if not any(word in name for word in TIMED)}


def plain(value):
    """Return rows with numbers that can be compared within a tolerance."""
    if isinstance(value, dict):
        return {key: plain(part) for key, part in value.items() if not any(word in key for word in TIMED)}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return round(value, 4) if isinstance(value, float) else value


@pytest.fixture(scope="module")
def alone(built):
    return evaluated(built, Processes())


@pytest.mark.parametrize("count", [pytest.param(2, marks=pytest.mark.slow), 3])
def test_the_numbers_are_those_of_one_process(built, alone, count):
    found = together(count, lambda processes: evaluated(built, processes))
    expected, result = alone[0], found[0][0]
    assert numbers(result) == pytest.approx(numbers(expected), abs=1e-5, nan_ok=True)
    assert plain(result.rows) == plain(expected.rows) and len(result.rows) == len(expected.rows) > 0
    assert [figure.name for figure in result.figures] == [figure.name for figure in expected.figures]
    for _, calibration, _ in found:  # all go on with the same temperature
        assert calibration == pytest.approx(alone[1])
    # The work is shared: each runs a part of the model, and who writes nothing draws no resamples.
    calls = [one[2] for one in found]
    assert 0 < max(calls) < 0.8 * alone[2] and sum(calls) <= 1.3 * alone[2]
    assert result.intervals and not any(one[0].intervals for one in found[1:])

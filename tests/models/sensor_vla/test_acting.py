"""Observations to actions in the robot's units; features reused; prefixes; checkpoints; requests."""

import dataclasses
from copy import deepcopy

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoModel, AutoProcessor

from hfvla.data.samples.actions import SensorRef
from hfvla.data.signals.observation import Observation
from hfvla.data.signals.sensor_loader import SensorLoader, SensorSamples
from hfvla.errors import DataError
from hfvla.models.sensor_vla import FAMILY
from hfvla.models.sensor_vla.batches import draw_pictures

from .conftest import BACKBONES, observe


def seeded(number=3):
    return torch.Generator().manual_seed(number)


def from_row(processor, config, row):
    """Return the observation that a robot would have made at a row's time."""
    sensor = SensorLoader().load(SensorRef(**row["sensor"])) if row["sensor"] else None
    views = draw_pictures(processor, config, [row])[0]
    return Observation(views, np.asarray(row["state"], np.float32), row["task"], row["timestamp"], sensor)


def test_a_robot_gets_what_evaluation_scores(model, processor, rows, collate):
    """Rows and observations of the same moments go two ways and give the same actions."""
    with torch.no_grad():
        output = model(**collate(model, processor, rows))
    found = model.predict_actions(processor, [from_row(processor, model.config, row) for row in rows])
    assert found.shape == (8, 4, 4) and found.dtype == np.float64
    np.testing.assert_allclose(found, processor.decode_actions(output.predicted_actions), rtol=1e-4, atol=1e-6)


def test_prediction_puts_the_model_in_eval_mode(build):
    """The original validated in training mode."""
    built, processor = build(sensor_encoder={"sensor_dropout": 0.5, "dropout": 0.5}, expert={"dropout": 0.5})
    model = deepcopy(built)
    expected = model.eval().predict_actions(processor, [observe()])
    for call in (lambda: model.encode_observations(processor, [observe()]), None):
        model.train()
        if call:
            call()
        else:
            assert np.array_equal(model.predict_actions(processor, [observe()]), expected)
        assert not any(part.training for part in model.modules())


def test_features_stand_for_pictures_and_words(model, processor):
    first, later = observe(1), observe(2, time_s=3.2)
    features = model.encode_observations(processor, [first])
    assert not features.tokens.requires_grad
    np.testing.assert_array_equal(
        model.predict_actions(processor, [first], features=features), model.predict_actions(processor, [first])
    )
    blind = dataclasses.replace(later, views={}, task="")  # they are not looked at again
    seen = dataclasses.replace(later, views=first.views, task=first.task)
    np.testing.assert_array_equal(
        model.predict_actions(processor, [blind], features=features), model.predict_actions(processor, [seen])
    )
    without = dataclasses.replace(blind, sensor=None)
    assert not np.array_equal(
        model.predict_actions(processor, [without], features=features),
        model.predict_actions(processor, [blind], features=features),
    )


def test_a_sensor_goes_stale_also_on_reused_features(model, processor):
    now = observe()
    features = model.encode_observations(processor, [now])
    stale = dataclasses.replace(now, time_s=now.time_s + 0.06)
    with pytest.raises(DataError, match="observation at 3.060 s: the sensor is stale"):
        model.predict_actions(processor, [stale], features=features)
    ahead = dataclasses.replace(now, time_s=now.time_s - 0.01)
    with pytest.raises(DataError, match="later than its observation"):
        model.predict_actions(processor, [ahead], features=features)


def test_a_prefix_is_continued_by_flow(build):
    model, processor = build(expert={"kind": "flow", "max_prefix": 2})
    assert model.can_continue
    free = model.predict_actions(processor, [observe()], generator=seeded())
    prefix = free[:, :2] + [0.02, -0.02, 0.0, 0.0]
    found = model.predict_actions(processor, [observe()], prefix=prefix, generator=seeded())
    np.testing.assert_allclose(found[:, :2], prefix, atol=1e-7)
    assert np.abs(found[:, 2:] - free[:, 2:]).max() > 1e-5
    empty = model.predict_actions(processor, [observe()], prefix=prefix[:, :0], generator=seeded())
    np.testing.assert_array_equal(empty, free)


@pytest.mark.parametrize("kind", ["regression", "diffusion"])
def test_a_prefix_is_refused_elsewhere(build, kind):
    model, processor = build(expert={"kind": kind})
    assert not model.can_continue
    with pytest.raises(DataError, match=f"cannot continue a prefix; got '{kind}'; expected flow"):
        model.predict_actions(processor, [observe()], prefix=np.zeros((1, 1, 4)))


@pytest.mark.parametrize("kind", ["diffusion", "flow"])
def test_noise_and_steps(build, kind):
    model, processor = build(expert={"kind": kind})
    one, two, other = (model.predict_actions(processor, [observe()], generator=seeded(n)) for n in (3, 3, 4))
    assert np.array_equal(one, two) and not np.array_equal(one, other)
    assert not np.array_equal(model.predict_actions(processor, [observe()], generator=seeded(), steps=2), one)


@pytest.mark.parametrize("backbone", BACKBONES)
def test_a_checkpoint_predicts_the_same_bits(build, backbone, tmp_path):
    """Model and every part of the processor: tokenizer, image processor, statistics, views, sensor clock."""
    model, processor = build(backbone, expert={"kind": "flow"})
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, again = AutoModel.from_pretrained(tmp_path), AutoProcessor.from_pretrained(tmp_path)
    observations = [observe(1), observe(2, sensor=False, task="press the blue square")]
    one, two = processor(observations), again(observations)
    assert set(one) == set(two) and all(torch.equal(one[name], two[name]) for name in one)
    assert type(loaded) is type(model) and type(again) is type(processor)
    np.testing.assert_array_equal(
        loaded.predict_actions(again, observations, generator=seeded()),
        model.predict_actions(processor, observations, generator=seeded()),
    )
    assert again.required_views == ["front", "wrist"] and (again.horizon, again.action_dim) == (4, 4)
    assert (again.fps, again.window_s) == (10.0, 16 / 400)


# ---- one request ----------------------------------------------------------------------------------------------------


@pytest.fixture
def request_of_files(tmp_path):
    now = observe()
    for name, pixels in now.views.items():
        Image.fromarray(pixels).save(tmp_path / f"{name}.png")
    return {
        "task": now.task,
        "views": {name: str(tmp_path / f"{name}.png") for name in now.views},
        "state": now.state.tolist(),
        "time_s": now.time_s,
        "sensor": {"times_s": now.sensor.times_s.tolist(), "values": now.sensor.values.tolist()},
    }


def test_a_request_is_answered(model, processor, request_of_files):
    answer = FAMILY.ask(model, processor, request_of_files)
    expected = model.predict_actions(processor, [observe()])[0]
    np.testing.assert_allclose(answer["actions"], expected, atol=1e-7)
    assert answer["sensor"] is True and answer["fps"] == 10.0
    no_clock = {name: value for name, value in request_of_files.items() if name != "time_s"}  # the sensor's last
    assert FAMILY.ask(model, processor, no_clock)["actions"] == answer["actions"]
    no_sensor = {**request_of_files, "sensor": None}
    other = FAMILY.ask(model, processor, no_sensor)
    assert other["sensor"] is False and other["actions"] != answer["actions"]


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"task": ""}, "task: not a text, or an empty one"),
        ({"views": {}}, "views: how many views; got 0; expected 1 or more"),
        ({"state": None}, "the request is not complete; got 'no state'"),
        ({"state": [1, 2]}, r"size of the state; got \(2,\)"),
        ({"state": ["left", 0, 0, 0]}, "state: not numbers; got 'left'"),
        ({"views": {"front": "/nowhere/a.png", "wrist": "/nowhere/b.png"}}, "views front: no such picture"),
        ({"sensor": {"values": [[0.0] * 6]}}, "sensor: the request is not complete; got 'no times_s'"),
        ({"sensor": {"times_s": [3.0], "values": "much"}}, "values of the request: not numbers"),
        ({"sensor": {"times_s": [3.0], "values": [[0.0] * 5]}}, r"channels of the sensor; got \(1, 5\)"),
        ({"time_s": 4.0}, "the sensor is stale"),
        ({"time_s": "noon"}, "time_s: not a number; got 'noon'"),
    ],
)
def test_requests_that_are_refused(model, processor, request_of_files, change, match):
    with pytest.raises(DataError, match=match):
        FAMILY.ask(model, processor, {**request_of_files, **change})


def test_a_sensor_of_one_sample_is_enough(model, processor):
    now = observe()
    last = SensorSamples(now.sensor.times_s[-1:], now.sensor.values[-1:])
    assert np.isfinite(model.predict_actions(processor, [dataclasses.replace(now, sensor=last)])).all()

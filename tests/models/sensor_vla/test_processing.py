"""Prompts and pictures, the sensor's clock, normalisation and its inverse, and what is refused."""

import dataclasses
from copy import deepcopy

import numpy as np
import pytest
import torch

from hfvla.data.signals.sensor_loader import SensorSamples
from hfvla.errors import CheckpointError, DataError

from .conftest import BACKBONES, PERIOD_S, observe


def changed(observation, **parts):
    return dataclasses.replace(observation, **parts)


def samples(times_s, channels=6):
    """Samples whose values are the number of their time, so that a point tells which sample it came from."""
    times_s = np.asarray(times_s, dtype=np.float64)
    return SensorSamples(times_s, np.repeat(np.arange(len(times_s), dtype=np.float32)[:, None], channels, axis=1))


def numbers(processor, batch):
    """Undo the normalisation of the first channel."""
    return processor.normalizer("sensor").invert(batch["sensor"].double().numpy())[..., 0]


# ---- pictures and words ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backbone", BACKBONES)
def test_each_view_takes_its_placeholders(build, backbone):
    _, processor = build(backbone)
    processor = deepcopy(processor)
    processor.required_views = []
    token = build(backbone)[0].config.backbone_config.image_token_id
    both, one = observe(), observe(views=("wrist",))
    count = [int((processor(found)["input_ids"] == token).sum()) for found in (both, one)]
    assert count == [2 * 4, 4]  # 32 x 32 pixels: 16 patches of 8, merged 2 x 2
    batch = processor([one, both])
    assert (batch["input_ids"] == token).sum(1).tolist() == [4, 8]
    assert batch["attention_mask"].sum(1).tolist()[0] < batch["attention_mask"].sum(1).tolist()[1]
    assert batch["attention_mask"][0, 0] == 1 and batch["attention_mask"][0, -1] == 0  # padded on the right


def test_views_come_in_the_order_of_the_config(processor):
    observation = observe()
    swapped = changed(observation, views=dict(reversed(observation.views.items())))
    one, two = processor(observation), processor(swapped)
    assert all(torch.equal(one[name], two[name]) for name in one)
    text = processor.prompt_text("press it", ["front", "wrist"])
    assert text.startswith("press it\nfront: ") and text.index("front") < text.index("wrist")
    exchanged = changed(observation, views={"front": observation.views["wrist"], "wrist": observation.views["front"]})
    assert not torch.equal(processor(exchanged)["pixel_values"], one["pixel_values"])


def test_views_that_are_refused(processor):
    assert processor.required_views == ["front", "wrist"]  # every example row has both
    observation = observe()
    with pytest.raises(DataError, match="unknown view; got 'frnt'.*Did you mean 'front'"):
        processor(changed(observation, views={"frnt": observation.views["front"]}))
    with pytest.raises(DataError, match="a view is missing that every training row had.*expected wrist"):
        processor(observe(views=("front",)))
    for views in ({}, {"frnt": observation.views["front"]}, {"front": observation.views["front"]}):
        with pytest.raises(DataError, match="observation at 3.000 s: .*view"):  # a robot's loop asks before it encodes
            processor.check_observation(changed(observation, views=views))
    free = deepcopy(processor)
    free.required_views = []
    assert set(free(observe(views=("wrist",)))) == set(processor(observation))
    with pytest.raises(DataError, match="a sample without any view"):
        free(changed(observation, views={}))
    with pytest.raises(DataError, match=r"not a picture.*float32"):
        free(changed(observation, views={"front": observation.views["front"].astype(np.float32)}))


def test_tasks_that_are_refused(processor):
    with pytest.raises(DataError, match="a sample has no task"):
        processor(observe(task=" "))
    with pytest.raises(DataError, match="special token.*image_pad"):
        processor(observe(task="press <|image_pad|>"))


def test_a_chat_template_wraps_the_prompt(processor):
    chatty = deepcopy(processor)
    chatty.chat_template = (
        "{% for m in messages %}USER {% for part in m['content'] %}{{ part['text'] if part['type'] == 'text' else "
        "'<|vision_start|><|image_pad|><|vision_end|>' }}{% endfor %}{% endfor %} ROBOT"
    )
    text = chatty.prompt_text("press it", ["wrist"])
    mark = "<|vision_start|><|image_pad|><|vision_end|>"
    assert text == f"USER press it\nwrist: {mark} ROBOT"
    assert (chatty(observe())["input_ids"] == chatty.tokenizer.convert_tokens_to_ids("<|image_pad|>")).sum() == 8


def test_image_size_scales_every_picture(build):
    processor = deepcopy(build()[1])
    processor.image_size = [16, 32]
    assert processor(observe())["image_grid_thw"].tolist() == [[1, 2, 4]] * 2
    assert torch.equal(processor(observe(size=64))["image_grid_thw"], processor(observe())["image_grid_thw"])


# ---- the sensor's clock ---------------------------------------------------------------------------------------------


def test_points_are_taken_by_time_not_by_number(processor):
    """Uneven samples, seconds since 1970: each of the 16 points is the newest sample at its own time."""
    now_s = 1_726_500_000.0
    ages_s = np.array([0.0371, 0.0302, 0.0201, 0.0199, 0.0102, 0.0101, 0.0012])
    window = samples(now_s - ages_s)
    batch = processor.encode_sensor([window], [now_s])
    expected = []
    for point in range(16):
        age_s = (15 - point) * PERIOD_S
        older = [number for number, age in enumerate(ages_s) if age >= age_s - 1e-6]
        near = older and ages_s[older[-1]] - age_s <= processor.sensor["tolerance_s"]
        expected.append(older[-1] if near else None)
    assert batch["sensor_mask"][0].tolist() == [value is not None for value in expected]
    found = numbers(processor, batch)[0]
    assert [round(float(value)) for value, known in zip(found, expected, strict=True) if known is not None] == [
        value for value in expected if value is not None
    ]
    assert expected[-1] == 6 and None in expected and len(set(expected)) > 4


def test_no_point_sees_the_future(processor):
    past = samples(3.0 - np.arange(20, -1, -1) * PERIOD_S)
    longer = samples(3.0 - np.arange(20, -6, -1) * PERIOD_S)  # five samples after now
    one, two = processor.encode_sensor([past], [3.0]), processor.encode_sensor([longer], [3.0])
    assert torch.equal(one["sensor"], two["sensor"])
    later = processor.encode_sensor([longer], [3.0 + 2 * PERIOD_S])
    assert not torch.equal(later["sensor"], one["sensor"])  # they count as soon as their time has come


def test_a_missing_sensor_is_said(processor):
    batch = processor.encode_sensor([samples([2.9999, 3.0]), None], [3.0, 3.0])
    assert batch["sensor_present"].tolist() == [True, False]
    assert batch["sensor_mask"][0].any() and not batch["sensor_mask"][1].any()


def test_sensors_that_are_refused(processor):
    good = samples([2.99, 3.0])
    with pytest.raises(DataError, match=r"row7: channels of the sensor; got \(2, 5\)"):
        processor.encode_sensor([samples([2.99, 3.0], channels=5)], [3.0], ["row7"])
    with pytest.raises(DataError, match="do not reach into its window.*Do both clocks count the same seconds"):
        processor.encode_sensor([good], [1_726_500_000.0])
    with pytest.raises(DataError, match="float32"):
        processor.encode_sensor([SensorSamples(good.times_s.astype(np.float32), good.values)], [3.0])
    with pytest.raises(DataError, match="not finite"):
        processor.encode_sensor([SensorSamples(good.times_s, good.values * np.nan)], [3.0])


# ---- observations ---------------------------------------------------------------------------------------------------


def test_observations_that_cannot_be_acted_on(processor):
    good = observe()
    processor.check_observation(good)
    processor.check_observation(changed(good, sensor=None))  # without a sensor is another matter than with a stale one
    late, limit_s = good.sensor, processor.sensor["max_age_s"]
    refused = {
        r"size of the state.*got \(3,\).*expected '?\(4,\)": changed(good, state=good.state[:3]),
        "the state is not finite": changed(good, state=good.state * np.nan),
        "the sensor is stale.*0.0600 s old": changed(good, time_s=good.time_s + 0.06),
        "a sensor sample is later than its observation": changed(good, time_s=good.time_s - 0.001),
        "the sensor is not finite": changed(good, sensor=SensorSamples(late.times_s, late.values * np.nan)),
        "the sensor is stale.*inf": changed(good, sensor=SensorSamples(late.times_s[:0], late.values[:0])),
    }
    for match, observation in refused.items():
        with pytest.raises(DataError, match=match):
            processor.check_observation(observation)
        with pytest.raises(DataError):
            processor.encode_robot([observation])
    processor.check_observation(changed(good, time_s=good.time_s + limit_s - 0.001))


# ---- normalisation --------------------------------------------------------------------------------------------------


def test_actions_come_back_and_are_never_clamped(processor):
    normalizer = processor.normalizer("action")
    low, high = np.asarray(normalizer.statistics.low), np.asarray(normalizer.statistics.high)
    inside, outside = (low + high) / 2, high + 10 * (high - low) + 1.0
    chunk = np.stack([low, inside, high, outside])
    chunk[:, 2:] = [0.0, 1.0]  # height and gripper never move in these episodes
    batch = processor.encode_actions([chunk], [[True] * 4], ["a"])
    assert normalizer.constant.tolist() == [False, False, True, True]
    moving = batch["actions"][0, :, :2]
    torch.testing.assert_close(moving[0], torch.full((2,), -1.0))
    torch.testing.assert_close(moving[2], torch.full((2,), 1.0))
    assert (moving[3] > 20).all()  # (high + 10 d + 1 - centre) / (d / 2) >= 21
    assert np.allclose(processor.decode_actions(batch["actions"])[0], chunk, rtol=1e-6, atol=1e-7)


def test_a_constant_channel_comes_back_exactly(processor):
    decoded = processor.decode_actions(torch.randn(2, 4, 4, generator=torch.Generator().manual_seed(0)))
    assert decoded.dtype == np.float64 and (decoded[..., 3] == 1.0).all() and len(np.unique(decoded[..., 0])) == 8


def test_masked_steps_may_hold_anything(processor):
    chunk = np.full((4, 4), 0.01)
    chunk[2:] = np.nan
    batch = processor.encode_actions([chunk], [[True, True, False, False]], ["a"])
    assert batch["actions"].isfinite().all() and not batch["actions"][0, 2:].any()
    with pytest.raises(DataError, match="a, step 2: an action is not finite"):
        processor.encode_actions([chunk], [[True] * 4], ["a"])
    with pytest.raises(DataError, match=r"a: size of an action chunk; got \(3, 4\).*expected \(4, 4\)"):
        processor.encode_actions([chunk[:3]], [[True] * 3], ["a"])


def test_states_that_are_refused(processor):
    with pytest.raises(DataError, match=r"r1: size of the state; got \(5,\)"):
        processor.encode_state([np.zeros(4), np.zeros(5)], ["r0", "r1"])
    with pytest.raises(DataError, match="r0: the state is not finite"):
        processor.encode_state([np.array([0, np.inf, 0, 0])], ["r0"])


@pytest.mark.parametrize("name", ["action", "state", "sensor"])
def test_missing_statistics_are_an_error(processor, name, tmp_path):
    broken = deepcopy(processor)
    broken.normalizers = {key: value for key, value in processor.normalizers.items() if key != name}
    broken._normalizers = {}
    broken.save_pretrained(tmp_path)
    loaded = type(processor).from_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match=f"statistics of the {name} are missing"):
        if name == "action":
            loaded.decode_actions(torch.zeros(1, 4, 4))
        else:
            loaded(observe())

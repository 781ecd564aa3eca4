"""Tiny models on drawn episodes, one for each backbone and setting that a test asks for."""

import json

import numpy as np
import pytest

from hfvla.data.signals.observation import Observation
from hfvla.data.signals.sensor_loader import SensorSamples
from hfvla.models.sensor_vla import FAMILY
from hfvla.worlds.reaching import draw_episode

BACKBONES = ("qwen2_5_vl", "qwen3_vl", "smolvlm", "internvl", "fast_vlm")
EXPERTS = ("regression", "diffusion", "flow")
PERIOD_S = 1 / 400.0


def settings(backbone="qwen2_5_vl", **config):
    """Return a tiny config's dict; a dict of `config` goes over the tiny one's, key by key."""
    tiny = FAMILY.load("config").tiny(backbone).to_dict()
    for name, value in config.items():
        merged = isinstance(value, dict) and isinstance(tiny[name], dict)
        tiny[name] = {**tiny[name], **value} if merged else value
    return tiny


@pytest.fixture(scope="session")
def rows():
    """Eight steps of two episodes, shuffled; the first episode has a sensor, the second has none."""
    return FAMILY.load("examples")(8, 0)


@pytest.fixture(scope="session")
def build(rows):
    """Build (model in eval mode, processor), once for each setting: `build("internvl", fusion="gated")`."""
    found = {}

    def build(backbone="qwen2_5_vl", **config):
        key = json.dumps([backbone, config], sort_keys=True)
        if key not in found:
            model, processor = FAMILY.load("initialise")(
                {"config": settings(backbone, **config), "options": {}}, rows, seed=0
            )
            found[key] = (model.eval(), processor)
        return found[key]

    return build


@pytest.fixture(scope="session")
def model(build):
    return build()[0]


@pytest.fixture(scope="session")
def processor(build):
    return build()[1]


@pytest.fixture(scope="session")
def collate():
    """Collate rows: `collate(model, processor, rows)`."""

    def collate(model, processor, rows, **config):
        collator = FAMILY.load("collator")(processor, model.config)
        for name, value in config.items():
            setattr(collator.config, name, value)
        return collator([dict(row) for row in rows])

    return collate


def observe(seed=0, time_s=3.0, views=("front", "wrist"), sensor=True, task="press the red square", size=32):
    """Return an observation of a drawn episode's first step; the sensor's newest sample is at `time_s`."""
    _, steps = draw_episode(seed, 0, size, 2)
    step = next(iter(steps))
    times_s = time_s - np.arange(len(step.sensor) - 1, -1, -1) * PERIOD_S
    samples = SensorSamples(times_s, step.sensor) if sensor else None
    return Observation({view: step.views[view] for view in views}, step.state, task, time_s, samples)

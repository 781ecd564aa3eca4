"""A model, a processor and a clock that policies are tried with; no weights, no time of their own."""

import threading
import time
from types import SimpleNamespace

import numpy as np
import torch

from hfvla.data.signals.observation import Observation
from hfvla.data.signals.sensor_loader import SensorSamples
from hfvla.errors import DataError

HORIZON, ACTIONS = 8, 3


class Processor:
    """Two views, two numbers of state."""

    horizon, action_dim, window_s, fps = HORIZON, ACTIONS, 0.1, 10.0
    views, state_dim = ("front", "wrist"), 2

    def check_observation(self, observation):
        if len(observation.state) != self.state_dim:
            raise DataError("state", got=len(observation.state), expected=self.state_dim)


class Model:
    """Actions tell what they were made of: the state and step, the features, the noise; calls are kept.

    `before_predict` and `before_encode` run first in every call, and may block, raise or turn a clock.
    """

    def __init__(self, can_continue=False):
        self.can_continue = can_continue
        self.predicted, self.encoded = [], []
        self.before_predict = self.before_encode = lambda: None

    def encode_observations(self, processor, observations):
        self.before_encode()
        self.encoded.append(observations[0])
        return SimpleNamespace(brightness=float(np.mean([v.mean() for v in observations[0].views.values()])))

    def predict_actions(self, processor, observations, *, features=None, prefix=None, steps=None, generator=None):
        self.before_predict()
        (seen,) = observations
        self.predicted.append(SimpleNamespace(seen=seen, features=features, prefix=prefix, steps=steps))
        if features is None:
            features = self.encode_observations(processor, observations)
        chunk = np.empty((1, HORIZON, ACTIONS), dtype=np.float32)
        chunk[0, :, 0] = seen.state[0] + np.arange(HORIZON) / 100
        chunk[0, :, 1] = features.brightness
        chunk[0, :, 2] = torch.rand(HORIZON, generator=generator).numpy()
        return chunk


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self, now=100.0):
        self.now = now

    def __call__(self):
        return self.now

    def turn(self, seconds):
        self.now += seconds


def observe(time_s=100.0, state=0.0, sensor_age_s=0.0, brightness=10, size=(4, 6), sensor=True, task="insert"):
    """An observation whose sensor's newest sample is so old."""
    views = {name: np.full((*size, 3), brightness, dtype=np.uint8) for name in Processor.views}
    times = time_s - sensor_age_s - np.arange(4, -1, -1) * 0.01
    samples = SensorSamples(times, np.ones((5, 2), dtype=np.float32)) if sensor else None
    return Observation(views, np.array([state, 0.0], dtype=np.float32), task, time_s, samples)


def wait_until(condition, seconds=5.0):
    """Wait for another thread."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not happen"
        time.sleep(0.001)


class Gate:
    """Holds a call of the model until it is opened."""

    def __init__(self):
        self.entered, self.opened = threading.Event(), threading.Event()

    def __call__(self):
        self.entered.set()
        assert self.opened.wait(5)

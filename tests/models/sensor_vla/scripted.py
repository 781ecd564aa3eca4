"""A model whose actions tell what it was shown, for evaluations whose numbers are known beforehand."""

from types import SimpleNamespace

import numpy as np
import torch


class TellingModel:
    """Sampled chunks hold, normalised: state[0], sensor's mean (-9 without) plus mean pixel, 0, and noise.

    Args:
        config: a real model's.
    """

    device = torch.device("cpu")

    def __init__(self, config):
        self.config, self.shown, self.expert = config, [], SimpleNamespace(sample=self.sample)

    def eval(self):
        return self

    def to(self, _device):
        return self

    def encode(self, **batch):
        self.shown.append(dict(batch))
        return batch["pixel_values"].reshape(len(batch["input_ids"]), -1).mean(1)

    def fuse(self, pixels, state, sensor, sensor_present, sensor_mask):
        self.shown[-1] |= {"state": state, "sensor": sensor, "sensor_present": sensor_present}
        valid = sensor_mask & sensor_present[:, None]
        mean = (sensor[..., 2] * valid).sum(1) / valid.sum(1).clamp(min=1)
        felt = torch.where(sensor_present, mean, torch.tensor(-9.0))
        told = [state[:, 0], felt + pixels, torch.zeros_like(pixels)]
        return SimpleNamespace(tokens=torch.stack(told, dim=1), mask=None)

    def sample(self, tokens, *, feature_mask, generator, steps):
        self.steps = steps
        noise = torch.randn(len(tokens), 1, generator=generator)
        return torch.cat([tokens, noise], dim=1)[:, None].repeat(1, self.config.action["horizon"], 1)


class RecordingModel:
    """Keeps the observations it is asked about, and answers with a chunk that counts its steps."""

    def __init__(self):
        self.asked, self.options = [], []

    def eval(self):
        return self

    def to(self, _device):
        return self

    def predict_actions(self, processor, observations, **options):
        self.asked += observations
        options["draw"] = float(torch.rand((), generator=options["generator"]))
        self.options.append(options)
        steps = np.arange(processor.horizon, dtype=np.float64)[None, :, None]
        return np.repeat(steps, processor.action_dim, axis=2)

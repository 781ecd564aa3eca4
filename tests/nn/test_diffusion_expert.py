"""Diffusion by hand: the schedule, targets, samplers that arrive where the model points, and a missing package."""

import math
import sys

import pytest
import torch

from hfvla.errors import MissingExtraError
from hfvla.nn.action_experts import build_action_expert

pytest.importorskip("diffusers")

FEATURES, MASK = torch.zeros(2, 1, 4), torch.ones(2, 4, dtype=torch.bool)


def tiny(**options):
    torch.manual_seed(0)
    settings = {"width": 16, "layers": 1, "heads": 2, "feed_forward": 16} | options
    return build_action_expert("diffusion", feature_width=4, action_dim=1, horizon=4, **settings).eval()


class Oracle(torch.nn.Module):
    """Knows the clean actions, and answers with the noise or velocity that follows from them."""

    def __init__(self, expert, goal):
        super().__init__()
        self.decoder, self.goal, self.epsilon = expert.denoiser.decoder, goal, expert.prediction == "epsilon"
        self.alpha_bar, self.steps = expert.scheduler("ddpm").alphas_cumprod, []
        self.count = expert.train_steps

    def forward(self, noisy, time, memory, mask=None):
        step = (time * self.count).round().long() - 1
        self.steps.append(step[0].item())
        signal = self.alpha_bar[step].sqrt()[:, None, None]
        noise_share = (1 - self.alpha_bar[step]).sqrt()[:, None, None]
        noise = (noisy - signal * self.goal) / noise_share
        return noise if self.epsilon else signal * noise - noise_share * self.goal


def test_the_cosine_schedule():
    """Nichol and Dhariwal 2021, eq. 17: f(t) = cos((t + s) / (1 + s) pi / 2)^2, s = 0.008, betas at most 0.999."""
    found = tiny().scheduler("ddpm").alphas_cumprod
    f = [math.cos((t / 100 + 0.008) / 1.008 * math.pi / 2) ** 2 for t in range(101)]
    expected, product = [], 1.0
    for before, after in zip(f, f[1:], strict=False):
        product *= 1 - min(1 - after / before, 0.999)
        expected.append(product)
    torch.testing.assert_close(found, torch.tensor(expected), atol=1e-6, rtol=1e-4)
    assert found[-1] < 3e-7 and len(found) == 100


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_an_oracle_has_no_loss(prediction):
    """x_t = sqrt(ab) a + sqrt(1 - ab) n; target n, or v = sqrt(ab) n - sqrt(1 - ab) a."""
    expert, actions = tiny(prediction=prediction), torch.randn(2, 4, 1)
    expert.denoiser = Oracle(expert, actions)
    for seed in range(5):
        loss = expert.loss(FEATURES, actions, MASK, generator=torch.Generator().manual_seed(seed))
        assert loss.max() < 1e-6
    assert len(set(expert.denoiser.steps)) > 2
    expert.denoiser.goal = actions + 1
    assert expert.loss(FEATURES, actions, MASK, generator=torch.Generator().manual_seed(0)).min() > 1e-4


@pytest.mark.parametrize("sampler", ["ddim", "ddpm"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
@pytest.mark.parametrize("steps", [5, 10, 100])
def test_samplers_arrive(sampler, prediction, steps):
    expert, goal = tiny(prediction=prediction, sampler=sampler), 3 * torch.randn(2, 4, 1)
    expert.denoiser = Oracle(expert, goal)
    chunk = expert.sample(FEATURES, steps=steps)
    torch.testing.assert_close(chunk, goal, atol=2e-3, rtol=1e-3)  # beyond +-1: nothing is clamped
    assert expert.denoiser.steps[0] == 99 and len(expert.denoiser.steps) == steps


def test_clip_range():
    expert = tiny(clip_range=0.5)
    expert.denoiser = Oracle(expert, torch.full((2, 4, 1), 3.0))
    torch.testing.assert_close(expert.sample(FEATURES), torch.full((2, 4, 1), 0.5))


def test_only_ddpm_draws_on_the_way():
    expert = tiny()
    expert.denoiser = Oracle(expert, torch.zeros(2, 4, 1))
    generators = []
    for sampler in ("ddim", "ddpm"):
        expert.sampler = sampler
        generators.append(torch.Generator().manual_seed(0))
        expert.sample(FEATURES, generator=generators[-1])
    first = torch.Generator().manual_seed(0)
    torch.randn(2, 4, 1, generator=first)
    assert torch.equal(generators[0].get_state(), first.get_state())
    assert not torch.equal(generators[1].get_state(), first.get_state())


def test_built_on_the_meta_device():
    with torch.device("meta"):
        expert = tiny()
        assert expert.scheduler("ddim").alphas_cumprod.device.type == "cpu"
    assert expert.denoiser.positions.device.type == "meta"


def test_refusals(monkeypatch):
    for options, problem in (
        ({"prediction": "sample"}, "prediction 'sample'; expected one of epsilon, v_prediction"),
        ({"sampler": "euler"}, "sampler 'euler'"),
    ):
        with pytest.raises(ValueError, match=problem):
            tiny(**options)
    with pytest.raises(ValueError, match="101 denoising steps; expected 1 to 100"):
        tiny().sample(FEATURES, steps=101)


def test_a_missing_package_is_named(monkeypatch):
    for name in [name for name in sys.modules if name.split(".")[0] == "diffusers"]:
        monkeypatch.delitem(sys.modules, name)
    finders = [finder for finder in sys.meta_path]

    class Nothing:
        @staticmethod
        def find_spec(name, path=None, target=None):
            return next((s for f in finders if name != "diffusers" and (s := f.find_spec(name, path, target))), None)

    monkeypatch.setattr(sys, "meta_path", [Nothing])
    with pytest.raises(MissingExtraError, match="needs the package 'diffusers'"):
        tiny()

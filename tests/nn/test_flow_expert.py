"""Flow matching by hand: times, the straight path, Euler steps, and known first actions."""

import pytest
import torch
from torch import nn

from hfvla.nn.action_experts import FlowExpert

FEATURES = torch.zeros(2, 1, 4)
MASK = torch.tensor([[True] * 4, [True, True, True, False]])


def tiny(**options):
    torch.manual_seed(0)
    settings = {"width": 16, "layers": 1, "heads": 2, "feed_forward": 16} | options
    return FlowExpert(4, 1, 4, **settings).eval()


class Recorder(nn.Module):
    """Stands for the denoiser: keeps what it is asked, answers by a function of it."""

    def __init__(self, decoder, answer):
        super().__init__()
        self.decoder, self.answer, self.calls = decoder, answer, []

    def forward(self, noisy, time, memory, mask=None):
        self.calls.append((noisy.clone(), time.clone()))
        return self.answer(noisy, time)


def recorded(expert, answer):
    expert.denoiser = Recorder(expert.denoiser.decoder, answer)
    return expert.denoiser


def test_times_are_beta():
    times = tiny().draw_times(100_000, FEATURES, torch.Generator().manual_seed(0))
    # Beta(1.5, 1): mean 1.5 / 2.5 = 0.6, P(t < 0.5) = 0.5 ** 1.5 = 0.3536, variance 1.5 / (2.5^2 x 3.5) = 0.0686
    assert times.mean().item() == pytest.approx(0.6, abs=0.005)
    assert (times < 0.5).float().mean().item() == pytest.approx(0.3536, abs=0.006)
    assert times.var().item() == pytest.approx(0.0686, abs=0.002)
    assert times.min() >= 1e-3 and times.max() <= 1.0
    even = tiny(time_alpha=1.0).draw_times(100_000, FEATURES, torch.Generator().manual_seed(0))
    assert even.mean().item() == pytest.approx(0.5, abs=0.005)


def test_the_loss_by_hand():
    """The path is t n + (1 - t) a and the target n - a = (x - a) / t: a model that knows a has no error."""
    expert, actions = tiny(), torch.randn(2, 4, 1)
    asked = recorded(expert, lambda x, t: (x - actions) / t[..., None])
    perfect = expert.loss(FEATURES, actions, MASK.new_ones(2, 4), generator=torch.Generator().manual_seed(0))
    assert perfect.abs().max() < 1e-8
    assert (asked.calls[0][1] == asked.calls[0][1][:, :1]).all()  # one time a sample
    # A velocity of 0 costs the mean of (n - a)^2, over noise of variance 1: 1 + mean a^2
    expert = tiny()
    recorded(expert, lambda x, t: torch.zeros_like(x))
    many = torch.full((4000, 4, 1), 2.0)
    loss = expert.loss(FEATURES[:1].expand(4000, -1, -1), many, torch.ones(4000, 4, dtype=torch.bool))
    assert loss.mean().item() == pytest.approx(5.0, abs=0.2)


@pytest.mark.parametrize("steps", [1, 2, 10])
def test_euler_steps_by_hand(steps):
    """Towards a single point the velocity (x - a) / t is straight: Euler arrives after any number of steps."""
    expert, goal = tiny(), torch.randn(2, 4, 1)
    asked = recorded(expert, lambda x, t: (x - goal) / t[..., None])
    torch.testing.assert_close(expert.sample(FEATURES, steps=steps), goal, atol=1e-5, rtol=1e-5)
    expected = torch.tensor([1.0 - step / steps for step in range(steps)])
    torch.testing.assert_close(torch.stack([time[0, 0] for _, time in asked.calls]), expected)


def test_the_default_number_of_steps():
    expert = tiny()
    asked = recorded(expert, lambda x, t: torch.ones_like(x))
    chunk = expert.sample(FEATURES)
    assert len(asked.calls) == 10
    torch.testing.assert_close(chunk, asked.calls[0][0] - 1.0)  # unit velocity for unit time
    with pytest.raises(ValueError, match="0 denoising steps"):
        expert.sample(FEATURES, steps=0)


@pytest.mark.parametrize("max_prefix", [0, 2])
def test_known_actions_are_kept(max_prefix):
    expert, prefix = tiny(max_prefix=max_prefix), torch.randn(2, 2, 1)
    chunk = expert.sample(FEATURES, prefix=prefix, generator=torch.Generator().manual_seed(0))
    assert torch.equal(chunk[:, :2], prefix)
    other = expert.sample(FEATURES, prefix=prefix + 1, generator=torch.Generator().manual_seed(0))
    assert (chunk[:, 2:] - other[:, 2:]).abs().max() > 1e-5  # what follows depends on them
    empty = expert.sample(FEATURES, prefix=prefix[:, :0], generator=torch.Generator().manual_seed(0))
    assert torch.equal(empty, expert.sample(FEATURES, generator=torch.Generator().manual_seed(0)))


def test_what_the_model_sees_of_a_prefix():
    prefix = torch.tensor([[[3.0], [4.0]]] * 2)
    trained = tiny(max_prefix=2)
    asked = recorded(trained, lambda x, t: torch.ones_like(x))
    trained.sample(FEATURES, prefix=prefix, steps=2)
    for (noisy, time), expected in zip(asked.calls, (1.0, 0.5), strict=True):
        assert torch.equal(noisy[:, :2], prefix) and time[0].tolist() == [0.0, 0.0, expected, expected]
    plain = tiny()
    asked = recorded(plain, lambda x, t: torch.ones_like(x))
    plain.sample(FEATURES, prefix=prefix, steps=2)
    noise = asked.calls[0][0]
    torch.testing.assert_close(asked.calls[1][0][:, :2], 0.5 * noise[:, :2] + 0.5 * prefix)
    assert asked.calls[1][1][0].tolist() == [0.5] * 4


def test_prefixes_in_training():
    expert, actions = tiny(max_prefix=3), torch.randn(500, 4, 1)
    features, mask = FEATURES[:1].expand(500, -1, -1), MASK[:1].repeat(500, 1)
    mask[::2, 2:] = False  # two valid steps: a prefix of 1 at most
    asked = recorded(expert, lambda x, t: torch.zeros_like(x))
    expert.loss(features, actions, mask, generator=torch.Generator().manual_seed(0))
    noisy, times = asked.calls[0]
    lengths = (times == 0).sum(1)
    assert set(lengths[1::2].tolist()) == {0, 1, 2, 3} and set(lengths[::2].tolist()) == {0, 1}
    known = times == 0
    assert torch.equal(known, torch.arange(4) < lengths[:, None])  # a prefix, nothing else
    assert torch.equal(noisy[known], actions[known])
    # No loss at known steps: what the model says there does not count
    wrong = recorded(expert, lambda x, t: (t == 0)[..., None] * 1e3)
    loss = expert.loss(features, torch.zeros_like(actions), mask, generator=torch.Generator().manual_seed(0))
    assert wrong.calls and loss.max() < 50


def test_refusals():
    with pytest.raises(ValueError, match="max_prefix 4; expected 0 to 3"):
        tiny(max_prefix=4)
    with pytest.raises(ValueError, match="time_alpha 0"):
        tiny(time_alpha=0)
    with pytest.raises(ValueError, match="width 15 is odd"):
        tiny(width=15, heads=3)
    for shape in ((2, 5, 1), (1, 2, 1), (2, 2, 2), (2, 2)):
        with pytest.raises(ValueError, match="FlowExpert: prefix"):
            tiny().sample(FEATURES, prefix=torch.zeros(shape))

"""Promises of every action expert: sizes, masks, seeds, no leak of the answer, and a choice of two it can learn."""

import pytest
import torch
from torch import nn

from hfvla.losses.action import masked_squared_error
from hfvla.nn.action_experts import ACTION_EXPERTS, FlowExpert, RegressionExpert, build_action_expert

KINDS = [
    "regression",
    "flow",
    pytest.param("diffusion", marks=pytest.mark.skipif("not __import__('importlib').util.find_spec('diffusers')")),
]
FEATURE_MASK = torch.tensor([[True, True, False], [True, True, True]])
MASK = torch.tensor([[True, True, True, True], [True, True, False, False]])


def tiny(kind, **options):
    torch.manual_seed(0)
    settings = {"width": 16, "layers": 2, "heads": 2, "feed_forward": 32} | options
    return build_action_expert(kind, feature_width=6, action_dim=3, horizon=4, **settings).eval()


def given():
    torch.manual_seed(1)
    return torch.randn(2, 3, 6), torch.randn(2, 4, 3)


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


# A decoder layer of width W = 2048 with F = 4096: two attentions 8 W^2 + 8 W, feed-forward 2 W F + F + W, three norms
# 6 W: 50,366,464; four of them. Around them: norm of the features 2 W, projection W^2 + W, last norm 2 W, and the
# output W * 7 + 7. The original has 8 steps of 7 channels.
SHARED = 4 * 50_366_464 + 4_096 + 4_196_352 + 4_096 + 14_343


@pytest.mark.parametrize("kind", KINDS)
def test_parameters_at_the_original_sizes(kind):
    with torch.device("meta"):
        expert = build_action_expert(kind, feature_width=2048, action_dim=7)
    # Regression adds 8 queries; the others 8 positions, an input layer 7 W + W and two time layers W^2 + W.
    more = 8 * 2048 if kind == "regression" else 8 * 2048 + 16_384 + 2 * 4_196_352
    assert parameters(expert) == SHARED + more
    assert parameters(expert) == (205_701_127 if kind == "regression" else 214_110_215)


@pytest.mark.parametrize("kind", KINDS)
def test_shapes(kind):
    expert, (features, actions) = tiny(kind), given()
    loss = expert.loss(features, actions, MASK, feature_mask=FEATURE_MASK)
    assert loss.shape == (2,) and loss.dtype == torch.float32 and loss.requires_grad
    chunk = expert.sample(features, feature_mask=FEATURE_MASK, steps=3)
    assert chunk.shape == (2, 4, 3) and chunk.dtype == torch.float32 and not chunk.requires_grad


@pytest.mark.parametrize("kind", KINDS)
def test_masked_tokens_and_steps_have_no_influence(kind):
    expert, (features, actions) = tiny(kind), given()
    features.requires_grad_()

    def results():
        loss = expert.loss(features, actions, MASK, feature_mask=FEATURE_MASK, generator=seeded())
        return loss, expert.sample(features, feature_mask=FEATURE_MASK, generator=seeded())

    before = results()
    before[0].sum().backward()
    assert features.grad[~FEATURE_MASK].abs().sum() == 0 and features.grad[FEATURE_MASK].abs().sum() > 0
    features = features.detach().clone()
    features[~FEATURE_MASK], actions[~MASK] = torch.nan, torch.nan
    for old, new in zip(before, results(), strict=True):
        assert torch.equal(old, new)
    # The valid ones have influence: else the test above proves nothing
    actions[1, 1] += 1.0
    assert not torch.equal(results()[0][1], before[0][1]) and torch.equal(results()[0][0], before[0][0])
    features[0, 1] += torch.arange(6.0)
    assert (results()[1][0] - before[1][0]).abs().max() > 1e-4


@pytest.mark.parametrize("kind", KINDS[1:])
def test_the_noise_of_masked_steps_has_no_influence(kind, monkeypatch):
    """A masked step enters as noise: what valid steps attend to would depend on it."""
    expert, (features, actions) = tiny(kind), given()
    noise = torch.randn(2, 4, 3)
    losses = []
    for more in (0.0, 5.0):
        drawn = noise + more * ~MASK[..., None]
        monkeypatch.setattr(f"{type(expert).__module__}.draw_normal", lambda *_, drawn=drawn: drawn)
        losses.append(expert.loss(features, actions, MASK, generator=seeded()))
    assert torch.equal(*losses)


@pytest.mark.parametrize("kind", KINDS)
def test_padding_changes_nothing(kind):
    expert, (features, actions) = tiny(kind), given()
    wide = torch.cat([features, torch.full((2, 4, 6), torch.inf)], 1)
    mask = torch.ones(2, 3, dtype=torch.bool)
    padded = torch.cat([mask, torch.zeros(2, 4, dtype=torch.bool)], 1)
    torch.testing.assert_close(
        expert.loss(features, actions, MASK, generator=seeded()),
        expert.loss(wide, actions, MASK, feature_mask=padded, generator=seeded()),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_samples_without_a_valid_step_are_zero_and_finite(kind):
    expert, (features, actions) = tiny(kind), given()
    features.requires_grad_()
    mask = torch.tensor([[False] * 4, [True] * 4])
    actions[0] = torch.nan
    loss = expert.loss(features, actions, mask, feature_mask=torch.tensor([[False] * 3, [True] * 3]))
    loss.sum().backward()
    assert loss[0] == 0 and loss[1] > 0 and features.grad.isfinite().all()
    assert all(parameter.grad.isfinite().all() for parameter in expert.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_the_generator_decides(kind):
    expert, (features, actions) = tiny(kind), given()
    first, again, other = (expert.sample(features, generator=seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and torch.equal(first, other) == (kind == "regression")
    state = torch.get_rng_state()
    first, again, other = (expert.loss(features, actions, MASK, generator=seeded(seed)) for seed in (0, 0, 1))
    assert torch.equal(first, again) and torch.equal(first, other) == (kind == "regression")
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize("kind", KINDS)
def test_all_parameters_train_and_forward_is_the_loss(kind):
    expert, (features, actions) = tiny(kind), given()
    loss = expert(features, actions, MASK, generator=seeded())
    torch.testing.assert_close(loss, expert.loss(features, actions, MASK, generator=seeded()))
    loss.sum().backward()
    assert all(parameter.grad.abs().sum() > 0 for parameter in expert.parameters())


@pytest.mark.parametrize("kind", KINDS)
def test_steps_have_positions(kind):
    """Without them, every step of a chunk with the same noise would be the same."""
    expert, (features, _) = tiny(kind), given()
    same = torch.zeros(2, 4, 3)
    if kind == "regression":
        chunk = expert.predict(features)
    else:
        chunk = expert.denoiser(same, torch.full((2,), 0.5), expert.denoiser.decoder.remember(features))
    assert (chunk[:, 0] - chunk[:, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("kind", KINDS)
def test_half_precision_features(kind):
    expert, (features, actions) = tiny(kind), given()
    loss = expert.loss(features.bfloat16(), actions, MASK, generator=seeded())
    torch.testing.assert_close(loss, expert.loss(features, actions, MASK, generator=seeded()), atol=0.1, rtol=0.05)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = expert.loss(features, actions, MASK, generator=seeded())
    torch.testing.assert_close(mixed, loss, atol=0.1, rtol=0.05)
    half = expert.to(torch.bfloat16)
    assert half.loss(features, actions, MASK).dtype == half.sample(features).dtype == torch.float32


def test_the_truth_cannot_reach_a_regressed_prediction():
    """The original fed the actions to its expert. Here the loss of any actions is their error to one prediction."""
    expert, (features, _) = tiny("regression").train(), given()
    predicted = expert.sample(features)
    for seed in range(3):
        actions = torch.randn(2, 4, 3, generator=seeded(seed)).requires_grad_()
        loss = expert.loss(features, actions, MASK)
        torch.testing.assert_close(loss, masked_squared_error(predicted, actions, MASK))
        (grad,) = torch.autograd.grad(loss.sum(), actions)
        # d/da of the mean of (p - a)^2 is 2 (a - p) / n; anything else went through the prediction.
        count = MASK.sum(1)[:, None, None] * 3
        torch.testing.assert_close(grad, 2 * (actions - predicted) * MASK[..., None] / count)


@pytest.mark.parametrize("kind", KINDS)
def test_two_ways_round(kind):
    """Half of the demonstrations pass on the left (-1), half on the right (+1): the mean, 0, hits the obstacle."""
    torch.manual_seed(0)
    options = {"width": 32, "layers": 1, "heads": 4, "feed_forward": 64}
    expert = build_action_expert(kind, feature_width=8, action_dim=1, horizon=2, **options)
    optimizer, generator, rounds = torch.optim.AdamW(expert.parameters(), lr=3e-3), seeded(), 250
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, rounds)
    features, mask = torch.ones(128, 1, 8), torch.ones(128, 2, dtype=torch.bool)
    for _ in range(rounds):
        side = torch.randint(0, 2, (128, 1, 1), generator=generator).float() * 2 - 1
        loss = expert.loss(features, side.expand(-1, 2, -1), mask, generator=generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    chunks = expert.eval().sample(torch.ones(200, 1, 8), generator=generator)[..., 0]  # [200, 2]
    if kind == "regression":
        assert chunks.abs().max() < 0.3
        return
    assert ((chunks.abs() - 1).abs() < 0.4).float().mean() > 0.85
    assert 0.3 < (chunks[:, 0] > 0).float().mean() < 0.7  # both ways
    assert (chunks[:, 0] * chunks[:, 1] > 0).float().mean() > 0.95  # and each chunk keeps to one


@pytest.mark.parametrize("kind", KINDS)
def test_bad_shapes(kind):
    expert, (features, actions) = tiny(kind), given()
    with pytest.raises(ValueError, match=r"features \(2, 3, 5\); expected \[B, N > 0, 6\]"):
        expert.sample(features[..., :5])
    with pytest.raises(ValueError, match=r"feature_mask \(2, 4\); expected \(2, 3\)"):
        expert.sample(features, feature_mask=MASK)
    with pytest.raises(ValueError, match=r"actions \(2, 4, 2\).*expected \(2, 4, 3\)"):
        expert.loss(features, actions[..., :2], MASK)
    with pytest.raises(ValueError, match=r"mask \(2, 3\)"):
        expert.loss(features, actions, MASK[:, :3])


def test_names():
    assert list(ACTION_EXPERTS) == ["regression", "diffusion", "flow"]
    assert isinstance(tiny("flow"), FlowExpert) and isinstance(tiny("regression"), RegressionExpert)
    with pytest.raises(ValueError, match="unknown action expert 'flows'.*'flow'"):
        build_action_expert("flows")
    with pytest.raises(ValueError, match="width 15"):
        tiny("regression", width=15)
    assert isinstance(tiny("flow"), nn.Module)

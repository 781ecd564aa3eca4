"""Sensor encoder: sizes, missing sensors that never look like data, positions, and a level it can learn."""

import pytest
import torch
from torch import nn

from hfvla.nn.sensor_encoder import SensorEncoder, drop_sensors


def tiny(**options):
    torch.manual_seed(0)
    settings = {"conv_widths": (8, 16), "layers": 1, "heads": 2, "feed_forward": 32, "groups": 4} | options
    return SensorEncoder(3, 6, **settings).eval()


def test_parameters_at_the_original_sizes():
    with torch.device("meta"):
        encoder = SensorEncoder(1026, 2048)
    # Convolutions 3 C D + D: 1,576,448 + 1,573,888 + 2 x 3,146,752; their norms 2 x 3,584. A layer of 1024 with a
    # hidden layer of 4096 has 12,596,224, two of them. Last norm 2,048, projection 1024 x 2048 + 2048; vectors of what
    # is missing 1026 + 2048.
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 36_747_778
    assert [encoder.token_count(points) for points in (650, 65)] == [41, 5]  # 650 325 163 82 41; 65 33 17 9 5


@pytest.mark.parametrize("points", [1, 2, 7, 8, 33])
@pytest.mark.parametrize("norm", ["layer", "group"])
def test_shapes(points, norm):
    encoder = tiny(norm=norm)
    found = encoder(torch.randn(2, points, 3), torch.tensor([True, False]))
    tokens = encoder.token_count(points)
    assert (
        found.tokens.shape == (2, tokens, 6) and found.token_mask.shape == (2, tokens) and found.pooled.shape == (2, 6)
    )
    torch.testing.assert_close(found.pooled[0], found.tokens[0].mean(0))


@pytest.mark.parametrize("branches", [None, (1, 2)])
@pytest.mark.parametrize("norm", ["layer", "group"])
def test_a_missing_sensor_is_a_token_of_its_own(norm, branches):
    encoder = tiny(norm=norm, branches=branches)
    window = torch.randn(3, 16, 3)
    window[1], window[2] = torch.nan, 0.0
    found = encoder(window, torch.tensor([True, False, True]))
    assert found.present.tolist() == [True, False, True]
    assert torch.equal(found.pooled[1], encoder.no_sensor) and torch.equal(found.tokens[1, 0], encoder.no_sensor)
    assert found.token_mask[1].tolist() == [True] + [False] * 3 and found.token_mask[0].all()
    assert (found.pooled[2] - found.pooled[1]).abs().max() > 0.05  # zeros are data
    # The company in the batch changes nothing: no statistics are shared.
    alone = encoder(window[:1], torch.tensor([True]))
    torch.testing.assert_close(alone.tokens[0], found.tokens[0])


def test_missing_sensors_train_their_token_only():
    encoder = tiny().train()
    window = torch.full((2, 16, 3), torch.nan)
    encoder(window, torch.tensor([False, False])).pooled.sum().backward()
    grads = {name: parameter.grad for name, parameter in encoder.named_parameters()}
    assert grads.pop("no_sensor").abs().sum() > 0
    assert all(grad is None or grad.abs().sum() == 0 for grad in grads.values())


def test_missing_points():
    encoder, window = tiny(), torch.randn(1, 16, 3)
    mask = torch.ones(1, 16, dtype=torch.bool)
    mask[:, :8] = False
    found = [
        encoder(torch.where(mask[..., None], window, fill), torch.tensor([True]), mask) for fill in (7.0, torch.nan)
    ]
    assert torch.equal(found[0].tokens, found[1].tokens)
    # Two convolutions: token k looks at points 4 k - 3 to 4 k + 3, so tokens 0 and 1 see none from 8 on
    assert found[0].token_mask.tolist() == [[False, False, True, True]]
    zeros = encoder(torch.where(mask[..., None], window, 0.0), torch.tensor([True]))
    assert (zeros.pooled - found[0].pooled).abs().max() > 1e-3
    nothing = encoder(window, torch.tensor([True]), torch.zeros_like(mask))
    assert not nothing.present.any() and torch.equal(nothing.pooled[0], encoder.no_sensor)


def test_a_missing_point_among_others_is_not_a_zero():
    encoder, window = tiny(), torch.randn(1, 16, 3)
    mask = torch.ones(1, 16, dtype=torch.bool)
    mask[:, 6] = False
    window[:, 6] = 0.0
    missing, zero = encoder(window, torch.tensor([True]), mask), encoder(window, torch.tensor([True]))
    assert missing.token_mask.all() and (missing.pooled - zero.pooled).abs().max() > 1e-3


def test_masked_tokens_are_not_attended_to(monkeypatch):
    encoder, window = tiny(), torch.randn(1, 16, 3)
    mask = torch.arange(16)[None] >= 8
    convolve, valid = encoder._convolve, torch.tensor([False, False, True, True])
    found = []
    for more in (0.0, 5.0):
        noise = more * ~valid[None, :, None] * torch.randn(1, 4, 16)
        monkeypatch.setattr(encoder, "_convolve", lambda *given, noise=noise: convolve(*given) + noise)
        found.append(encoder(window, torch.tensor([True]), mask))
    assert torch.equal(found[0].pooled, found[1].pooled) and torch.equal(found[0].token_mask[0], valid)
    assert torch.equal(found[0].tokens[:, valid], found[1].tokens[:, valid])


def test_a_missing_branch():
    encoder = tiny(branches=(1, 2))
    window, present = torch.randn(2, 16, 3), torch.tensor([[True, True], [True, False]])
    before = encoder(window, present)
    other = window.clone()
    other[:, :, 1:] = torch.nan  # the second branch
    other[0, :, 1:] = window[0, :, 1:]
    assert torch.equal(encoder(other, present).tokens, before.tokens)
    assert before.present.all()
    other[1, :, 0] += 1.0
    assert not torch.equal(encoder(other, present).tokens[1], before.tokens[1])
    silent = window.clone()
    silent[1, :, 1:] = 0.0
    everything = encoder(silent, torch.ones(2, 2, dtype=torch.bool))
    assert (everything.pooled[1] - before.pooled[1]).abs().max() > 1e-3


def test_positions_tell_early_from_late(monkeypatch):
    encoder, window = tiny(), torch.zeros(2, 64, 3)
    window[0, 24:28], window[1, 40:44] = 1.0, 1.0
    present = torch.ones(2, dtype=torch.bool)
    early, late = encoder(window, present).pooled
    assert (early - late).abs().max() > 1e-3
    monkeypatch.setattr(encoder, "_positions", torch.zeros_like)
    early, late = encoder(window, present).pooled
    torch.testing.assert_close(early, late, atol=1e-5, rtol=1e-5)


def test_dropout_follows_the_generator():
    present = torch.ones(1000, dtype=torch.bool)
    drawn = [drop_sensors(present, 0.3, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert 0.65 < drawn[0].float().mean() < 0.75
    assert drop_sensors(present, 0.0).all() and not drop_sensors(present, 1.0).any()
    both = drop_sensors(torch.ones(50, 2, dtype=torch.bool), 0.5, torch.Generator().manual_seed(0))
    assert torch.equal(both[:, 0], both[:, 1]) and 0 < both[:, 0].sum() < 50
    assert not drop_sensors(torch.zeros(9, dtype=torch.bool), 0.0).any()


def test_dropout_is_of_training_only():
    encoder, window, present = tiny(sensor_dropout=0.5), torch.randn(64, 8, 3), torch.ones(64, dtype=torch.bool)
    assert encoder(window, present).present.all()
    dropped = encoder.train()(window, present, generator=torch.Generator().manual_seed(3))
    again = encoder(window, present, generator=torch.Generator().manual_seed(3))
    assert torch.equal(dropped.present, again.present) and 16 < dropped.present.sum() < 48
    assert (dropped.pooled[~dropped.present] == encoder.no_sensor).all()


def test_learns_the_level_and_the_lack_of_a_sensor():
    torch.manual_seed(0)
    encoder, head = tiny().train(), nn.Linear(6, 1)
    optimizer = torch.optim.AdamW([*encoder.parameters(), *head.parameters()], lr=5e-3)
    generator = torch.Generator().manual_seed(0)

    def batch():
        level = torch.rand(64, 1, generator=generator) * 4 - 2
        window = level[:, :, None] + 0.3 * torch.randn(64, 16, 3, generator=generator)
        present = torch.rand(64, generator=generator) > 0.2
        return window, present, torch.where(present[:, None], level, 3.0)

    for _ in range(150):
        window, present, wanted = batch()
        loss = (head(encoder(window, present).pooled) - wanted).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    window, present, wanted = batch()
    error = (head(encoder(window, present).pooled) - wanted).square()
    assert error[present].mean() < 0.15 and error[~present].mean() < 0.15  # the level's variance is 16 / 12


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"branches": (1, 1)}, r"\(1, 1\) do not add up to 3"),
        ({"norm": "batch"}, "norm 'batch'"),
        ({"norm": "group", "groups": 3}, "multiples of 3 groups"),
        ({"conv_widths": ()}, r"conv widths \(\)"),
        ({"sensor_dropout": 1.5}, "sensor_dropout 1.5"),
    ],
)
def test_bad_options(options, problem):
    with pytest.raises(ValueError, match=problem):
        tiny(**options)


@pytest.mark.parametrize(
    ("window", "present", "mask", "problem"),
    [
        ((2, 8, 4), (2,), None, r"\(2, 8, 4\); expected \[B, T > 0, 3\]"),
        ((2, 8, 3), (3,), None, r"present \(3,\)"),
        ((2, 8, 3), (2,), (2, 7), r"point_mask \(2, 7\)"),
    ],
)
def test_bad_shapes(window, present, mask, problem):
    mask = None if mask is None else torch.ones(mask, dtype=torch.bool)
    with pytest.raises(ValueError, match=problem):
        tiny()(torch.zeros(window), torch.ones(present, dtype=torch.bool), mask)


@pytest.mark.parametrize("branches", [None, (1, 2)])
def test_mixed_precision(branches):
    encoder, window, present = tiny(branches=branches), torch.randn(2, 16, 3), torch.tensor([True, False])
    expected = encoder(window, present).pooled
    with torch.autocast("cpu", torch.bfloat16):
        found = encoder(window, present).pooled
    torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=0.05)
    half = encoder.to(torch.bfloat16)(window, present)
    torch.testing.assert_close(half.pooled.float(), expected, atol=0.1, rtol=0.1)

"""Fusions: what each kind computes, and that masked tokens change nothing."""

import pytest
import torch

from hfvla.nn.fusion import FUSIONS, Fusion

FEATURE_MASK = torch.tensor([[True, True, False, False], [True, True, True, True]])
SENSOR_MASK = torch.tensor([[True, True, True], [True, False, False]])


def fusion(kind):
    torch.manual_seed(0)
    return Fusion(kind, 8, 6, heads=2).eval()


def given():
    torch.manual_seed(1)
    return torch.randn(2, 4, 8), torch.randn(2, 3, 6)


@pytest.mark.parametrize("kind", FUSIONS)
def test_shapes_and_masks(kind):
    features, sensor = given()
    fused = fusion(kind)(features, FEATURE_MASK, sensor, SENSOR_MASK)
    expected = torch.cat([FEATURE_MASK, SENSOR_MASK], 1) if kind == "concat" else FEATURE_MASK
    assert torch.equal(fused.mask, expected) and fused.tokens.shape == (*expected.shape, 8)
    assert (fused.tokens[~fused.mask] == 0).all() and (fused.tokens[fused.mask] != 0).any(1).all()


@pytest.mark.parametrize("kind", FUSIONS)
def test_masked_tokens_change_nothing(kind):
    module, (features, sensor) = fusion(kind), given()
    before = module(features, FEATURE_MASK, sensor, SENSOR_MASK)
    features[~FEATURE_MASK], sensor[~SENSOR_MASK] = torch.nan, torch.nan
    after = module(features, FEATURE_MASK, sensor, SENSOR_MASK)
    assert torch.equal(before.tokens, after.tokens)
    # Nor does more padding behind both
    wide = torch.cat([features, torch.full((2, 2, 8), torch.inf)], 1)
    long = torch.cat([sensor, torch.full((2, 5, 6), torch.inf)], 1)
    masks = [torch.cat([mask, torch.zeros(2, more, dtype=torch.bool)], 1) for mask, more in
             ((FEATURE_MASK, 2), (SENSOR_MASK, 5))]  # fmt: skip
    padded = module(wide, masks[0], long, masks[1])
    torch.testing.assert_close(padded.tokens[padded.mask], before.tokens[before.mask])


@pytest.mark.parametrize("kind", FUSIONS)
def test_the_sensor_is_read(kind):
    module, (features, sensor) = fusion(kind), given()
    before = module(features, FEATURE_MASK, sensor, SENSOR_MASK)
    sensor[0, 1] += torch.arange(6.0)
    after = module(features, FEATURE_MASK, sensor, SENSOR_MASK)
    assert ((before.tokens[0] - after.tokens[0]).abs().max() > 1e-3) == (kind != "none")
    assert torch.equal(before.tokens[1], after.tokens[1])


def test_none_is_the_features():
    module, (features, _) = fusion("none"), given()
    assert torch.equal(module(features, None).tokens, features) and not list(module.parameters())


def test_concat_by_hand():
    module, (features, sensor) = fusion("concat"), given()
    tokens = module(features, None, sensor).tokens
    torch.testing.assert_close(tokens[:, :4], features + module.kinds[0])
    projected = module.sensor_projection(module.sensor_norm(sensor)) + module.kinds[1]
    torch.testing.assert_close(tokens[:, 4:], projected)


def test_gate_by_hand():
    module, (features, sensor) = fusion("gated"), given()
    module.gate.weight.data.zero_()
    module.gate.bias.data.zero_()  # a gate of sigmoid(0) = 1/2
    projected = module.sensor_projection(module.sensor_norm(sensor))
    mean = torch.stack([projected[0].mean(0), projected[1, 0]])  # sample 1 has one valid token
    expected = features + 0.5 * mean[:, None]
    torch.testing.assert_close(module(features, None, sensor, SENSOR_MASK).tokens, expected)


def test_attention_depends_on_its_query():
    """What a token takes from the sensor differs from token to token; over one key it could not."""
    module, (features, sensor) = fusion("cross_attention"), given()
    memory = module.layer.remember(module.sensor_projection(module.sensor_norm(sensor)))
    query = module.layer._split(module.layer.cross_query(3.0 * features))
    taken = module.layer._attend(query, memory, None)
    assert (taken[0, 0] - taken[0, 1]).abs().max() > 1e-3
    with pytest.raises(ValueError, match="1 sensor token ignores its query"):
        module(features, None, sensor[:, :1])


def test_all_parameters_train():
    for kind in FUSIONS[:3]:
        module, (features, sensor) = fusion(kind), given()
        module(features, FEATURE_MASK, sensor, SENSOR_MASK).tokens.square().sum().backward()
        assert all(parameter.grad.abs().sum() > 0 for parameter in module.parameters()), kind


def test_refusals():
    features, sensor = given()
    with pytest.raises(ValueError, match="unknown fusion 'gate'.*'gated'"):
        Fusion("gate", 8, 6)
    with pytest.raises(ValueError, match="'gated' needs sensor tokens"):
        fusion("gated")(features, None)
    with pytest.raises(ValueError, match=r"sensor \(1, 3, 6\); expected \(2, 1 or more, 6\)"):
        fusion("concat")(features, None, sensor[:1])
    with pytest.raises(ValueError, match=r"features mask \(2, 3\)"):
        fusion("none")(features, SENSOR_MASK)


@pytest.mark.parametrize("kind", FUSIONS)
def test_mixed_precision(kind):
    module, (features, sensor) = fusion(kind), given()
    expected = module(features, FEATURE_MASK, sensor, SENSOR_MASK).tokens
    with torch.autocast("cpu", torch.bfloat16):
        found = module(features.bfloat16(), FEATURE_MASK, sensor, SENSOR_MASK).tokens
    torch.testing.assert_close(found.float(), expected, atol=0.05, rtol=0.05)

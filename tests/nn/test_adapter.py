"""Adapters: sizes, and an upgrade that changes nothing until it is trained."""

import pytest
import torch
import torch.nn.functional as F

from hfvla.nn.adapter import Adapter


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


@pytest.mark.parametrize(("width", "expected"), [(1024, 328_192), (896, 295_424)])
def test_published_sizes(width, expected):
    assert parameters(Adapter(width)) == expected


def test_layers_in_order():
    adapter = Adapter(6, 4).eval()
    given = torch.randn(3, 6)
    torch.testing.assert_close(adapter(given), adapter.down(F.relu(adapter.up(given))))
    assert adapter.train()(given.expand(3, 6)).shape == (3, 4)


@pytest.mark.parametrize("upgrade", [{"skip": True}, {"layer_norm": True}, {"skip": True, "layer_norm": True}])
def test_the_upgrade_computes_the_same_at_load(upgrade):
    plain, given = Adapter(6, 4).eval(), torch.randn(5, 6)
    upgraded = Adapter(6, 4, **upgrade).eval()
    assert parameters(upgraded) > parameters(plain)
    missing = upgraded.load_state_dict(plain.state_dict(), strict=False)
    assert not missing.unexpected_keys and missing.missing_keys
    assert (upgraded(given) - plain(given)).abs().max() <= 1e-6


def test_the_upgrade_trains():
    adapter, given = Adapter(6, 4, dropout=0.0, skip=True, layer_norm=True), torch.randn(5, 6)
    before = adapter(given).detach()
    optimizer = torch.optim.SGD(adapter.parameters(), lr=0.1)
    for _ in range(2):  # the norm itself moves once its gate is open
        optimizer.zero_grad()
        adapter(given).pow(2).sum().backward()
        optimizer.step()
    assert all(parameter.grad.abs().sum() > 0 for parameter in adapter.parameters())
    assert (adapter(given) - before).abs().max() > 1e-3
    open_gate = adapter(given).detach()
    adapter.reset_upgrade()
    assert (adapter(given) - open_gate).abs().max() > 1e-6
    assert adapter.skip.weight.abs().sum() == 0 and adapter.norm.gate.item() == 0


def test_an_open_gate_is_layer_norm():
    adapter = Adapter(6, 4, layer_norm=True).eval()
    adapter.norm.gate.data.fill_(1.0)
    plain = Adapter(6, 4).eval()
    plain.load_state_dict(adapter.state_dict(), strict=False)
    given = torch.randn(5, 6)
    torch.testing.assert_close(adapter(given), F.layer_norm(plain(given), (4,)))

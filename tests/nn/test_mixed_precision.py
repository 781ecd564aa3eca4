"""Models whose parts are of different types: layers answer in their caller's type, and checkpoints keep the types."""

import pytest
import torch
from torch import nn

from hfvla.nn.mixed_precision import accept_mixed_types, cast_together, float32_parts, is_mixed, lowest_type


def build():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    return nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), layer, nn.Linear(8, 2))


def test_a_layer_and_what_it_multiplies_by_have_one_type():
    model = build().bfloat16()
    # of one layer both, and of attention also its output projection, which it reads without calling it
    changed = cast_together(model, ["0.bias", "2.self_attn.in_proj_weight"])
    attention = [
        f"2.self_attn.{name}" for name in ("in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
    ]
    assert changed == ["0.weight", "0.bias", *attention]
    assert is_mixed(model) and lowest_type(model) == torch.bfloat16
    assert cast_together(model, ["0.bias"]) == []


def test_running_statistics_go_with_their_norm():
    model = nn.Sequential(nn.BatchNorm1d(2), nn.Linear(2, 2)).bfloat16()
    cast_together(model, ["0.weight"])
    assert model[0].running_mean.dtype == torch.float32 and model[0].num_batches_tracked.dtype == torch.int64


@pytest.mark.parametrize(
    "trained", ["0.weight", "1.weight", "2.self_attn.in_proj_weight", "2.linear1.weight", "3.bias"]
)
@pytest.mark.parametrize("given", [torch.float32, torch.bfloat16])
def test_a_mixed_model_runs_and_answers_in_the_callers_type(trained, given):
    model, inputs = build(), torch.randn(2, 3, 4)
    expected = model(inputs)
    model.bfloat16()
    cast_together(model, [trained])
    accept_mixed_types(model)
    accept_mixed_types(model)  # once is enough
    assert sum(len(module._forward_hooks) for module in model.modules()) == 9  # one a layer
    found = model(inputs.to(given))
    assert found.dtype == given
    torch.testing.assert_close(found.float(), expected, atol=5e-2, rtol=5e-2)
    found.float().sum().backward()
    assert {parameter.grad.dtype == parameter.dtype for parameter in model.parameters()} == {True}


def test_under_autocast_nothing_is_cast_by_hand():
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 2)).bfloat16()
    cast_together(model, ["0.weight"])
    accept_mixed_types(model)
    seen = []
    model[0].register_forward_pre_hook(lambda module, arguments: seen.append(arguments[0].dtype))
    model(torch.randn(1, 4, dtype=torch.bfloat16))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(torch.randn(1, 4, dtype=torch.bfloat16))
    assert seen == [torch.float32, torch.bfloat16]


def test_a_model_of_one_type_gets_no_hooks():
    model = build().bfloat16()
    accept_mixed_types(model)
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_parts_are_named_as_short_as_can_be():
    half, whole = torch.bfloat16, torch.float32
    types = {"body.0.weight": half, "body.1.weight": whole, "body.1.bias": whole, "head.weight": whole, "scale": whole}
    assert float32_parts(types) == ["body.1", "head", "scale"]
    assert float32_parts({"body.weight": whole}) == float32_parts({"body.weight": half}) == []
    assert float32_parts({"a.weight": half, "a.bias": whole}) == ["a.bias"]

"""The transformer layer equals torch's own, and what is masked has no influence."""

import pytest
import torch
from torch import nn

from hfvla.nn.transformer import TransformerLayer, fill_masked, open_empty_rows, sinusoidal_embedding

MASK = torch.tensor([[True, True, True, False, False], [True, True, True, True, True]])


def copy_into(ours, reference):
    """Give our layer the weights of a torch layer."""
    cross = ours.cross_norm is not None
    pairs = [(ours.self_norm, reference.norm1), (ours.up, reference.linear1), (ours.down, reference.linear2)]
    pairs += [(ours.self_output, reference.self_attn.out_proj)]
    pairs += [(ours.output_norm, reference.norm3 if cross else reference.norm2)]
    ours.self_input.weight.data, ours.self_input.bias.data = (
        reference.self_attn.in_proj_weight.data,
        reference.self_attn.in_proj_bias.data,
    )
    if cross:
        attention, width = reference.multihead_attn, ours.up.in_features
        pairs += [(ours.cross_norm, reference.norm2), (ours.cross_output, attention.out_proj)]
        ours.cross_query.weight.data = attention.in_proj_weight.data[:width]
        ours.cross_query.bias.data = attention.in_proj_bias.data[:width]
        ours.cross_input.weight.data = attention.in_proj_weight.data[width:]
        ours.cross_input.bias.data = attention.in_proj_bias.data[width:]
    for mine, theirs in pairs:
        mine.load_state_dict(theirs.state_dict())


def randomised(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.3)
    return module


def parameters(module):
    return sum(parameter.numel() for parameter in module.parameters())


def test_equals_torch_encoder_layer():
    reference = randomised(nn.TransformerEncoderLayer(8, 2, 12, 0.0, "gelu", batch_first=True, norm_first=True))
    ours = TransformerLayer(8, 2, 12)
    copy_into(ours, reference)
    assert parameters(ours) == parameters(reference)
    tokens = torch.randn(2, 5, 8)
    expected = reference(tokens, src_key_padding_mask=~MASK)
    torch.testing.assert_close(ours(tokens, MASK)[MASK], expected[MASK], atol=1e-5, rtol=1e-5)
    assert (ours(tokens)[MASK] - expected[MASK]).abs().max() > 1e-3  # the mask matters


def test_equals_torch_decoder_layer():
    reference = randomised(nn.TransformerDecoderLayer(8, 2, 12, 0.0, "gelu", batch_first=True, norm_first=True))
    ours = TransformerLayer(8, 2, 12, cross=True)
    copy_into(ours, reference)
    assert parameters(ours) == parameters(reference)
    tokens, memory = torch.randn(2, 3, 8), torch.randn(2, 5, 8)
    expected = reference(tokens, memory, memory_key_padding_mask=~MASK)
    found = ours(tokens, None, ours.remember(memory), MASK)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def test_a_row_without_tokens_is_finite():
    layer, tokens = TransformerLayer(8, 2, 12), torch.randn(2, 5, 8, requires_grad=True)
    out = layer(tokens, torch.tensor([[False] * 5, [True] * 5]))
    out.sum().backward()
    assert out.isfinite().all() and tokens.grad.isfinite().all()


def test_masks_by_hand():
    mask = torch.tensor([[True, False], [False, False]])
    assert open_empty_rows(mask).tolist() == [[True, False], [True, True]]
    values = torch.tensor([[[1.0], [torch.nan]], [[2.0], [3.0]]])
    assert fill_masked(values, mask).flatten().tolist() == [1.0, 0.0, 0.0, 0.0]


def test_embedding_by_hand():
    # Width 4: frequencies 1 and 10000 ** -0.5 = 0.01
    found = sinusoidal_embedding(torch.tensor([2.0]), 4)
    expected = torch.tensor([[2.0, 0.02]])
    torch.testing.assert_close(found, torch.cat([expected.sin(), expected.cos()], -1))


def test_refusals():
    with pytest.raises(ValueError, match="width 9 is not a multiple of 2"):
        TransformerLayer(9, 2)
    with pytest.raises(ValueError, match="cross=True"):
        TransformerLayer(8, 2, 8, cross=True)(torch.zeros(1, 1, 8))

"""Text vectors that read from an image's grid."""

import pytest
import torch
import torch.nn.functional as F

from hfvla.nn.grid_attention import GridAttention


@pytest.fixture
def block():
    torch.manual_seed(0)
    return GridAttention(8, (2, 3), heads=2).eval()


def test_shapes_and_each_text_reads_its_own_image(block):
    texts, tokens = torch.randn(2, 3, 8), torch.randn(2, 6, 8)
    found = block(texts, tokens)
    assert found.shape == (2, 3, 8)
    changed = tokens.clone()
    changed[1] += torch.randn(6, 8)
    again = block(texts, changed)
    torch.testing.assert_close(again[0], found[0])
    assert (again[1] - found[1]).abs().amax(-1).min() > 1e-4
    torch.testing.assert_close(block(texts[:, 1:2], tokens)[:, 0], found[:, 1])  # nor do texts see each other


def test_equals_torch_attention(block):
    reference = torch.nn.MultiheadAttention(8, 2, batch_first=True)
    layers = (block.query, block.key, block.value)
    reference.in_proj_weight.data = torch.cat([layer.weight.data for layer in layers])
    reference.in_proj_bias.data = torch.cat([layer.bias.data for layer in layers])
    reference.out_proj.load_state_dict(block.output.state_dict())
    texts, tokens = torch.randn(2, 3, 8), torch.randn(2, 6, 8)
    positions = torch.stack([block.row_positions[i] + block.column_positions[j] for i in range(2) for j in range(3)])
    keys = block.grid_norm(tokens) + positions
    hidden = texts + reference(block.query_norm(texts), keys, keys)[0]
    expected = hidden + block.down(F.gelu(block.up(block.output_norm(hidden))))
    torch.testing.assert_close(block(texts, tokens), expected, atol=1e-5, rtol=1e-5)


def test_where_a_token_is_matters(block):
    texts, tokens = torch.randn(1, 1, 8), torch.randn(1, 6, 8)
    assert (block(texts, tokens) - block(texts, tokens[:, [1, 0, 2, 3, 4, 5]])).abs().max() > 1e-4
    block.row_positions.data.zero_()
    block.column_positions.data.zero_()
    torch.testing.assert_close(block(texts, tokens), block(texts, tokens[:, [1, 0, 2, 3, 4, 5]]))


def test_every_parameter_gets_a_gradient(block):
    block(torch.randn(2, 3, 8), torch.randn(2, 6, 8)).pow(2).sum().backward()
    silent = [name for name, parameter in block.named_parameters() if parameter.grad is None]
    assert not silent


def test_the_grid_must_fit(block):
    with pytest.raises(ValueError, match="5 tokens; expected 2 x 3"):
        block(torch.zeros(1, 1, 8), torch.zeros(1, 5, 8))
    with pytest.raises(ValueError, match="width 8 is not a multiple of 3"):
        GridAttention(8, (2, 2), heads=3)

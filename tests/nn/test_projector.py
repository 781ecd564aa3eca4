"""Vision features to language tokens."""

import pytest
import torch
import torch.nn.functional as F

from hfvla.nn.projector import VisualProjector


@pytest.fixture
def feature_map():
    return torch.randn(2, 6, 4, 8, generator=torch.Generator().manual_seed(0))


def test_one_token_a_cell_row_by_row(feature_map):
    projector = VisualProjector(6, 10)
    tokens = projector(feature_map)
    assert tokens.shape == (2, 32, 10)
    cell = projector(feature_map[:, :, 2:3, 5:6])  # row 2, column 5 of 8 columns is token 2 * 8 + 5
    torch.testing.assert_close(tokens[:, 21:22], cell)


def test_layers_in_order(feature_map):
    projector = VisualProjector(6, 10)
    cell = feature_map[:, :, 0, 0]
    expected = projector.down(F.gelu(projector.up(F.layer_norm(cell, (6,)))))
    torch.testing.assert_close(projector(feature_map)[:, 0], expected)


def test_pooling_to_a_grid_averages_cells_first(feature_map):
    projector = VisualProjector(6, 10, grid=(2, 4))
    tokens = projector(feature_map)
    assert tokens.shape == (2, 8, 10)
    # the 4 x 8 map becomes 2 x 4, so token 0 stands for rows 0-1 and columns 0-1
    mean = feature_map[:, :, :2, :2].mean((2, 3), keepdim=True)
    plain = VisualProjector(6, 10)
    plain.load_state_dict(projector.state_dict())
    torch.testing.assert_close(tokens[:, :1], plain(mean))

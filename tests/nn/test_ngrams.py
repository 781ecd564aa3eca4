"""The embedding of a bag of n-grams."""

import torch

from hfvla.nn.ngrams import NgramEmbedding


def test_padding_does_not_count_and_the_sum_is_scaled():
    layer = NgramEmbedding(9, 4)
    out = layer(torch.tensor([[3, 5, 0, 0], [0, 0, 0, 0]]))
    weight = layer.embedding.weight
    torch.testing.assert_close(out[0], (weight[3] + weight[5]) / 2**0.5)
    assert not out[1].any()


def test_dropout_only_while_training():
    torch.manual_seed(0)
    layer, ids = NgramEmbedding(50, 4, dropout=0.9), torch.arange(1, 41)[None]
    assert not torch.equal(layer.train()(ids), layer.eval()(ids))
    torch.testing.assert_close(layer(ids), layer(ids))

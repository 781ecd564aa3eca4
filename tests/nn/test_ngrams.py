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


def test_parts_do_not_drown_a_word():
    torch.manual_seed(0)
    layer = NgramEmbedding(9, 4, apart=True)
    parts, words = layer(torch.tensor([[1, 2, 3, 12, 0], [12, 0, 0, 0, 0]])).unbind(1)
    weight = layer.embedding.weight
    assert torch.equal(words, weight[[12, 12]])
    torch.testing.assert_close(parts[0], weight[1:4].sum(0) / 3**0.5)
    assert not parts[1].any()

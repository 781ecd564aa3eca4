"""Re-ranking by the matching head: which pairs it sees, and what becomes of the ranks."""

import numpy as np
import pytest
import torch

from hfvla.metrics.retrieval import RetrievalRanks
from hfvla.models.internvl_retrieval.evaluation.ranking import (
    Shortlists,
    _segments,
    match_shortlists,
    reranked,
    similarity_ranks,
    sweep_of,
)
from hfvla.models.internvl_retrieval.search import (
    EncodedImages,
    encode_images,
    encode_texts,
    unit,
)


def ranks(t2i, i2t):
    t2i, i2t = np.array(t2i), np.array(i2t)
    return RetrievalRanks(t2i, i2t, np.ones(len(t2i), bool), np.ones(len(i2t), bool))


def test_ranks_within_and_behind_the_list():
    images, texts = np.array(["a", "b", "c", "d"]), np.array(["a", "b", "d"])
    lists = Shortlists(
        # Text 0 finds its image third; text 1 is in a tie with a wrong one; text 2 has no hit among its three.
        t2i=np.array([[1, 2, 0], [0, 1, 2], [0, 1, 2]]),
        t2i_scores=np.array([[0.1, 0.2, 0.9], [0.5, 0.5, 0.1], [0.3, 0.2, 0.1]]),
        i2t=np.array([[0, 1, 2], [0, 1, 2], [0, 1, 2], [0, 1, 2]]),
        i2t_scores=np.array([[0.0, 1.0, 2.0], [0.0, 3.0, 1.0], [1.0, 1.0, 1.0], [0.0, 0.0, 1.0]]),
    )
    base = ranks([2, 1, 3], [0, 1, 9, 2])
    found = reranked(base, lists, images, texts, k=3)
    assert found.t2i.tolist() == [0, 1, 3]  # first; behind the tie; as it was
    assert found.i2t.tolist() == [2, 0, 9, 0]  # image c has no text: as it was
    short = reranked(base, lists, images, texts, k=2)
    assert short.t2i.tolist() == [2, 1, 3], "text 0 has no hit among the first two"


@pytest.mark.parametrize("heads", ["grid", "pooled"])
def test_the_head_judges_the_pairs_it_is_asked(other_model, processor, rows, heads):
    model = other_model(heads=heads)
    paths = list(dict.fromkeys(row["image"] for row in rows))
    images = encode_images(model, processor, paths, batch_size=3)
    texts = encode_texts(model, processor, rows["caption"], batch_size=3)
    lists = match_shortlists(model, images, texts, 3)
    assert lists.t2i.shape == (8, 3) and lists.i2t.shape == (len(paths), 3) and lists.longest == 3
    cosines = unit(texts) @ unit(images.embed).T
    assert lists.t2i.tolist() == cosines.argsort(1, descending=True)[:, :3].tolist()

    @torch.no_grad()
    def judged(image, text):
        grid = None if images.grid is None else images.grid[image][None]
        logits = model.match_logits(images.embed[image][None], grid, texts[text][None, None])[0, 0]
        return pytest.approx(float(logits[1] - logits[0]), abs=1e-4)

    for place in range(3):
        assert lists.t2i_scores[5, place] == judged(int(lists.t2i[5, place]), 5)
        assert lists.i2t_scores[1, place] == judged(1, int(lists.i2t[1, place]))


def test_batches_of_pairs_keep_the_budget():
    owners = np.repeat([0, 1, 2, 5], [3, 1, 11, 2])
    batches = list(_segments(owners, budget=4))
    covered = [place for batch in batches for start, end in batch for place in range(start, end)]
    assert sorted(covered) == list(range(17))
    for batch in batches:
        assert max(end - start for start, end in batch) * len(batch) <= 4
        assert all(len(set(owners[start:end])) == 1 for start, end in batch)


def test_pictures_that_look_alike_find_nothing():
    images, texts = torch.ones(4, 8), torch.randn(4, 8)
    groups = np.array(list("abcd"))
    found = similarity_ranks(images, texts, groups, groups)
    assert found.t2i.tolist() == [3, 3, 3, 3]


def test_lists_that_are_tried():
    assert sweep_of(256) == [8, 32, 128, 256] and sweep_of(5) == [5]


def test_a_half_precision_grid_is_close(model, processor, rows, monkeypatch):
    paths = list(dict.fromkeys(row["image"] for row in rows))
    whole = encode_images(model, processor, paths)
    module = "hfvla.models.internvl_retrieval.search._FULL_GRID_BYTES"
    monkeypatch.setattr(module, 0)
    half = encode_images(model, processor, paths)
    assert whole.grid.dtype == torch.float32 and half.grid.dtype == torch.float16
    assert isinstance(half, EncodedImages) and torch.allclose(whole.grid, half.grid.float(), atol=1e-2)

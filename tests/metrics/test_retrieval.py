"""Recalls against brute force, ties, shards, chance, lists, and the memory that is not used."""

import numpy as np
import pytest
import torch

from hfvla.metrics import retrieval as retrieval_tiles
from hfvla.metrics.retrieval import (
    RetrievalRanks,
    chance_recalls,
    first_hit_ranks,
    legacy_building_ids,
    list_ranks,
    merge_ranks,
    recalls,
    retrieval_scores,
    stream_top_k,
)


def brute_force(images, texts, image_groups, text_groups):
    """Sort nothing, compare one by one in float64: items of other groups at least as good as the best hit."""
    scores = images.double() @ texts.double().T
    ranks = []
    for matrix, own, others in ((scores.T, text_groups, image_groups), (scores, image_groups, text_groups)):
        own, others = np.asarray(own), np.asarray(others)
        row = []
        for query in range(len(own)):
            hits = torch.from_numpy(others == own[query])
            best = matrix[query][hits].max() if hits.any() else -torch.inf
            row.append(int((matrix[query][~hits] >= best - 1e-6).sum()))
        ranks.append(row)
    return ranks


def features(images, texts, width, groups, seed=0):
    """Small whole numbers, whose products are exact in float32, so that there are real ties."""
    generator = torch.Generator().manual_seed(seed)
    sides = [torch.randint(-3, 4, (count, width), generator=generator).float() for count in (images, texts)]
    names = [[f"b{n}" for n in torch.randint(groups, (count,), generator=generator)] for count in (images, texts)]
    return *sides, *names


def test_by_hand():
    # Scores of images a, b against texts a1, a2, b1: [[3, 1, 2], [4, 0, 2]]
    # t2i: a1: 3 against 4, rank 1; a2: 1 against 0, rank 0; b1: 2 against 2, a tie, rank 1. R@1 1/3
    # i2t: a: best hit 3 against 2, rank 0; b: 2 against 4 and 0, rank 1. R@1 1/2
    images, texts = torch.eye(2), torch.tensor([[3.0, 4.0], [1.0, 0.0], [2.0, 2.0]])
    ranks = first_hit_ranks(images, texts, ["a", "b"], ["a", "a", "b"])
    assert ranks.t2i.tolist() == [1, 0, 1] and ranks.i2t.tolist() == [0, 1]
    scores = recalls(ranks)
    assert scores["t2i_r1"] == pytest.approx(1 / 3) and scores["i2t_r1"] == 0.5 and scores["t2i_r5"] == 1.0
    assert scores["mean_recall"] == pytest.approx((1 / 3 + 1 + 1 + 0.5 + 1 + 1) / 6)
    assert list(scores) == ["t2i_r1", "t2i_r5", "t2i_r10", "i2t_r1", "i2t_r5", "i2t_r10", "mean_recall"]


@pytest.mark.parametrize(("images", "texts", "groups"), [(7, 9, 3), (40, 90, 12), (1100, 2500, 150), (600, 4100, 4)])
def test_equals_brute_force(images, texts, groups):
    given = features(images, texts, 8, groups)
    ranks, (t2i, i2t) = first_hit_ranks(*given), brute_force(*given)
    assert ranks.t2i.tolist() == t2i and ranks.i2t.tolist() == i2t
    assert max(t2i) > 1 and min(i2t) == 0


def test_real_features_equal_brute_force():
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(50, 32, generator=generator)
    groups = [torch.randint(50, (count,), generator=generator) for count in (300, 700)]
    sides = [
        torch.nn.functional.normalize(centres[side] + 2 * torch.randn(len(side), 32, generator=generator), dim=-1)
        for side in groups
    ]
    ranks, (t2i, i2t) = first_hit_ranks(*sides, *(side.tolist() for side in groups)), brute_force(*sides, *groups)
    assert ranks.t2i.tolist() == t2i and ranks.i2t.tolist() == i2t
    assert 0.05 < recalls(ranks)["t2i_r1"] < 0.95


def test_a_model_that_scores_everything_equal_gets_nothing():
    scores = retrieval_scores(torch.ones(30, 4), torch.ones(60, 4), list(range(30)), [n % 30 for n in range(60)])
    assert set(scores.values()) == {0.0}


def test_a_copy_of_the_hit_in_another_group_is_a_tie_whatever_the_rounding():
    # The best hit is scored in a small product and the copy in a large one: float32 may differ in the last digit
    generator = torch.Generator().manual_seed(3)
    images = torch.nn.functional.normalize(torch.randn(900, 257, generator=generator), dim=-1)
    texts = images + 0.01 * torch.randn(900, 257, generator=generator)
    images[450:] = images[:450]  # image n + 450 is a copy of image n
    assert first_hit_ranks(images, texts, range(900), range(900)).t2i[:450].min() >= 1


def test_queries_without_a_hit_never_hit():
    images, texts = torch.eye(2), torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    ranks = first_hit_ranks(images, texts, ["a", "b"], ["a", "c", "c"])
    assert ranks.text_has_hit.tolist() == [True, False, False] and ranks.image_has_hit.tolist() == [True, False]
    scores = recalls(ranks)
    assert scores["t2i_r10"] == pytest.approx(1 / 3) and scores["i2t_r10"] == 0.5


@pytest.mark.parametrize("count", [2, 3])
def test_shards_add_up(count):
    given = features(1300, 500, 6, 40)
    whole = first_hit_ranks(*given)
    parts = [first_hit_ranks(*given, shard=(number, count)) for number in range(count)]
    assert all((part.t2i < whole.t2i).any() for part in parts)  # none did all the work
    merged = merge_ranks(parts)
    for name in ("t2i", "i2t", "text_has_hit", "image_has_hit"):
        assert np.array_equal(getattr(merged, name), getattr(whole, name))


def test_the_order_of_items_does_not_matter():
    images, texts, image_groups, text_groups = features(300, 200, 6, 30)
    order = torch.randperm(300, generator=torch.Generator().manual_seed(0))
    whole = first_hit_ranks(images, texts, image_groups, text_groups)
    moved = first_hit_ranks(images[order], texts, [image_groups[i] for i in order], text_groups)
    assert np.array_equal(moved.t2i, whole.t2i) and np.array_equal(moved.i2t, whole.i2t[order.numpy()])


def test_a_tile_counts_beyond_what_a_byte_holds():
    tile = retrieval_tiles.CountTile(torch.device("cpu"))
    assert (tile.rows, tile.columns) == (510, 2040)
    images, texts = torch.ones(510, 3), torch.ones(2040, 3)
    assert (tile.score(images, texts) == 3).all()
    assert (tile.count_by_row(torch.full((510,), 3.0)) == 2040).all()
    assert (tile.count_by_column(torch.full((2040,), 3.0)) == 510).all()
    tile.score(images[:5], texts[:7])  # what is left of the larger tile counts nothing
    assert tile.count_by_row(torch.zeros(5)).tolist() == [7] * 5
    assert tile.count_by_column(torch.zeros(7)).tolist() == [5] * 7


def test_precision_is_put_back():
    torch.set_float32_matmul_precision("high")
    try:
        with retrieval_tiles.full_precision():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")


def test_features_that_are_not_finite_are_named():
    texts = torch.ones(3, 2)
    texts[1, 0] = torch.nan
    with pytest.raises(ValueError, match="1 text features are not finite; the first is 1"):
        first_hit_ranks(torch.ones(2, 2), texts, ["a", "b"], ["a", "a", "b"])


def test_shapes_must_fit():
    with pytest.raises(ValueError, match=r"\(2, 3\) and \(2, 4\)"):
        first_hit_ranks(torch.ones(2, 3), torch.ones(2, 4), ["a", "b"], ["a", "b"])
    with pytest.raises(ValueError, match="2 images and 2 texts have 2 and 1 groups"):
        first_hit_ranks(torch.ones(2, 3), torch.ones(2, 3), ["a", "b"], ["a"])


# ---- chance ------------------------------------------------------------------------------------------------------


def test_chance_by_hand():
    # 4 images, 2 of group a: a text of a misses both at k = 1 with 2/4; at 5 and 10 nothing is missed.
    # 3 texts, all of a: an image of a always hits; images of b have no text, and never do.
    scores = chance_recalls(["a", "a", "b", "b"], ["a", "a", "a"])
    assert scores["t2i_r1"] == pytest.approx(0.5) and scores["t2i_r5"] == pytest.approx(1.0)
    assert scores["i2t_r1"] == pytest.approx(0.5)


def test_chance_is_what_random_scores_get():
    generator = torch.Generator().manual_seed(0)
    image_groups = torch.randint(40, (200,), generator=generator).tolist()
    text_groups = torch.randint(40, (600,), generator=generator).tolist()
    found = []
    for _ in range(30):
        sides = (torch.randn(count, 64, generator=generator) for count in (200, 600))
        found.append(recalls(first_hit_ranks(*sides, image_groups, text_groups)))
    for name, expected in chance_recalls(image_groups, text_groups).items():
        assert np.mean([scores[name] for scores in found]) == pytest.approx(expected, abs=0.02), name


# ---- lists and ids -----------------------------------------------------------------------------------------------


def test_streamed_lists_are_the_best_items():
    generator = torch.Generator().manual_seed(0)
    queries, items = torch.randn(50, 8, generator=generator), torch.randn(333, 8, generator=generator)
    expected, places = (queries @ items.T).topk(20, dim=1)
    starts, scores, indices = zip(*stream_top_k(queries, items, 20, query_rows=16, item_rows=100), strict=True)
    assert starts == (0, 16, 32, 48)
    torch.testing.assert_close(torch.cat(scores), expected)
    assert torch.equal(torch.cat(indices), places)
    assert next(stream_top_k(queries, items[:7], 20))[1].shape == (50, 7)


def test_equal_scores_keep_the_order_of_the_items():
    queries, items = torch.ones(2, 3), torch.ones(40, 3)
    items[30] = 2.0
    _, _, indices = next(stream_top_k(queries, items, 40, item_rows=7))
    assert indices[0].tolist() == [30, *range(30), *range(31, 40)]


def test_ranks_of_lists():
    ranks, hit = list_ranks(np.array([[2, 0, 1], [1, 2, 0], [0, 1, 1]]), ["a", "b", "c"], ["a", "b", "c"])
    assert ranks.tolist() == [1, 0, 0] and hit.tolist() == [True, True, False]
    found = recalls(RetrievalRanks(t2i=ranks, i2t=ranks, text_has_hit=hit, image_has_hit=hit))
    assert found["t2i_r1"] == pytest.approx(1 / 3) and found["t2i_r5"] == pytest.approx(2 / 3)


def test_legacy_ids_lag_by_one_image():
    assert legacy_building_ids(["7", "7", "7", "3", "3", "9", "7"]) == [0, 0, 0, 0, 1, 1, 2]
    assert legacy_building_ids([]) == []

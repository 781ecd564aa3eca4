"""Hard negatives: never of the same group, hard ones more often, rows without any left out."""

import pytest
import torch

from hfvla.losses.matching import draw_negatives, hard_negatives, matching_loss, matching_pairs


def draw(similarity, groups, times=2000):
    generator = torch.Generator().manual_seed(0)
    return [hard_negatives(similarity, groups, generator) for _ in range(times)]


def test_frequencies_follow_the_softmax_over_other_groups():
    # Image 0 (group 0; text 1 is masked): logits ln 3 and ln 1 for texts 2 and 3, so 0.75 and 0.25.
    similarity = torch.zeros(4, 4)
    similarity[0] = torch.tensor([9.0, 9.0, 3.0, 1.0]).log()
    similarity[:, 1] = torch.tensor([9.0, 9.0, 1.0, 4.0]).log()  # text 1: images 2 and 3 with 0.2 and 0.8
    found = draw(similarity, torch.tensor([0, 0, 1, 2]))
    texts = torch.stack([one.text_index for one in found])
    images = torch.stack([one.image_index for one in found])
    assert (texts[:, 0] == 2).float().mean().item() == pytest.approx(0.75, abs=0.04)
    assert (images[:, 1] == 3).float().mean().item() == pytest.approx(0.8, abs=0.04)


def test_a_negative_is_never_of_the_same_group():
    groups = torch.tensor([0, 0, 1, 1, 2, -1, -1])
    similarity = torch.eye(7) * 50 + torch.block_diag(torch.full((2, 2), 50.0), torch.full((2, 2), 50.0), torch.eye(3))
    partners = torch.where(groups >= 0, groups, 100 + torch.arange(7))
    for found in draw(similarity, groups, times=200):
        assert found.valid.all() and found.left_out == 0
        assert (partners[found.text_index] != partners).all() and (partners[found.image_index] != partners).all()


def test_rows_without_a_negative_are_left_out_and_counted():
    found = hard_negatives(torch.zeros(3, 3), torch.tensor([4, 4, 4]))
    assert found.left_out == 3
    pairs = matching_pairs(found)
    assert pairs.labels.tolist() == [1, 1, 1] and pairs.image_index.tolist() == pairs.text_index.tolist() == [0, 1, 2]


def test_pairs_are_b_positives_and_twice_as_many_negatives():
    found = hard_negatives(torch.zeros(2, 2), torch.tensor([0, 1]))
    pairs = matching_pairs(found)
    assert pairs.labels.tolist() == [1, 1, 0, 0, 0, 0]
    # image i with a wrong text, then a wrong image with text i
    assert pairs.image_index.tolist() == [0, 1, 0, 1, 1, 0]
    assert pairs.text_index.tolist() == [0, 1, 1, 0, 0, 1]
    assert matching_pairs(found, offset=2).image_index.tolist() == [2, 3, 2, 3, 1, 0]


def test_candidates_of_other_processes():
    similarity = torch.zeros(2, 5)
    index, valid = draw_negatives(similarity, torch.tensor([0, 1]), torch.tensor([0, 1, 0, 0, 1]))
    assert valid.all() and index[0].item() in (1, 4) and index[1].item() in (0, 2, 3)


def test_a_row_draws_alone_what_it_draws_in_company():
    """With a number of its own, a row's candidate is found by that number: the weights' sum reaches it there."""
    similarity = torch.log(torch.tensor([[1.0, 9.0, 2.0, 1.0], [1.0, 9.0, 2.0, 1.0], [4.0, 9.0, 0.0, 4.0]]))
    groups, candidates = torch.tensor([7, 7, 7]), torch.tensor([0, 7, 1, 2])
    # Possible are candidates 0, 2 and 3 with weights 1/4, 2/4, 1/4; in the last row 1/2, 0 and 1/2.
    for uniform, expected in (
        ((0.0, 0.24, 0.49), (0, 0, 0)),
        ((0.26, 0.74, 0.51), (2, 2, 3)),
        ((0.76, 0.999, 0.999), (3, 3, 3)),
    ):
        numbers = torch.tensor(uniform)
        index, valid = draw_negatives(similarity, groups, candidates, uniform=numbers)
        assert valid.all() and index.tolist() == list(expected)
        for row in range(3):
            one = slice(row, row + 1)
            assert draw_negatives(similarity[one], groups[one], candidates, uniform=numbers[one])[0] == expected[row]


def test_the_same_generator_draws_the_same():
    similarity = torch.randn(6, 6, generator=torch.Generator().manual_seed(1))
    first, second = (hard_negatives(similarity, torch.arange(6), torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(first.text_index, second.text_index) and torch.equal(first.image_index, second.image_index)


def test_extreme_similarities_still_find_the_only_possible_one():
    similarity = torch.full((3, 3), -1e4)
    similarity.fill_diagonal_(1e4)
    similarity[0, 1] = 1e4  # of the same group
    found = hard_negatives(similarity, torch.tensor([0, 0, 1]))
    assert found.text_index[0].item() == 2


def test_loss_by_hand():
    # Right with logit difference 1: ln(1 + e^-1) = 0.313262; wrong with 2: ln(1 + e^2) = 2.126928; mean 1.220095
    logits = torch.tensor([[0.0, 1.0], [1.0, 3.0]])
    assert matching_loss(logits, torch.tensor([1, 0])).item() == pytest.approx(1.220095, abs=1e-6)


def test_shapes_must_fit():
    with pytest.raises(ValueError, match=r"\(2, 3\)"):
        hard_negatives(torch.zeros(2, 3), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"\(4, 3\)"):
        matching_loss(torch.zeros(4, 3), torch.zeros(4, dtype=torch.long))

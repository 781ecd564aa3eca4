"""Best-fit packing: nothing cut or lost, few sequences, the same ones for the same seed and epoch."""

import numpy as np
import pytest

from hfvla.data.packing import pack, packing_report
from hfvla.errors import DataError

LENGTHS = [7, 3, 5, 5, 2, 8, 1, 5]


def llava_like(count: int, seed: int = 0) -> list[int]:
    return np.clip(np.random.default_rng(seed).lognormal(5.6, 0.7, count).astype(int), 16, 2048).tolist()


def test_literal_bins():
    # longest first: 8 fills up; 7 leaves 1; 5+3; 5+2, room 1; 5, room 3; 1 goes where the least room is left.
    lengths = [sorted((LENGTHS[i] for i in members), reverse=True) for members in pack(LENGTHS, 8)]
    assert sorted(lengths, reverse=True) == [[8], [7], [5, 3], [5, 2, 1], [5]] or sorted(lengths, reverse=True) == [
        [8],
        [7, 1],
        [5, 3],
        [5, 2],
        [5],
    ]


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_every_sample_once_and_none_too_long(epoch):
    lengths = llava_like(3000)
    bins = pack(lengths, 2048, seed=3, epoch=epoch)
    assert sorted(number for members in bins for number in members) == list(range(3000))
    assert max(sum(lengths[number] for number in members) for members in bins) <= 2048


def test_as_few_sequences_as_the_tokens_allow():
    lengths = llava_like(3000)
    assert len(pack(lengths, 2048)) <= 1.02 * sum(lengths) / 2048 + 1


def test_epochs_have_other_company_and_the_same_number_of_sequences():
    lengths = llava_like(3000)
    first, again, second = pack(lengths, 2048, 0, 0), pack(lengths, 2048, 0, 0), pack(lengths, 2048, 0, 1)
    assert first == again and first != second and len(first) == len(second)
    assert pack(lengths, 2048, 1, 0) != first


@pytest.mark.parametrize(("lengths", "offending"), [([4, 9], "sample 1.*9 tokens"), ([0, 4], "sample 0.*0 tokens")])
def test_a_sample_that_cannot_be_packed_is_named(lengths, offending):
    with pytest.raises(DataError, match=offending):
        pack(lengths, 8)


def test_the_report_counts_padding():
    lengths = [4, 4, 4, 4]
    report = packing_report(lengths, pack(lengths, 8), 8, batch_rows=2, left_out=1)
    assert (report.padding_before, report.padding_after, report.sequences, report.tokens) == (0.0, 0.0, 2, 16)
    # Rows of 8 and 2 in one batch: 16 tokens for 10. Packed into 10: none is padding. Into 16: 6 of 16.
    assert packing_report([8, 2], [[0, 1]], 16, batch_rows=2).padding_before == pytest.approx(1 - 10 / 16)
    assert packing_report([8, 2], [[0, 1]], 16, batch_rows=2).padding_after == pytest.approx(6 / 16)
    assert "37.5%" in str(packing_report([8, 2], [[0, 1]], 16, batch_rows=2))
    assert "1 longer rows left out" in str(report)

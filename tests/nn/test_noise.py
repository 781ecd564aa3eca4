"""Noise that belongs to rows: the same in any batch, other numbers for any other row, stream or place."""

import pytest
import torch

from hfvla.data.rows.epoch import AUGMENTATION_SEED, EpochRows, draw_seed
from hfvla.nn.noise import RowGenerator, draw_normal, draw_uniform

SEEDS = torch.tensor([3, 2**62 + 5, 0, 1])


def splitmix(seed, count):
    """SplitMix64 as it is published, in Python's own integers."""
    full, found = (1 << 64) - 1, []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) & full
        value = ((seed ^ (seed >> 30)) * 0xBF58476D1CE4E5B9) & full
        value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & full
        found.append(value ^ (value >> 31))
    return found


def test_bits_are_those_of_splitmix64(monkeypatch):
    monkeypatch.setattr(
        "hfvla.nn.noise.hashlib.blake2b", lambda *_, **__: type("H", (), {"digest": lambda s: b"\0"})()
    )
    for seed in SEEDS.tolist():
        # The key of a row is one more step of the same generator; from there the numbers follow.
        key = splitmix(splitmix(seed, 1)[0] - 0x9E3779B97F4A7C15, 1)[0]
        expected = [value >> 40 for value in splitmix(key, 5)]
        found = RowGenerator(torch.tensor([seed])).uniform((1, 5), "any")[0] * 2**24
        assert found.tolist() == expected


@pytest.mark.parametrize("kind", ["uniform", "normal"])
def test_a_row_draws_the_same_in_any_batch(kind):
    whole = getattr(RowGenerator(SEEDS), kind)((4, 3, 2), "noise")
    for number, seed in enumerate(SEEDS):
        alone = getattr(RowGenerator(seed[None]), kind)((1, 3, 2), "noise")
        assert torch.equal(alone[0], whole[number])
    halves = [getattr(RowGenerator(part), kind)((2, 3, 2), "noise") for part in SEEDS.split(2)]
    assert torch.equal(torch.cat(halves), whole)
    assert len(whole.unique()) == whole.numel()  # no row, and no place, repeats another
    assert torch.equal(getattr(RowGenerator(SEEDS), kind)((4, 3, 2), "noise"), whole)
    assert not (getattr(RowGenerator(SEEDS), kind)((4, 3, 2), "times") == whole).any()


def test_distributions():
    rows = RowGenerator(torch.arange(200))  # seeds that differ in their last bits
    uniform, normal = rows.uniform((200, 500), "a"), rows.normal((200, 500), "a")
    assert uniform.dtype == normal.dtype == torch.float32 and uniform.min() >= 0 and uniform.max() < 1
    assert abs(uniform.mean() - 0.5) < 0.004 and abs(uniform.var() - 1 / 12) < 0.002
    assert abs(normal.mean()) < 0.013 and abs(normal.var() - 1) < 0.02 and abs((normal**4).mean() - 3) < 0.15
    for drawn in (uniform - 0.5, normal):  # neither neighbours in a row nor neighbouring rows go together
        scale = drawn.var()
        assert abs((drawn[1:] * drawn[:-1]).mean() / scale) < 0.015
        assert abs((drawn[:, 1:] * drawn[:, :-1]).mean() / scale) < 0.015


def test_places_that_padding_moves():
    rows = RowGenerator(SEEDS[:1])
    plain = rows.uniform_at(torch.tensor([[1, 2, 3]]), "words")
    padded = rows.uniform_at(torch.tensor([[0, 0, 1, 2, 3]]), "words")
    assert torch.equal(padded[:, 2:], plain)


def test_draws_by_any_generator():
    like = torch.zeros(())
    for draw, kind in ((draw_normal, "normal"), (draw_uniform, "uniform")):
        assert torch.equal(
            draw((4, 2), like, RowGenerator(SEEDS), "x"), getattr(RowGenerator(SEEDS), kind)((4, 2), "x")
        )
        one, two = (draw((4, 2), like, torch.Generator().manual_seed(1), "x") for _ in range(2))
        assert torch.equal(one, two)
    drawn = [generator.initial_seed() for generator in RowGenerator(SEEDS).generators("steps")]
    assert len(set(drawn)) == 4 and drawn[1] == RowGenerator(SEEDS[1:2]).generators("steps")[0].initial_seed()


def test_what_does_not_fit():
    with pytest.raises(ValueError, match=r"expected long \[B\]"):
        RowGenerator(torch.zeros(2, 2, dtype=torch.long))
    with pytest.raises(ValueError, match=r"shape \(3, 2\) for the seeds of 4 rows"):
        RowGenerator(SEEDS).normal((3, 2), "noise")


def test_seeds_of_rows():
    rows = EpochRows([{"id": "a"}, {"id": "b"}], seed=7)
    first = [draw_seed(row) for row in rows]
    rows.set_epoch(1)
    seeds = {*first, *(draw_seed(row) for row in rows), draw_seed(rows[0], 1), rows[0][AUGMENTATION_SEED]}
    assert len(seeds) == 6 and all(0 <= seed < 2**63 for seed in seeds)

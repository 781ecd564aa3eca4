"""Batches of rows of different groups: what is in them, what is left out, resuming, two processes."""

import logging
from collections import Counter

import numpy as np
import pytest

from hfvla.data.rows.epoch import EpochRows
from hfvla.errors import CheckpointError, DataError
from hfvla.training.trainer.group_batches import GroupSampler, most_batches

from ..toy import build_model, build_rows, build_trainer, changed, collate, snapshot


def batches(sampler):
    rows = list(sampler)
    return [rows[start : start + sampler.batch_rows] for start in range(0, len(rows), sampler.batch_rows)]


def groups_of(sizes):
    names = [name for name, size in sizes.items() for _ in range(size)]
    return [names[index] for index in np.random.default_rng(0).permutation(len(names))]


@pytest.mark.parametrize("limit", [1, 2, 3])
def test_no_group_comes_more_often_than_allowed_and_no_row_twice(limit):
    names = groups_of({f"b{n}": 1 + n % 7 for n in range(40)})
    sampler = GroupSampler(names, 16, limit, seed=3)
    for epoch in range(3):
        sampler.set_epoch(epoch)
        found = batches(sampler)
        assert len(found) == sampler.batches == 155 // 16
        rows = [row for batch in found for row in batch]
        assert len(rows) == len(set(rows)) == len(sampler) == len(names) - sampler.left_out
        for batch in found:
            assert max(Counter(names[row] for row in batch).values()) <= limit


def test_batches_have_as_many_groups_as_possible():
    # 8 groups of 8 rows, batches of 8: each batch can have all 8, even where more rows a group were allowed
    names = groups_of({f"b{n}": 8 for n in range(8)})
    for batch in batches(GroupSampler(names, 8, rows_per_group=4, seed=0)):
        assert len({names[row] for row in batch}) == 8


def test_the_order_is_a_function_of_seed_and_epoch():
    names = groups_of({f"b{n}": 4 for n in range(12)})
    first, second = GroupSampler(names, 6, 1, seed=1), GroupSampler(names, 6, 1, seed=1)
    list(second)  # having been read before changes nothing
    assert list(first) == list(second)
    second.set_epoch(1)
    assert list(first) != list(second) and list(first) != list(GroupSampler(names, 6, 1, seed=2))


def test_partners_change_between_epochs():
    names = [f"b{n}" for n in range(64)]
    sampler, partners = GroupSampler(names, 8, 1, seed=0), []
    for epoch in range(2):
        sampler.set_epoch(epoch)
        partners.append({frozenset(batch) for batch in batches(sampler)})
    assert not partners[0] & partners[1]


def test_rows_that_fit_nowhere_are_left_out_others_each_epoch():
    # Batches of 4 with one row a group: "big" fills one place of each batch. 3 batches need 12 rows: 3 of big and all
    # 9 others; 4 batches would need 16, and there are 13.
    names = ["big"] * 20 + [f"b{n}" for n in range(9)]
    sampler = GroupSampler(names, 4, 1, seed=0)
    assert (sampler.batches, sampler.left_out) == (3, 17)
    seen = set()
    for epoch in range(30):
        sampler.set_epoch(epoch)
        rows = list(sampler)
        assert set(range(20, 29)) <= set(rows)
        seen.update(rows)
    assert len(seen) > 26


@pytest.mark.parametrize("limit", [1, 2, 5])
def test_most_batches_is_the_most(limit):
    draw = np.random.default_rng(limit)
    for _ in range(50):
        sizes = draw.integers(1, 12, size=draw.integers(1, 9))
        fits = [n for n in range(int(sizes.sum()) + 1) if np.minimum(sizes, limit * n).sum() >= 3 * n]
        assert most_batches(sizes, 3, limit) == max(fits)


def test_rows_without_a_group_are_groups_of_their_own():
    sampler = GroupSampler([""] * 8, 4, 1, seed=0)
    assert sampler.batches == 2 and sampler.left_out == 0


def test_a_batch_never_has_one_group_only():
    names = ["a"] * 10 + ["b"] * 2
    for batch in batches(GroupSampler(names, 4, rows_per_group=4, seed=0)):
        assert {names[row] for row in batch} == {"a", "b"}


def test_shares_of_two_processes_have_different_groups():
    names = groups_of({f"b{n}": 2 for n in range(4)})
    for batch in batches(GroupSampler(names, 8, 2, seed=0)):  # all rows: each share must have each group once
        assert len({names[row] for row in batch[:4]}) == len({names[row] for row in batch[4:]}) == 4


def test_one_group_is_named():
    with pytest.raises(DataError, match=r"stage 'x'.*nothing to tell apart; got \"the only group is '0839'\""):
        GroupSampler(["0839"] * 5, 4, 1, seed=0, where="stage 'x', batches")


def test_a_batch_of_one_row_is_refused():
    with pytest.raises(DataError, match="1 row a batch.*Raise per_device_train_batch_size"):
        GroupSampler(["a", "b"], 1, 1, seed=0)


def test_too_few_groups_are_counted():
    with pytest.raises(DataError, match="too few groups.*6 rows of 3 groups, at most 2 of each.*8 rows"):
        GroupSampler(["a", "b", "c"] * 5, 8, 2, seed=0)


# ---- in a stage --------------------------------------------------------------------------------------------------

NAMES = ["a"] * 6 + ["b"] * 3 + ["c"] * 3


class Watch:
    """A collator that notes the groups of each batch."""

    def __init__(self):
        self.seen = []

    def __call__(self, rows):
        self.seen.append([row["group"] for row in rows])
        return collate([{name: row[name] for name in ("features", "target", "value", "rare")} for row in rows])


def group_trainer(folder, rows=None, **options):
    rows = build_rows(12).add_column("group", NAMES) if rows is None else rows
    args = {"num_train_epochs": 2, "max_steps": -1, "per_device_train_batch_size": 3, **options.pop("args", {})}
    options = {"batches": {"rows_per_group": 1}, **options}
    return build_trainer(folder, rows=rows, args=args, extra={"data_collator": Watch()}, **options)


def test_a_stage_trains_on_such_batches_and_says_what_it_leaves_out(tmp_path, caplog):
    with caplog.at_level(logging.INFO):
        trainer = group_trainer(tmp_path, rows=EpochRows(build_rows(12).add_column("group", NAMES), 0))
        trainer.train()
    # 3 of a, b and c each make three batches; 3 of the 6 rows of a are left out
    assert trainer.state.global_step == 6
    assert trainer.data_collator.seen and all(sorted(seen) == ["a", "b", "c"] for seen in trainer.data_collator.seen)
    assert "3 batches of 3 rows an epoch, at most 1 of a group, 3 groups; 3 of 12 rows left out" in caplog.text


def test_without_the_key_batches_mix_groups(tmp_path):
    trainer = group_trainer(tmp_path, batches=None)
    trainer.train()
    assert any(sorted(seen) != ["a", "b", "c"] for seen in trainer.data_collator.seen)


def test_rows_without_the_column_are_refused(tmp_path):
    with pytest.raises(DataError, match="stage 'first', batches: the training rows have no column 'group'"):
        group_trainer(tmp_path, rows=build_rows(12)).train()


@pytest.mark.parametrize("step", [2, 3, 4])
def test_resuming_goes_on_in_the_order(tmp_path, step):
    args = {"save_strategy": "steps", "save_steps": 1}
    names = {"train": ["backbone", "head"]}  # dropout too: the order and the draws must both go on
    whole = group_trainer(tmp_path / "whole", args=args, **names)
    whole.train()
    again = group_trainer(tmp_path / "again", args=args, model=build_model(5), **names)
    again.train(resume_from_checkpoint=str(tmp_path / f"whole/checkpoint-{step}"))
    assert again.data_collator.seen[-(6 - step) :] == whole.data_collator.seen[step:]
    assert not changed(again.model, snapshot(whole.model))


def test_other_batches_cannot_be_gone_on_with(tmp_path):
    args = {"save_strategy": "steps", "save_steps": 2}
    group_trainer(tmp_path, args=args).train()
    other = group_trainer(tmp_path, args=args, batches={"rows_per_group": 2})
    with pytest.raises(CheckpointError, match="batches of groups"):
        other.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_any_number_of_processes_shares_the_same_batches():
    from accelerate.data_loader import BatchSamplerShard
    from torch.utils.data import BatchSampler

    names = groups_of({f"b{n}": 3 for n in range(10)})
    whole = batches(GroupSampler(names, 6, 1, seed=4))
    parts = [
        list(BatchSamplerShard(BatchSampler(GroupSampler(names, 6, 1, seed=4), 3, drop_last=False), 2, rank))
        for rank in range(2)
    ]
    assert [first + second for first, second in zip(*parts, strict=True)] == whole
    assert [len(batch) for batch in whole] == [6] * 5

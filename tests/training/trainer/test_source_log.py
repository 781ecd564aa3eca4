"""Losses by source: hand-computed averages, kept over a resume, absent where nothing tells sources apart."""

import pytest
import torch
from datasets import Dataset

from hfvla.data.packing import PackedRows
from hfvla.data.rows.epoch import EpochRows
from hfvla.data.rows.group_ids import SOURCE_IDS, source_ids
from hfvla.losses.text import sequence_cross_entropy, sums_by_row, text_by_row
from hfvla.training.trainer.source_log import SourceLog, source_names


class OneProcess:
    device = torch.device("cpu")

    def reduce(self, tensor, reduction):
        return tensor


class TwoAlike(OneProcess):
    def reduce(self, tensor, reduction):
        return 2 * tensor


ROWS = [{"source": "coco"}, {"source": "vqa"}, {"source": "coco"}]
BATCH = {SOURCE_IDS: torch.tensor(source_ids(ROWS))}
# Sums over 2, 1 and 4 tokens: coco (1 + 8) / 6, vqa 3 / 1.
OUTPUTS = {"row_losses": {"sft": torch.tensor([[1.0, 3.0, 8.0], [2.0, 1.0, 4.0]])}}


def log() -> SourceLog:
    return SourceLog(("coco", "unseen", "vqa"), ("sft", "dpo"))


@pytest.mark.parametrize("accelerator", [OneProcess(), TwoAlike()])
def test_averages_are_over_tokens_of_a_source(accelerator):
    found = log()
    found.add(OUTPUTS, BATCH)
    assert found.averages(accelerator) == {"sft/coco": 1.5, "sft/vqa": 3.0}
    assert found.averages(accelerator) == {}


def test_what_was_summed_up_outlives_a_resume():
    before, after = log(), log()
    before.add(OUTPUTS, BATCH)
    after.load_state(before.state())
    before.add(OUTPUTS, BATCH)
    after.add(OUTPUTS, BATCH)
    assert after.averages(OneProcess()) == before.averages(OneProcess())
    other = SourceLog(("a", "b"), ("sft",))
    other.load_state(before.state())
    other.load_state(None)
    assert other.averages(OneProcess()) == {}


def test_a_loss_that_is_no_number_does_not_hide_the_others():
    found = log()
    found.add({"row_losses": {"sft": torch.tensor([[float("nan"), 3.0, 8.0], [2.0, 1.0, 4.0]])}}, BATCH)
    assert found.averages(OneProcess())["sft/vqa"] == 3.0


def test_nothing_without_sources_or_row_losses():
    found = log()
    found.add({"loss": torch.tensor(1.0)}, BATCH)
    found.add(OUTPUTS, {"labels": torch.tensor([1])})
    assert found.averages(OneProcess()) == {}
    single = SourceLog(("coco",), ("sft",))
    single.add(OUTPUTS, BATCH)
    assert single.averages(OneProcess()) == {}


def test_names_are_found_under_what_wraps_the_rows():
    rows = Dataset.from_list(ROWS)
    assert source_names(PackedRows(EpochRows(rows, 0), [1, 1, 1], 2)) == ("coco", "vqa")
    assert source_names(rows.select([0])) == ("coco",)
    assert source_names(ROWS) == ("coco", "vqa")
    assert source_names(None) == source_names({"held": rows}) == source_names(rows.remove_columns("source")) == ()


def test_sums_by_row():
    # Tokens of rows 0, 0, 2: 1 + 2 over 2, nothing, 4 over 1.
    found = sums_by_row(torch.tensor([1.0, 2.0, 4.0], requires_grad=True), torch.tensor([0, 0, 2]), 3)
    assert found.tolist() == [[3.0, 0.0, 4.0], [2.0, 0.0, 1.0]] and not found.requires_grad


def test_text_by_row_is_what_the_term_is_a_mean_over():
    logits, labels = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 1, 2, 3, 0])
    rows = torch.tensor([0, 0, 2, 2, 2])
    for reduction in ("sample", "token"):
        sums, counts = text_by_row(logits, labels, rows, 3, reduction)
        assert counts.tolist() == ([1, 0, 1] if reduction == "sample" else [2, 0, 3])
        whole = sequence_cross_entropy(logits, labels, rows, 3, reduction)
        assert float(sums.sum() / counts.sum()) == pytest.approx(float(whole), abs=1e-6)

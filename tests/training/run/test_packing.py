"""Packed stages: rows in sequences, the loss of the samples alone, exact resume, losses by source."""

from ast import literal_eval
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import TrainerCallback
from transformers.trainer_pt_utils import LengthGroupedSampler

from hfvla.data.packing import PackedRows
from hfvla.errors import DataError, RecipeError
from hfvla.recipe import Stage
from hfvla.training.run.packing import ordered_rows, rows_that_fit
from hfvla.training.stage.data import StageRows

from ..launching import launch
from ..packed_words import WordsCollator, build_rows, build_trainer, build_words
from ..packed_worker import train as train_packed

STAGE = {"name": "words", "train": ["all"], "losses": {"sft": 1.0}}


class Arguments:
    data_seed, seed, per_device_train_batch_size, train_sampling_strategy = None, 0, 2, "random"


class StopAt(TrainerCallback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            raise KeyboardInterrupt


def packed_rows(rows=None) -> PackedRows:
    stage = Stage.model_validate({**STAGE, "packing": {"max_length": 16}})
    return ordered_rows(stage, rows or build_rows(), WordsCollator(), Arguments())


def test_a_stage_with_packing_gets_sequences_and_says_what_they_save(caplog):
    caplog.set_level("INFO", logger="hfvla")
    found = packed_rows()
    assert isinstance(found, PackedRows) and found.report.rows == 40
    assert found.report.padding_after < found.report.padding_before
    assert "stage 'words': packing: 40 rows in" in caplog.text


def test_a_family_that_cannot_pack_is_told_so():
    stage = Stage.model_validate({**STAGE, "packing": {"max_length": 16}})
    with pytest.raises(RecipeError, match=r"stage 'words'.*packing.*function.*token_lengths"):
        ordered_rows(stage, build_rows(), lambda rows: rows, Arguments())


def test_long_rows_stop_the_stage_or_are_left_out():
    for settings, seen in (({"max_length": 8, "too_long": "leave_out"}, 40), ({"max_length": 8}, 40)):
        stage = Stage.model_validate({**STAGE, "packing": settings})
        assert ordered_rows(stage, build_rows(), WordsCollator(), Arguments()).report.rows == seen
    rows = build_rows().add_item({"ids": list(range(1, 20)), "source": "odd"})
    with pytest.raises(DataError, match="19 tokens"):
        packed_rows(rows)


class Short(WordsCollator):
    max_length = 10


def test_without_packing_too_long_rows_are_left_out_and_counted(caplog):
    stage = Stage.model_validate({**STAGE, "too_long": "leave_out"})
    rows = build_rows().add_item({"ids": list(range(1, 20)), "source": "odd"})
    found, left = rows_that_fit(stage, StageRows(rows, rows), Short())
    short = sum(len(ids) <= 10 for ids in rows["ids"])
    assert 0 < short < len(rows) and len(found.train) == len(found.validation) == short
    assert all(len(ids) <= 10 for ids in found.train["ids"])
    counts = {"tokens": 10, "train": len(rows) - short, "validation": len(rows) - short}
    assert {key: left[key] for key in counts} == counts and "tokens" in left["first"]
    assert f"{len(rows) - short} training and" in caplog.text and left["first"] in caplog.text
    same = StageRows(rows, None)
    assert rows_that_fit(Stage.model_validate(STAGE), same, Short()) == (same, None)


def test_rows_without_lengths_cannot_be_told_too_long():
    stage = Stage.model_validate({**STAGE, "too_long": "leave_out"})
    with pytest.raises(RecipeError, match=r"too_long.*cannot say how long a row is"):
        rows_that_fit(stage, StageRows(build_rows(), None), lambda rows: rows)
    with pytest.raises(RecipeError, match=r"too_long.*stream.*without streaming"):
        rows_that_fit(stage, StageRows(build_rows().to_iterable_dataset(), None), Short())

    class Tiny(WordsCollator):
        max_length = 0

    with pytest.raises(DataError, match=r"stage 'words': no row fits into the model's context"):
        rows_that_fit(stage, StageRows(build_rows(), None), Tiny())


def test_the_loss_of_a_step_is_that_of_its_samples_alone(tmp_path):
    packed = packed_rows()
    rows, model = build_rows(), build_words().eval()
    trainer = build_trainer(tmp_path, packed, max_steps=1, train_sampling_strategy="sequential", save_strategy="no")
    trainer.train()
    line = trainer.state.log_history[0]
    numbers = [number for pack in (0, 1) for number in packed.row_numbers(pack)]
    sums, tokens = {"even": 0.0, "odd": 0.0}, {"even": 0, "odd": 0}
    for number in numbers:
        with torch.no_grad():
            alone = model(**WordsCollator()([rows[number]])).row_losses["sft"][:, 0]
        source = rows[number]["source"]
        sums[source] += float(alone[0])
        tokens[source] += int(alone[1])
    assert line["loss"] == pytest.approx(sum(sums.values()) / sum(tokens.values()), abs=1e-5)
    for source in sums:
        assert line[f"words/loss_sft/{source}"] == pytest.approx(sums[source] / tokens[source], abs=1e-5)


def test_one_batch_of_two_is_two_of_one(tmp_path):
    one = build_trainer(tmp_path / "a", packed_rows(), max_steps=3, save_strategy="no")
    two = build_trainer(
        tmp_path / "b", packed_rows(), max_steps=3, save_strategy="no", per_device_train_batch_size=1,
        gradient_accumulation_steps=2,
    )  # fmt: skip
    one.train()
    two.train()
    for name, value in one.model.state_dict().items():
        torch.testing.assert_close(two.model.state_dict()[name], value, atol=1e-5, rtol=1e-5)


def test_a_resumed_run_is_the_uninterrupted_one_to_the_bit(tmp_path):
    whole = build_trainer(tmp_path / "whole", packed_rows())
    whole.train()
    steps = whole.state.global_step
    assert steps > 9  # stops inside the second epoch
    stopped = build_trainer(tmp_path / "cut", packed_rows())
    stopped.add_callback(StopAt(steps - 2))
    with pytest.raises(KeyboardInterrupt):
        stopped.train()
    resumed = build_trainer(tmp_path / "cut", packed_rows())
    resumed.train(resume_from_checkpoint=True)
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    assert _losses(whole)[:steps] == _losses(resumed)[:steps]


def _losses(trainer):
    return [{key: value for key, value in line.items() if "loss" in key} for line in trainer.state.log_history]


def test_rows_of_one_length_are_the_simple_alternative(tmp_path):
    class ByLength(Arguments):
        train_sampling_strategy = "group_by_length"

    rows = ordered_rows(Stage.model_validate(STAGE), build_rows(), WordsCollator(), ByLength())
    trainer = build_trainer(tmp_path, rows, train_sampling_strategy="group_by_length", save_strategy="no", max_steps=2)
    sampler = trainer._get_train_sampler()
    assert isinstance(sampler, LengthGroupedSampler) and sampler.generator is not None
    order = list(sampler)
    assert sorted(order) == list(range(40))
    lengths = [len(ids) for ids in build_rows()["ids"]]
    by_length = sum(max(lengths[a], lengths[b]) for a, b in zip(order[::2], order[1::2], strict=True))
    assert by_length < sum(max(a, b) for a, b in zip(lengths[::2], lengths[1::2], strict=True))
    trainer.train()


@pytest.mark.slow
@pytest.mark.distributed
def test_two_processes_train_what_one_does(tmp_path):
    launch(2, Path(__file__).parents[1] / "packed_worker.py", tmp_path)
    one = train_packed(tmp_path / "one", 4)
    for name, value in load_file(tmp_path / "two.safetensors").items():
        torch.testing.assert_close(value, one.model.state_dict()[name], atol=1e-5, rtol=1e-5)
    logged, line = literal_eval((tmp_path / "log.txt").read_text()), one.state.log_history[0]
    assert {"words/loss_sft/even", "words/loss_sft/odd"} <= set(logged)
    assert logged == pytest.approx({key: line[key] for key in logged}, abs=1e-5)

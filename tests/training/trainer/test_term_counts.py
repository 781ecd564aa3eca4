"""A loss term is a mean over an optimizer step, whichever micro-batches and processes its rows are spread over."""

import json
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file

from ..counted_worker import KINDS, evaluate_toy, train_broken, train_counted
from ..toy import CountedToy, build_model, build_rows, build_trainer, changed, snapshot
from .test_trainer import IN_ORDER, lines

MEASURED = ("samples_per_second", "data_s", "peak_memory_gb")


def compared(trainer) -> list[dict]:
    """Return the log lines without what differs from run to run."""
    return [
        {key: value for key, value in line.items() if not (key.startswith("train_") or key.endswith(MEASURED))}
        for line in history(trainer)
    ]


def history(trainer) -> list[dict]:
    return trainer.state.log_history if hasattr(trainer, "state") else trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """Each way of weighting, trained on batches of 8 rows in one process."""
    folder = tmp_path_factory.mktemp("whole")
    return {kind: train_counted(folder, kind, batch=8, accumulation=1) for kind in KINDS}


def assert_equal_runs(one: dict, other: dict, lines_of_one: list, lines_of_other: list) -> None:
    assert set(one) == set(other)
    for name, value in one.items():
        torch.testing.assert_close(other[name], value, atol=1e-6, rtol=0, msg=lambda text, n=name: f"{n}: {text}")
    assert len(lines_of_one) == len(lines_of_other)
    for first, second in zip(lines_of_one, lines_of_other, strict=True):
        assert second == pytest.approx(first, abs=2e-4)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("batch", [1, 4])
def test_micro_batches_equal_the_whole_batch(whole, tmp_path, kind, batch):
    parts = train_counted(tmp_path, kind, batch=batch, accumulation=8 // batch)
    one, other = (dict(trainer.model.named_parameters()) for trainer in (whole[kind], parts))
    assert_equal_runs(one, other, compared(whole[kind]), compared(parts))


def test_counts_by_hand(tmp_path):
    # value is 0..7 in order; rare rows 1, 2, 3 and 6 in batches of 4: means 2 of three rows and 6 of one. As rows
    # (1 + 2 + 3 + 6) / 4 = 3, and not the (2 + 6) / 2 = 4 of the batches. "level" counts by rows: 3.5.
    args = {"gradient_accumulation_steps": 2, "max_steps": 1, "learning_rate": 1e-9, **IN_ORDER}
    losses, rows = {"level": 1.0, "rare": 2.0}, build_rows(8, rare=(1, 2, 3, 6))
    trainer = build_trainer(tmp_path, build_model(kind=CountedToy), losses=losses, rows=rows, args=args)
    trainer.train()
    (line,) = lines(trainer)
    assert line["first/loss_rare"] == pytest.approx(3.0) and line["first/loss_level"] == pytest.approx(3.5)
    assert line["loss"] == pytest.approx(3.5 + 2 * 3.0)
    assert line["grad_norm"] == pytest.approx(3.5 + 2 * 3.0)  # both are linear in head.scale, which is 1


def test_a_short_last_micro_batch_counts_by_its_rows(tmp_path):
    # rows 0..4 in batches of 4 and 1: 2 and not (1.5 + 4) / 2
    args = {"gradient_accumulation_steps": 2, "max_steps": 1, "learning_rate": 1e-9, **IN_ORDER}
    trainer = build_trainer(tmp_path, losses={"level": 1.0}, rows=build_rows(5), args=args)
    trainer.train()
    assert lines(trainer)[0]["loss"] == pytest.approx(2.0) == lines(trainer)[0]["first/loss_level"]


def test_a_term_of_zero_rows_does_not_count(tmp_path):
    class Present(CountedToy):  # the term is 0 instead of absent, as where all processes must go the same way
        def forward(self, features, rare=None, **batch):
            output = super().forward(features, rare=rare, **batch)
            output.loss_terms.setdefault("rare", self.head.scale * float("nan"))
            return output

    model, rows = build_model(kind=Present), build_rows(8, rare=(5,))
    args = {"max_steps": 1, "gradient_accumulation_steps": 1, "per_device_eval_batch_size": 4}
    trainer = build_trainer(tmp_path, model, losses={"rare": 1.0}, args=args, extra={"eval_dataset": rows})
    assert trainer.evaluate()["eval_loss_rare"] == pytest.approx(5.0)


def test_a_resumed_run_has_the_same_log(tmp_path):
    args = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 2, "max_steps": 4, "logging_steps": 3}
    args |= {"save_strategy": "steps", "save_steps": 2, **IN_ORDER}
    options = {"losses": {"rare": 1.0, "fit": 1.0}, "rows": build_rows(16, rare=(1, 5, 6, 12)), "args": args}
    first = build_trainer(tmp_path, build_model(kind=CountedToy), **{**options, "args": dict(args)})
    first.train()
    again = build_trainer(tmp_path, build_model(kind=CountedToy), **{**options, "args": dict(args)})
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert compared(first)[0] == compared(again)[0] and "first/loss_rare" in lines(first)[0]


# ---- two and three processes -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """Facts and weights of each rank, by the number of processes."""
    found = {}
    for world in (2, 3):
        folder = tmp_path_factory.mktemp(f"processes_{world}")
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(world)]
        command = [*launch, "-m", "tests.training.counted_worker", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stderr[-4000:]
        ranks = range(world)
        found[world] = [
            (
                json.loads((folder / f"facts-{rank}.json").read_text()),
                load_file(folder / f"weights-{rank}.safetensors"),
            )
            for rank in ranks
        ]
    return found


def weights_of(tensors: dict, name: str) -> dict:
    return {key.removeprefix(f"{name} "): value for key, value in tensors.items() if key.startswith(f"{name} ")}


@pytest.mark.distributed
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_equal_one(launched, whole, kind):
    one = dict(whole[kind].model.named_parameters())
    for facts, tensors in launched[2]:
        assert_equal_runs(one, weights_of(tensors, kind), compared(whole[kind]), compared(facts[kind]))


@pytest.mark.distributed
def test_a_process_without_a_term_goes_along(launched, tmp_path):
    one = train_counted(tmp_path, "fixed", batch=8, accumulation=1, losses={"odd": 1.0})
    (facts, tensors), (_, others) = launched[2]
    for key, value in weights_of(tensors, "alone").items():
        assert torch.equal(value, others[f"alone {key}"])
        torch.testing.assert_close(value, one.model.state_dict()[key], atol=1e-6, rtol=0)
    empty = [line.get("pull/batches_without_a_term", 0) for line in facts["alone"] if "loss" in line]
    assert empty == [1, 1, 1, 1]


@pytest.mark.distributed
@pytest.mark.parametrize("count", [7, 5, 1])
def test_evaluation_counts_each_row_once(launched, tmp_path, count):
    one = evaluate_toy(tmp_path, count)
    assert one["eval_loss_level"] == pytest.approx((count - 1) / 2) and one["eval_rows"] == count
    for world in (2, 3):
        for facts, _ in launched[world]:
            assert facts[f"evaluate {count}"] == pytest.approx(one, abs=1e-6)


@pytest.mark.distributed
def test_all_processes_stop_or_skip_together(launched, tmp_path):
    one, _ = train_broken(tmp_path, batch=8, skip=1)
    for facts, tensors in launched[2]:
        assert "step 1: 'level' is nan on process 1, rows [4, 5, 6, 7]" in facts["stopped"]
        assert facts["stopped at"] == 0
        for key, value in weights_of(tensors, "skipped").items():
            torch.testing.assert_close(value, one.model.state_dict()[key], atol=1e-6, rtol=0)
    before = snapshot(build_model())
    assert changed(one.model, before)  # by the second step

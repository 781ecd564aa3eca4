"""A loss or gradient that is no number: the step it is in, and what is left when it is over."""

import json
from types import SimpleNamespace

import pytest
import torch

from hfvla.errors import CheckpointError, RecipeError, TrainingError
from hfvla.training.checkpoint.finite import refuse_nonfinite
from hfvla.training.trainer.nonfinite import FiniteCheck

from ..counted_worker import broken_rows, train_broken
from ..toy import ToyModel, build_model, build_rows, build_trainer, changed, snapshot
from .test_trainer import IN_ORDER, lines


def test_a_loss_that_is_no_number_ends_the_stage(tmp_path):
    trainer, error = train_broken(tmp_path, batch=8, skip=0)
    assert "stage 'first', step 1: 'level' is nan, rows [0, 1, 2, 3, 4, 5, 6, 7]" in error
    assert trainer.state.global_step == 0 and not changed(trainer.model, snapshot(build_model()))
    assert not lines(trainer)  # and no loss of 0 in the log


def test_the_micro_batch_and_its_rows_are_named(tmp_path):
    args = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 2, "max_steps": 6, **IN_ORDER}
    trainer = build_trainer(tmp_path, rows=broken_rows(12, (7,)), losses={"fit": 1.0, "level": 1.0}, args=args)
    with pytest.raises(TrainingError, match=r"step 2: 'level' is nan in micro-batch 2, rows \[6, 7\]; expected"):
        trainer.train()
    assert trainer.state.global_step == 1


def test_shuffled_rows_are_named_too(tmp_path):
    args = {"per_device_train_batch_size": 1, "max_steps": 8}
    trainer = build_trainer(tmp_path, rows=broken_rows(8, (3,)), losses={"level": 1.0}, args=args)
    with pytest.raises(TrainingError, match=r"'level' is nan, rows \[3\]"):
        trainer.train()


class Steep(ToyModel):
    """A finite loss whose gradient is infinite."""

    def forward(self, features, **batch):
        output = super().forward(features, **batch)
        output.loss_terms["fit"] = (self.head.scale - 1.0).abs().sqrt() + 1.0
        return output


def test_a_gradient_that_is_no_number_ends_the_stage(tmp_path):
    trainer = build_trainer(tmp_path, build_model(kind=Steep))
    with pytest.raises(TrainingError, match="step 1: the norm of the gradient is (nan|inf), the losses are numbers"):
        trainer.train()


def test_steps_may_be_left_out(tmp_path):
    # four steps of two rows; row 2 breaks the second: what is learned are the other three
    args = {"per_device_train_batch_size": 2, "max_steps": 4, "learning_rate": 1e-2, **IN_ORDER}
    args |= {"lr_scheduler_type": "constant", "optim": "sgd", "max_grad_norm": 0.0}
    trainer = build_trainer(
        tmp_path, rows=broken_rows(8, (2,)), losses={"level": 1.0}, args=args, skip_nonfinite=1, train=["head"]
    )
    trainer.train()
    # gradients of scale are the mean values 0.5, 4.5 and 6.5; weight decay is 0
    assert trainer.model.head.scale.item() == pytest.approx(1 - 0.01 * (0.5 + 4.5 + 6.5), abs=1e-6)
    assert [line.get("first/steps_left_out") for line in lines(trainer)] == [None, 1, 1, 1]
    assert json.dumps(lines(trainer), allow_nan=False) and "first/loss_level" not in lines(trainer)[1]


def test_one_step_more_than_allowed_ends_the_stage(tmp_path):
    args = {"per_device_train_batch_size": 2, "max_steps": 4, **IN_ORDER}
    trainer = build_trainer(tmp_path, rows=broken_rows(8, (2, 7)), losses={"level": 1.0}, args=args, skip_nonfinite=1)
    with pytest.raises(TrainingError, match="step 4: 'level' is nan"):
        trainer.train()


def test_counts_go_on_after_a_resume(tmp_path):
    args = {"per_device_train_batch_size": 2, "max_steps": 4, "save_strategy": "steps", "save_steps": 2, **IN_ORDER}
    options = {"losses": {"level": 1.0}, "rows": broken_rows(8, (2, 7)), "skip_nonfinite": 2}
    build_trainer(tmp_path, args=dict(args), **options).train()
    again = build_trainer(tmp_path, args=dict(args), **options)
    again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert again.finite.skipped == 2


def check(scaler=None, allowed=0, deepspeed=False):
    accelerator = SimpleNamespace(num_processes=1, scaler=scaler, device=torch.device("cpu"))
    stage, state = SimpleNamespace(name="half"), SimpleNamespace(global_step=0)
    args = SimpleNamespace(process_index=0, fp16=scaler is not None)
    return FiniteCheck(
        SimpleNamespace(
            accelerator=accelerator,
            stage=stage,
            state=state,
            args=args,
            step_rows=list,
            is_deepspeed_enabled=deepspeed,
        ),
        allowed,
    )


def test_the_loss_scaler_may_leave_steps_out():
    finite = check(scaler=object())
    for norm in [float("inf")] * 50 + [1.0] + [float("nan")] * 50:
        finite.add({"fit": torch.tensor(1.0)})
        assert finite.step_ends(torch.tensor(norm))
    assert (finite.scaled, finite.skipped) == (100, 0)
    with pytest.raises(TrainingError, match="51 steps in a row; fp16's loss scale has run out"):
        finite.step_ends(torch.tensor(float("inf")))


def test_a_loss_that_is_no_number_is_not_the_scalers():
    finite = check(scaler=object())
    finite.add({"fit": torch.tensor(float("inf"))})
    with pytest.raises(TrainingError, match="'fit' is inf"):
        finite.step_ends(torch.tensor(1.0))


def test_deepspeed_cannot_leave_steps_out():
    with pytest.raises(RecipeError, match="stage 'half': skip_nonfinite cannot hold back a step of DeepSpeed; got 3"):
        check(allowed=3, deepspeed=True)


# ---- what is kept ------------------------------------------------------------------------------------------------


def keeping(folder, metric, score=None):
    args = {"eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps", "save_steps": 1, "max_steps": 2}
    args |= {"load_best_model_at_end": True, "metric_for_best_model": metric}
    extra = {"eval_dataset": build_rows(4)}
    if score is not None:
        extra["compute_metrics"] = lambda prediction: {"score": score()}
    else:
        extra["eval_dataset"] = broken_rows(4, (2,))
    return build_trainer(folder, losses={"fit": 1.0, "level": 1.0}, args=args, extra=extra)


def test_an_evaluation_loss_that_is_no_number_ends_the_stage(tmp_path):
    with pytest.raises(TrainingError, match="step 1: stage 'first': the eval_loss that keep_best.*got nan"):
        keeping(tmp_path, "eval_loss").train()


def test_a_metric_that_is_no_number_is_never_the_best(tmp_path):
    scores = iter([float("nan"), -1.0])
    trainer = keeping(tmp_path, "eval_score", lambda: next(scores))
    trainer.train()
    assert trainer.state.best_metric == -1.0 and trainer.state.best_global_step == 2
    with pytest.raises(TrainingError, match="keep_best: eval_score was no number in any evaluation"):
        keeping(tmp_path / "never", "eval_score", lambda: float("nan")).train()


def test_weights_that_are_no_numbers_are_not_saved(tmp_path):
    weights = {"good": torch.ones(2), "count": torch.ones(2, dtype=torch.long), "bad": torch.tensor([1.0, torch.inf])}
    with pytest.raises(CheckpointError, match="trained weights are no numbers; got 'NaN or infinity in bad'"):
        refuse_nonfinite(weights, tmp_path)


def test_a_checkpoint_of_such_weights_is_refused(tmp_path):
    args = {"max_steps": 1, "save_strategy": "steps", "save_steps": 1, "learning_rate": float("inf")}
    trainer = build_trainer(tmp_path, losses={"level": 1.0}, args=args)
    with pytest.raises(CheckpointError, match="trained weights are no numbers.*head"):
        trainer.train()
    assert not list(tmp_path.glob("checkpoint-*"))

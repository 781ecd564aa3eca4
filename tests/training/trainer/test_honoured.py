"""Fields of a `Stage` in a script: each is honoured, or refused with its name and what to do."""

import gc
import weakref

import pytest
from transformers import EarlyStoppingCallback

from hfvla.errors import RecipeError
from hfvla.recipe import Stage
from hfvla.training.run.stage_run import StageRun
from hfvla.training.trainer.trainer import StagedTrainer

from ..lora.test_injection import LORA
from ..toy import GROUPS, build_model, build_rows, build_trainer

BEST = {
    **{"load_best_model_at_end": True, "metric_for_best_model": "eval_loss"},
    **{"eval_strategy": "steps", "save_strategy": "steps"},
}

PHASE = {"step": 1, "add": ["blocks"], "learning_rates": {"head": 1.0}}


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"stage_args": {"learning_rate": 1e-3}}, r"args\.learning_rate: .*0.001 in the stage, 5e-05 in Tra.*Pass"),
        ({"stage_args": {"lr_scheduler_type": "cosine"}}, r"args\.lr_scheduler_type: .*'cosine' in the stage"),
        ({"stage_args": {"no_such": 1}}, r"args\.no_such: .*nothing"),
        ({"keep_best": "eval_loss"}, "keep_best: .*load_best_model_at_end=True, metric_for_best_model='eval_loss'"),
        ({"keep_best": "eval_fit", "args": BEST}, "keep_best: .*metric_for_best_model='eval_fit'"),
        ({"data": {"train": [{"source": "fleet"}]}}, r"data: only the run of a recipe.*train_dataset"),
        ({"cache": True}, "cache: only the run of a recipe"),
        ({"model": {"width": 3}}, r"model\.width: the model that was passed has another value; .*expected 3"),
        ({"handover": {"from": "zero"}}, "handover.from: only the run of a recipe"),
        ({"handover": {"new": ["head"]}}, "handover.new: only the run of a recipe.*hand_over"),
        ({"learning_rates": {"heads": 1e-3}}, "learning_rates: 'heads' is not an entry of `train`. Did you"),
        ({"phases": [PHASE]}, r"phases\[0\]\.learning_rates: 'head' is not an entry of `add`"),
        ({"lora": LORA}, "lora: its adapters never train.*Put the group 'lora' into `train`"),
    ],
)  # fmt: skip
def test_what_a_script_does_not_honour_is_refused(tmp_path, fields, message):
    own = fields.pop("stage_args", {})
    with pytest.raises(RecipeError, match=f"stage 'first'.*{message}"):
        _build(tmp_path, own, **fields)


def _build(folder, own, **fields):
    args = build_trainer(folder, args=fields.pop("args", {}), extra={"eval_dataset": build_rows()}).args
    stage = Stage(**{"name": "first", "train": ["head"], "losses": {"fit": 1.0}, "args": own, **fields})
    rows = {"train_dataset": build_rows(), "eval_dataset": build_rows()}
    return StagedTrainer(build_model(), args, stage=stage, groups=GROUPS, **rows)


def test_what_the_arguments_say_already_is_held(tmp_path):
    own = {"learning_rate": "5e-5", "lr_scheduler_type": "linear", "report_to": "none", "max_steps": 2}
    fields = {"keep_best": "eval_loss", "patience": 3, "model": {"model_type": "toy_for_tests"}}
    callbacks = _build(tmp_path, own, args=BEST, **fields).callback_handler.callbacks
    stopping = [callback for callback in callbacks if isinstance(callback, EarlyStoppingCallback)]
    assert [callback.early_stopping_patience for callback in stopping] == [3]


def test_a_second_stage_frees_the_trainer_of_the_first(tmp_path):
    """The model goes on; the first trainer and its optimizer must not lie beside the second's."""
    gc.disable()
    try:
        model = build_model()
        first = build_trainer(tmp_path, model)
        first.train()
        held = [weakref.ref(first), weakref.ref(first.optimizer)]
        del first
        assert all(reference() is not None for reference in held)  # cycles: else this test is about nothing
        build_trainer(tmp_path, model, name="second")
        assert all(reference() is None for reference in held)
    finally:
        gc.enable()


def test_a_stage_of_a_run_leaves_nothing_alive(tmp_path):
    """A run keeps a stage's summary; the trainer, which is in cycles, must not wait for a collection."""

    held = []

    class Run(StageRun):
        def __init__(self):
            pass

        def _train(self, data, folders):
            trainer = build_trainer(tmp_path, args={"max_steps": 1})
            trainer.train()
            held.extend(weakref.ref(part) for part in (trainer, trainer.model, trainer.optimizer))
            return {"steps": trainer.state.global_step}

    gc.disable()
    try:
        assert Run().train(None, {}) == {"steps": 1}
        assert all(reference() is None for reference in held)
    finally:
        gc.enable()

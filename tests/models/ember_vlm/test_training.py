"""EmberVLM under the StagedTrainer: micro-batches, and stages without gold sets."""

import copy

import pytest
import torch
from transformers import TrainingArguments

from hfvla.models.ember_vlm import FAMILY
from hfvla.recipe import Stage
from hfvla.training.trainer.trainer import StagedTrainer


@pytest.fixture
def build_trainer(shared_model, processor, rows, tmp_path):
    def build(train, losses, **args):
        model = copy.deepcopy(shared_model)
        model.config.word_dropout = 0.0
        for module in model.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        settings = {"max_steps": 3, "learning_rate": 1e-2, "adam_epsilon": 1e-4, "save_strategy": "no", **args}
        return StagedTrainer(
            model=model,
            args=TrainingArguments(
                output_dir=str(tmp_path),
                use_cpu=True,
                report_to="none",
                disable_tqdm=True,
                remove_unused_columns=False,
                label_names=list(FAMILY.label_names),
                **settings,
            ),
            stage=Stage(name="check", train=train, losses=losses),
            groups=FAMILY.groups,
            data_collator=FAMILY.load("collator")(processor, model.config, losses=tuple(losses), training=True),
            train_dataset=rows,
            eval_dataset=rows,
            compute_metrics=lambda prediction: FAMILY.load("compute_metrics")(prediction, model.config),
        )

    return build


def test_eight_steps_of_one_are_one_step_of_eight(build_trainer, shared_model):
    """Rows of different lengths, with and without a picture."""
    train = ["projector", "language", "fusion", "selection_head"]
    losses = {"selection": 1.0, "reasoning": 0.7, "consistency": 0.4}
    found = []
    for size, accumulation in ((8, 1), (1, 8)):
        trainer = build_trainer(
            train, losses, per_device_train_batch_size=size, gradient_accumulation_steps=accumulation
        )
        trainer.train()
        found.append(dict(trainer.model.named_parameters()))
    whole, parts = found
    before = dict(shared_model.named_parameters())
    assert {name for name in whole if not torch.equal(whole[name], before[name])} == set(trainer.trained)
    for name, value in whole.items():
        torch.testing.assert_close(
            parts[name], value, atol=1e-6, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


def test_a_stage_without_gold_sets_is_still_evaluated(build_trainer):
    trainer = build_trainer(["projector", "temperature"], {"itc": 0.5, "caption": 0.5})
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(0.5 * metrics["eval_loss_itc"] + 0.5 * metrics["eval_loss_caption"])
    assert "eval_jaccard" not in metrics


def test_learning_lowers_the_loss(build_trainer):
    trainer = build_trainer(
        ["language"], {"caption": 1.0}, max_steps=30, logging_steps=1, lr_scheduler_type="constant"
    )
    trainer.train()
    losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
    assert losses[-1] < 0.5 * losses[0]

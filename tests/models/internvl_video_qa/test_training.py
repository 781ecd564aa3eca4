"""Under the StagedTrainer: micro-batches, LoRA beside a frozen tower, resumed epochs, words without choices."""

import copy
import json

import pytest
import torch
from transformers import TrainingArguments

from hfvla.cli import main
from hfvla.data.rows.epoch import EpochRows
from hfvla.models.internvl_video_qa import FAMILY
from hfvla.recipe import Stage
from hfvla.training.run.saving import save_and_audit
from hfvla.training.trainer.trainer import StagedTrainer

LORA = {"target": r"re:.*language_model.*\.(q|k|v|o)_proj", "r": 4, "alpha": 8}


@pytest.fixture
def build_trainer(shared_model, processor, rows, tmp_path):
    def build(stage, train_rows=None, **args):
        model = copy.deepcopy(shared_model)
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
            stage=stage,
            groups=FAMILY.groups,
            data_collator=FAMILY.load("collator")(processor, model.config, losses=tuple(stage.losses), training=True),
            train_dataset=rows if train_rows is None else train_rows,
            eval_dataset=rows,
            compute_metrics=lambda prediction: FAMILY.load("compute_metrics")(prediction, model.config),
        )

    return build


def test_eight_steps_of_one_are_one_step_of_eight(build_trainer, shared_model):
    """Questions of different lengths and numbers of choices."""
    stage = Stage(name="check", train=["projector", "language"], losses={"letters": 1.0, "lm": 0.5, "words": 0.3})
    found = []
    for size, accumulation in ((8, 1), (1, 8)):
        trainer = build_trainer(stage, per_device_train_batch_size=size, gradient_accumulation_steps=accumulation)
        trainer.train()
        found.append(dict(trainer.model.named_parameters()))
    whole, parts = found
    before = dict(shared_model.named_parameters())
    assert {name for name in whole if not torch.equal(whole[name], before[name])} == set(trainer.trained)
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=2e-6, rtol=0, msg=lambda text, n=name: f"{n}: {text}")


def test_lora_sits_on_the_language_models_attention_only(build_trainer):
    """`q_proj` alone would match the vision tower as well."""
    stage = Stage(name="check", train=["lora"], losses={"letters": 1.0}, lora=LORA)
    trainer = build_trainer(stage)
    adapted = {name.split(".lora_")[0] for name in trainer.trained}
    layers = [f"backbone.model.language_model.layers.{i}.self_attn" for i in range(2)]
    assert adapted == {f"{layer}.{part}_proj" for layer in layers for part in "qkvo"}
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    trainer.train()
    after = trainer.model.state_dict()
    assert {name for name in after if not torch.equal(after[name], before[name])} == set(trainer.trained)


def test_a_merged_stage_computes_what_the_adapted_model_did(build_trainer, processor, rows, tmp_path, capsys):
    """`hfvla merge` on the LoRA stage of the recipes: a plain checkpoint, loaded as any other."""
    trainer = build_trainer(Stage(name="lora", train=["lora"], losses={"letters": 1.0}, lora=LORA))
    trainer.train()
    trained = trainer.model.eval()
    assert any("lora_B" in name and value.abs().sum() > 0 for name, value in trained.state_dict().items())
    save_and_audit(trainer, tmp_path / "stage")
    processor.save_pretrained(tmp_path / "stage")
    with pytest.raises(SystemExit) as ended:
        main(["merge", str(tmp_path / "stage"), "--output", str(tmp_path / "plain"), "--json"])
    assert not ended.value.code
    printed = capsys.readouterr().out
    summary = json.loads(printed[printed.index("{\n") :])
    assert summary["family"] == "internvl_video_qa" and summary["adapters"] == ["default"]
    assert summary["adapter_parameters"] == sum(
        value.numel() for name, value in trained.named_parameters() if "lora_" in name
    )
    assert not (tmp_path / "plain/adapter").exists()
    merged = FAMILY.load("model").from_pretrained(tmp_path / "plain").eval()
    assert not any("lora" in name for name in merged.state_dict())
    read = FAMILY.load("processor").from_pretrained(tmp_path / "plain")
    batch = FAMILY.load("collator")(read, merged.config)([dict(row) for row in rows])
    with torch.inference_mode():
        expected, found = (model(**batch).letter_logits for model in (trained, merged))
        plain = shared_before(trainer, batch)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    assert (found - plain)[torch.isfinite(plain)].abs().max() > 1e-3  # the adapters do something


def shared_before(trainer, batch):
    """Letter logits of the same model with its adapters turned off."""
    scale = {}
    for name, value in trainer.model.named_parameters():
        if "lora_B" in name:
            scale[name] = value.clone()
            value.zero_()
    found = trainer.model(**batch).letter_logits
    for name, value in trainer.model.named_parameters():
        if name in scale:
            value.copy_(scale[name])
    return found


def test_a_stage_of_words_alone_is_evaluated(build_trainer):
    trainer = build_trainer(Stage(name="check", train=["language"], losses={"words": 1.0}))
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_loss"] == pytest.approx(metrics["eval_loss_words"]) and "eval_accuracy" not in metrics


def test_learning_by_heart(build_trainer, rows):
    stage = Stage(name="check", train=["vision", "projector", "language"], losses={"letters": 1.0, "words": 0.5})
    trainer = build_trainer(stage, EpochRows(rows, 0), max_steps=60, learning_rate=5e-3, warmup_steps=0.1)
    trainer.model.config.shuffle_choices = False
    trainer.train()
    metrics = trainer.evaluate()
    assert metrics["eval_accuracy"] == 1.0 and metrics["eval_loss_letters"] < 0.3 and metrics["eval_loss_words"] < 2

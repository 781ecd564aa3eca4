"""StagedTrainer on a model that can be followed by hand."""

import json

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from hfvla.errors import DataError, RecipeError, TrainingError
from hfvla.family import ParameterGroup
from hfvla.recipe import Stage
from hfvla.training.stage.groups import expand_group
from hfvla.training.trainer.term_names import check_first_terms

from ..toy import GROUPS, build_model, build_rows, build_trainer, changed, collate, snapshot

IN_ORDER = {"train_sampling_strategy": "sequential"}


def lines(trainer) -> list[dict]:
    """Return the log lines of training steps."""
    return [line for line in trainer.state.log_history if "loss" in line]


# ---- what moves --------------------------------------------------------------------------------------------------


def test_only_the_stages_groups_move(tmp_path):
    trainer = build_trainer(tmp_path, train=["head", "blocks.last(1)"], losses={"fit": 1.0, "level": 1.0})
    before = snapshot(trainer.model)
    trainer.train()
    expected = expand_group(trainer.model, GROUPS, "head") + expand_group(trainer.model, GROUPS, "blocks.last(1)")
    assert changed(trainer.model, before) == set(expected)


def test_learning_rate_of_each_group_is_in_the_optimizer(tmp_path):
    args = {"learning_rate": 1e-3, "weight_decay": 0.1, "lr_scheduler_type": "constant"}
    trainer = build_trainer(
        tmp_path,
        train=["body", "head", "blocks.last(1)"],
        learning_rates={"head": 5e-2, "blocks.last(1)": 7e-3},
        losses={"fit": 1.0, "level": 1.0},
        args=args,
    )
    trainer.train()
    rates, decays = {}, {}
    names = {id(parameter): name for name, parameter in trainer.model.named_parameters()}
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            rates[names[id(parameter)]], decays[names[id(parameter)]] = group["lr"], group["weight_decay"]
    assert rates["head.weight"] == rates["head.scale"] == 5e-2
    assert rates["blocks.2.weight"] == rates["blocks.2.bias"] == 7e-3
    assert rates["blocks.0.weight"] == rates["backbone.1.weight"] == 1e-3
    assert set(rates) == set(names.values())
    assert decays["blocks.0.weight"] == 0.1 and decays["blocks.0.bias"] == 0.0
    logged = lines(trainer)[-1]
    assert logged["first/learning_rate_head"] == 5e-2 and logged["first/learning_rate_body"] == 1e-3
    assert trainer.learning_rates() == {"body": 1e-3, "head": 5e-2, "blocks.last(1)": 7e-3}
    assert {row.group: row.learning_rate for row in trainer.trainable_table()}["head"] == 5e-2


def test_learning_rate_really_steps(tmp_path):
    # Adam's first step is its learning rate (epsilon aside), whatever the gradient
    args = {"max_steps": 1, "lr_scheduler_type": "constant", "adam_epsilon": 1e-12}
    trainer = build_trainer(tmp_path, losses={"level": 1.0}, learning_rates={"head": 0.25}, args=args)
    trainer.train()
    assert trainer.model.head.scale.item() == pytest.approx(0.75, abs=1e-5)


def test_frozen_parts_run_in_eval_mode(tmp_path):
    # The same batch twice with no learning: frozen, dropout is off and the loss repeats; training, it does not.
    args = {"per_device_train_batch_size": 8, "learning_rate": 1e-12}
    frozen = build_trainer(tmp_path, train=["head"], args=args)
    statistics = snapshot(frozen.model.backbone)
    frozen.train()
    first, second = (line["first/loss_fit"] for line in lines(frozen))
    assert first == pytest.approx(second, abs=1e-6)
    assert not changed(frozen.model.backbone, statistics)  # batch-norm statistics do not drift

    moving = build_trainer(tmp_path, train=["backbone"], args=args)
    moving.train()
    first, second = (line["first/loss_fit"] for line in lines(moving))
    assert abs(first - second) > 1e-4
    assert {"1.running_mean", "1.running_var", "1.num_batches_tracked"} <= changed(moving.model.backbone, statistics)


def test_frozen_parts_stay_in_eval_mode_after_an_evaluation(tmp_path):
    trainer = build_trainer(
        tmp_path, args={"eval_strategy": "steps", "eval_steps": 1}, extra={"eval_dataset": build_rows(4)}
    )
    statistics = snapshot(trainer.model.backbone)
    trainer.train()
    assert not changed(trainer.model.backbone, statistics)


def test_eight_steps_of_one_are_one_step_of_eight(tmp_path):
    def with_labels(rows):  # where a batch has labels, the Trainer counts their items for losses that are sums
        return {**collate(rows), "labels": torch.zeros(len(rows))}

    found = []
    for size, accumulation in ((8, 1), (1, 8)):
        args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 3}
        args |= {"learning_rate": 1e-2, "adam_epsilon": 1e-4}
        trainer = build_trainer(
            tmp_path,
            train=["head", "blocks"],
            losses={"fit": 1.0, "level": 0.5},
            rows=build_rows(16),
            args=args,
            extra={"data_collator": with_labels},
        )
        before = snapshot(trainer.model)
        trainer.train()
        assert len(changed(trainer.model, before)) == 9
        found.append((snapshot(trainer.model), [line["loss"] for line in lines(trainer)]))
    (whole, whole_losses), (parts, parts_losses) = found
    assert parts_losses == pytest.approx(whole_losses, abs=2e-4)  # logged with four decimals
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-6, rtol=0)


# ---- losses and logs ---------------------------------------------------------------------------------------------


def test_terms_are_logged_as_averages_over_micro_batches(tmp_path):
    # value is 0..7 in order, batches of 2, 4 to a step; scale is still 1, so that "level" is the mean value.
    # Step 1 sees 0..7: level 3.5. Rare rows 1, 2 and 6: batches (0,1) give 1, (2,3) give 2, (6,7) give 6: mean 3.
    args = {"per_device_train_batch_size": 2, "gradient_accumulation_steps": 4, "max_steps": 1, **IN_ORDER}
    losses = {"fit": 0.0, "level": 2.0, "rare": 0.5}
    trainer = build_trainer(
        tmp_path,
        train=["head"],
        losses=losses,
        rows=build_rows(8, rare=(1, 2, 6)),
        args={**args, "learning_rate": 1e-9},
    )
    trainer.train()
    (line,) = lines(trainer)
    assert line["first/loss_level"] == pytest.approx(3.5) and line["first/loss_rare"] == pytest.approx(3.0)
    assert (line["first/weight_level"], line["first/weight_rare"], line["first/weight_fit"]) == (2.0, 0.5, 0.0)
    # Loss: mean over the four micro-batches of 2 * level + 0.5 * rare: 2 * 3.5 + 0.5 * (1 + 2 + 0 + 6) / 4 = 8.125
    assert line["loss"] == pytest.approx(8.125, abs=1e-3)


def test_unequal_batches_count_by_samples(tmp_path):
    # 5 rows in batches of 4 and 1: level (4 * 1.5 + 1 * 4) / 5 = 2
    args = {"gradient_accumulation_steps": 2, "max_steps": 1, "learning_rate": 1e-9, **IN_ORDER}
    trainer = build_trainer(tmp_path, losses={"level": 1.0}, rows=build_rows(5), args=args)
    trainer.train()
    assert lines(trainer)[0]["first/loss_level"] == pytest.approx(2.0)


def test_each_line_starts_a_new_average(tmp_path):
    trainer = build_trainer(tmp_path, losses={"level": 1.0}, args={"learning_rate": 1e-9, **IN_ORDER})
    trainer.train()
    # rows 0..3 then 4..7
    assert [line["first/loss_level"] for line in lines(trainer)] == pytest.approx([1.5, 5.5])


def test_weight_zero_is_watched_but_not_trained(tmp_path):
    trainer = build_trainer(tmp_path, train=["head"], losses={"fit": 1.0, "level": 0.0}, args={"max_steps": 3})
    before = snapshot(trainer.model)
    trainer.train()
    assert changed(trainer.model, before) == {"head.weight", "head.bias"}  # scale is in "level" alone
    assert all(line["first/weight_level"] == 0.0 and "first/loss_level" in line for line in lines(trainer))
    assert all("first/loss_rare" not in line for line in lines(trainer))  # not asked for


def test_evaluation_logs_every_term(tmp_path):
    trainer = build_trainer(
        tmp_path, losses={"fit": 1.0, "level": 0.5, "rare": 4.0}, extra={"eval_dataset": build_rows(8, rare=(5,))}
    )
    metrics = trainer.evaluate()
    # batches of 8: level 3.5; the rare row has value 5; weight 0.5 * 3.5 + 4 * 5 = 21.75 besides "fit"
    assert metrics["eval_loss_level"] == pytest.approx(3.5) and metrics["eval_loss_rare"] == pytest.approx(5.0)
    assert metrics["eval_loss"] == pytest.approx(metrics["eval_loss_fit"] + 21.75, abs=1e-4)
    assert trainer.evaluate()["eval_loss_level"] == pytest.approx(3.5)  # starts anew


def test_evaluation_batches_without_a_term_do_not_count_as_zero(tmp_path):
    args = {"per_device_eval_batch_size": 4}
    trainer = build_trainer(
        tmp_path, losses={"rare": 2.0}, args=args, extra={"eval_dataset": build_rows(8, rare=(6,))}
    )
    metrics = trainer.evaluate()
    assert metrics["eval_loss_rare"] == pytest.approx(6.0) and metrics["eval_loss"] == pytest.approx(12.0)


def test_terms_are_evaluated_without_the_labels_of_the_metrics(tmp_path):
    def never(prediction):
        raise AssertionError("there are no labels to score")

    trainer = build_trainer(
        tmp_path,
        losses={"level": 1.0},
        args={"label_names": ["robots"]},
        extra={"eval_dataset": build_rows(8), "compute_metrics": never},
    )
    metrics = trainer.evaluate()
    assert metrics["eval_loss_level"] == metrics["eval_loss"] == pytest.approx(3.5)


# ---- refusals ----------------------------------------------------------------------------------------------------


def test_a_term_that_the_model_never_gives_is_an_error(tmp_path):
    """Also where the stage ends before an epoch does: nothing was trained."""
    trainer = build_trainer(tmp_path, losses={"ghost": 1.0}, rows=build_rows(16))
    with pytest.raises(DataError, match=r"stage 'first': no batch of an epoch gave.*'ghost'; got \['fit', 'level'\]"):
        trainer.train()


@pytest.mark.parametrize(("written", "meant"), [("levle", "level"), ("Fit", "fit"), ("level_", "level")])
def test_a_misspelled_term_is_found_in_the_first_batch(tmp_path, written, meant):
    trainer = build_trainer(tmp_path, losses={written: 1.0}, rows=build_rows(64))
    with pytest.raises(TrainingError, match=f"no loss term '{written}'. Did you mean '{meant}'"):
        trainer.train()
    assert trainer.state.global_step == 0


def test_a_term_that_may_come_later_is_said_and_waited_for(tmp_path, caplog):
    args = {"max_steps": 2, "train_sampling_strategy": "sequential"}
    losses = {"fit": 1.0, "rare": 1.0}
    trainer = build_trainer(tmp_path, losses=losses, rows=build_rows(16, rare=(5,)), args=args)
    with caplog.at_level("WARNING", logger="hfvla"):
        trainer.train()
    told = [record.getMessage() for record in caplog.records if "first batch gives no 'rare'" in record.getMessage()]
    assert len(told) == 1 and "fit, level" in told[0] and trainer.state.global_step == 2


def test_names_of_one_letter_of_difference_at_the_end_may_be_two():
    stage = Stage(name="one", train=["head"], losses={"itm": 1.0})
    check_first_terms(stage, ["itc"], own_loss=False)
    with pytest.raises(TrainingError, match="has no loss term 'itm': its output has no `loss_terms`"):
        check_first_terms(stage, ["loss"], own_loss=True)


@pytest.mark.parametrize("order", ["random", "sequential"])
def test_batches_without_the_stages_terms_are_counted(tmp_path, order):
    # rows 1 and 9 of 16 are rare, four to a batch; in order, batches 1 and 3 of each epoch have none
    args = {"max_steps": 8, "train_sampling_strategy": order}
    trainer = build_trainer(tmp_path, losses={"rare": 1.0}, rows=build_rows(16, rare=(1, 9)), args=args)
    before = snapshot(trainer.model)
    trainer.train()
    assert changed(trainer.model, before) == {"head.scale"}
    empty = [line.get("first/batches_without_a_term", 0) for line in lines(trainer)]
    assert [line["loss"] == 0 for line in lines(trainer)] == [bool(count) for count in empty]
    assert sum(empty) == (4 if order == "sequential" else sum(empty)) and 4 <= sum(empty) <= 6


def test_a_group_that_does_not_exist_is_an_error(tmp_path):
    with pytest.raises(RecipeError, match="no parameter group 'haed'. Did you mean 'head'"):
        build_trainer(tmp_path, train=["haed"])


@pytest.mark.parametrize("logging_steps", [1, 50])
def test_a_term_missing_for_a_whole_epoch_is_an_error(tmp_path, logging_steps):
    args = {"max_steps": 4, "logging_steps": logging_steps}  # two epochs; also when no step is logged
    trainer = build_trainer(tmp_path, losses={"fit": 1.0, "rare": 1.0}, args=args)
    with pytest.raises(DataError, match=r"stage 'first': .*the loss term 'rare'.*\['fit'\]"):
        trainer.train()


def test_a_term_that_comes_late_in_the_epoch_is_fine(tmp_path):
    args = {"max_steps": 4, **IN_ORDER}
    trainer = build_trainer(tmp_path, losses={"rare": 1.0, "fit": 1.0}, rows=build_rows(8, rare=(7,)), args=args)
    trainer.train()
    assert trainer.state.global_step == 4 and any("first/loss_rare" in line for line in lines(trainer))


def test_a_resumed_run_gives_a_rare_term_a_whole_epoch(tmp_path):
    # Four steps an epoch, the rare row in the first; resumed after step 2 of epoch 2, none of the rest has it.
    options = {"losses": {"rare": 1.0, "fit": 1.0}, "rows": build_rows(16, rare=(0,))}
    args = {"max_steps": 8, "save_strategy": "steps", "save_steps": 6, **IN_ORDER}
    build_trainer(tmp_path, args=args, **options).train()
    resumed = build_trainer(tmp_path, args=args, **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-6"))
    assert resumed.state.global_step == 8 and "first/loss_rare" not in lines(resumed)[-1]


# ---- any transformers model --------------------------------------------------------------------------------------


def test_a_plain_transformers_model_trains_in_two_stages(tmp_path):
    config = BertConfig(
        vocab_size=20, hidden_size=8, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16, num_labels=3
    )
    torch.manual_seed(0)
    model = BertForSequenceClassification(config)
    groups = {
        "encoder": ParameterGroup(("bert.encoder.*",), layers="bert.encoder.layer"),
        "classifier": ParameterGroup(("classifier.*", "bert.pooler.*")),
    }
    rows = [{"input_ids": [1 + i % 7, 5, 6, i], "labels": i % 3} for i in range(8)]
    args = {"label_names": ["labels"], "learning_rate": 1e-2}
    extra = {"groups": groups, "data_collator": collate, "eval_dataset": rows}
    stages = [
        ("head", ["classifier"], {"classifier.weight", "classifier.bias", "bert.pooler.dense.weight"}),
        ("last_layer", ["encoder.last(1)"], {f"bert.encoder.layer.1.{n}" for n in ("output.dense.weight",)}),
    ]
    for name, train, moved in stages:
        before = snapshot(model)
        options = {"name": name, "train": train, "losses": {"loss": 1.0}, "args": dict(args), "extra": dict(extra)}
        trainer = build_trainer(tmp_path, model, rows, **options)
        trainer.train()
        assert moved <= changed(model, before) == set(trainer.trained)
        line = lines(trainer)[0]
        assert line[f"{name}/loss_loss"] == pytest.approx(line["loss"], abs=1e-3)
        assert trainer.evaluate()["eval_loss"] == pytest.approx(trainer.evaluate()["eval_loss_loss"])
    assert json.dumps(trainer.state.log_history)


def test_the_model_of_a_stage_keeps_what_another_stage_froze(tmp_path):
    model = build_model()
    build_trainer(tmp_path, model, train=["head"])
    trainer = build_trainer(tmp_path, model, train=["blocks"])
    before = snapshot(model)
    trainer.train()
    assert changed(model, before) == set(expand_group(model, GROUPS, "blocks"))

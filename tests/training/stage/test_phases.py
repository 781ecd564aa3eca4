"""Phases in one process: what trains when, with which rate and weights, and what a resumed run ends with."""

import json
import math

import pytest
import torch
from transformers import TrainerCallback

from hfvla.errors import RecipeError
from hfvla.recipe import LossSchedule, Stage
from hfvla.training.run.run import run_recipe
from hfvla.training.run.tables import trainable_text
from hfvla.training.stage.phases import Timeline, final_weights, loss_terms, peak_weights, weight_at

from .. import phases_worker as tower
from ..recipes import build_recipe, selection_stage, tasks, write_tasks
from ..toy import build_trainer, changed, snapshot

IN_ORDER = {"train_sampling_strategy": "sequential"}
QUIET = {"save_strategy": "no", "logging_strategy": "no"}


def stage(**changes) -> Stage:
    return Stage(**{"name": "s", "train": ["head"], "losses": {"fit": 1.0}, **changes})


# ---- weights and steps -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "values"),
    [
        # weight after 0, 1, 1.5, 2, 3 epochs and at the end
        ({"kind": "linear", "start": 0.2, "end": 1.0, "epochs": [1, 2]}, [0.2, 0.2, 0.6, 1.0, 1.0, 1.0]),
        ({"kind": "linear", "start": 1.0, "end": 0.0, "epochs": [0, 2]}, [1.0, 0.5, 0.25, 0.0, 0.0, 0.0]),
        # (1 - cos(pi / 4)) / 2 at a quarter of the ramp
        ({"kind": "cosine", "end": 2.0, "epochs": [1, 3]}, [0, 0, 1 - math.cos(math.pi / 4), 1.0, 2.0, 2.0]),
        ({"kind": "table", "values": [0.5, 0.1]}, [0.5, 0.1, 0.1, 0.1, 0.1, 0.1]),
    ],
)
def test_a_schedule_by_epoch(schedule, values):
    found = [weight_at(LossSchedule(**schedule), epoch) for epoch in (0, 1, 1.5, 2, 3, math.inf)]
    assert found == pytest.approx(values)
    assert weight_at(0.3, 7) == 0.3


def test_phases_change_weights_and_a_schedule_counts_from_the_start_of_the_stage():
    ramp = {"kind": "linear", "start": 0.0, "end": 4.0, "epochs": [0, 4]}
    plan = stage(phases=[{"epoch": 2, "losses": {"level": ramp}}, {"step": 30, "losses": {"fit": 0.5}}])
    line = Timeline.of(plan, steps_per_epoch=10, max_steps=40)
    assert line.starts == (0, 20, 30) and loss_terms(plan) == ("fit", "level")
    assert line.weights_at(19) == {"fit": 1.0, "level": 0.0}
    assert line.weights_at(20) == {"fit": 1.0, "level": 2.0}
    assert line.weights_at(35) == {"fit": 0.5, "level": 3.5}
    assert final_weights(plan) == {"fit": 0.5, "level": 4.0} == {**peak_weights(plan), "fit": 0.5}
    assert final_weights(plan, epochs=3) == {"fit": 0.5, "level": 3.0} and peak_weights(plan)["fit"] == 1.0


def test_a_phase_may_begin_within_an_epoch():
    line = Timeline.of(stage(phases=[{"epoch": 1.25, "add": ["body"]}]), steps_per_epoch=10, max_steps=40)
    assert line.starts == (0, 12) and [line.phase_at(step) for step in (0, 11, 12, 39)] == [0, 0, 1, 1]
    assert [line.joining_at(step) for step in (0, 11, 12, 13)] == [[], [], [1], []]


@pytest.mark.parametrize(
    ("phases", "message"),
    [
        ([{"step": 40, "add": ["body"]}], r"stage 's', phases\[0\]: the phase of step 40 never begins; got 'step 40'"),
        ([{"epoch": 4, "add": ["body"]}], r"expected a step before 40, the stage's last; an epoch is 10 steps"),
        ([{"step": 25, "losses": {"fit": 2.0}}, {"epoch": 2, "add": ["body"]}], "got 'step 20 after step 25'"),
    ],
)
def test_phases_that_do_not_fit_the_steps(phases, message):
    with pytest.raises(RecipeError, match=message):
        Timeline.of(stage(phases=phases), steps_per_epoch=10, max_steps=40)


# ---- what moves --------------------------------------------------------------------------------------------------


class Watch(TrainerCallback):
    """Notes after each step which parts have moved since the one before."""

    def __init__(self, model):
        self.model, self.before, self.moved = model, snapshot(model), []

    def on_step_end(self, args, state, control, **kwargs):
        self.moved.append({name.rsplit(".", 1)[0] for name in changed(self.model, self.before)})
        self.before = snapshot(self.model)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A run of 12 steps with checkpoints each third one: trainer, what moved at each step, final weights."""
    trainer = tower.build_trainer(tmp_path_factory.mktemp("phases"))
    watch = Watch(trainer.model)
    trainer.add_callback(watch)
    trainer.train()
    return trainer, watch.moved, snapshot(trainer.model)


def test_a_part_moves_from_its_step_on(whole):
    expected = [{part for part, join in tower.JOINS.items() if join <= step} for step in range(tower.STEPS)]
    assert whole[1] == expected


def test_the_optimizer_goes_on_for_what_already_trained(whole):
    trainer = whole[0]
    taken = {}
    for name, parameter in trainer.model.named_parameters():
        state = trainer.optimizer.state.get(parameter)
        taken[name.rsplit(".", 1)[0]] = int(state["step"]) if state else None
    # of 12 steps: head all, blocks.1 from step 4 on, embed from step 6 on
    assert taken == {"head": 12, "blocks.1": 8, "embed": 6, "blocks.0": None}
    assert [group["phase"] for group in trainer.optimizer.param_groups] == [0, 0, 1, 1, 2, 2]


def by_hand(model, rows) -> dict:
    """The same twelve steps as a plain loop: the part that joins is a further group of the same optimizer."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    optimizer, rates = None, []
    for step in range(tower.STEPS):
        for part, join in tower.JOINS.items():
            if join == step:
                module = model.get_submodule(part).requires_grad_(True)
                rate = 2e-3 if part == "embed" else 1e-2
                named = module.named_parameters()
                groups = [{"params": [p], "weight_decay": 0.1 if p.ndim > 1 else 0.0} for _, p in named]
                rates += [rate] * len(groups)
                if optimizer is None:
                    optimizer = torch.optim.AdamW(groups, eps=1e-4)
                else:
                    for group in groups:
                        optimizer.add_param_group(group)
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * 0.5 * (1 + math.cos(math.pi * step / tower.STEPS))
        batch = tower.collate([rows[(4 * step + index) % 16] for index in range(4)])
        terms = model(**batch).loss_terms
        # fit: 1, from step 4 on 2; size: from 0 to 0.5 in the first two of three epochs
        loss = (1.0 if step < 4 else 2.0) * terms["fit"] + 0.5 * min(step / 8, 1.0) * terms["size"]
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
    return snapshot(model)


@pytest.mark.parametrize("accumulation", [1, 2])
def test_it_equals_a_loop_written_by_hand(tmp_path, accumulation):
    sizes = {"per_device_train_batch_size": 4 // accumulation, "gradient_accumulation_steps": accumulation}
    trainer = tower.build_trainer(tmp_path, **QUIET, **IN_ORDER, **sizes)
    trainer.train()
    expected = by_hand(tower.build_tower(), tower.build_rows())
    found = snapshot(trainer.model)
    for name, value in expected.items():
        torch.testing.assert_close(
            found[name], value, atol=1e-6, rtol=0, msg=lambda text, name=name: f"{name}: {text}"
        )


@pytest.mark.parametrize("step", [3, 6, 9])
def test_resuming_before_at_and_past_a_boundary_is_bit_equal(whole, step):
    trainer, _, expected = whole
    folder = trainer.args.output_dir
    resumed = tower.build_trainer(folder, save_strategy="no")
    resumed.train(resume_from_checkpoint=f"{folder}/checkpoint-{step}")
    assert resumed.state.global_step == tower.STEPS and not changed(resumed.model, expected)


def test_frozen_modules_follow_the_phase(tmp_path):
    # The backbone's batch norm learns its statistics only in train mode: four steps, of which it joins in the last two
    trainer = build_trainer(
        tmp_path, args={"max_steps": 4}, phases=[{"step": 2, "add": ["backbone"]}], losses={"fit": 1.0}
    )
    trainer.train()
    assert trainer.model.backbone[1].num_batches_tracked == 2


def test_training_again_begins_with_the_first_phase(tmp_path):
    trainer = tower.build_trainer(tmp_path, **QUIET)
    trainer.train()
    watch = Watch(trainer.model)
    trainer.add_callback(watch)
    trainer.train()
    assert watch.moved[0] == {"head"} and watch.moved[-1] == set(tower.JOINS)


# ---- what is shown -----------------------------------------------------------------------------------------------


def test_each_line_of_the_log_has_phase_weights_and_rates(whole):
    lines = [line for line in whole[0].state.log_history if "loss" in line]
    assert [line["tower/phase"] for line in lines] == [0] * 4 + [1] * 2 + [2] * 6
    assert [line["tower/weight_fit"] for line in lines] == [1.0] * 4 + [2.0] * 8
    assert [line["tower/weight_size"] for line in lines] == pytest.approx(
        [0.0625 * min(step, 8) for step in range(12)]
    )
    for line in lines:
        terms = (line["tower/loss_fit"], line["tower/loss_size"])
        assert line["loss"] == pytest.approx(
            terms[0] * line["tower/weight_fit"] + terms[1] * line["tower/weight_size"], abs=1e-5
        )
    cosine = [0.5 * (1 + math.cos(math.pi * step / 12)) for step in range(12)]
    for entry, peak, join in (("head", 1e-2, 0), ("blocks.last(1)", 1e-2, 4), ("embed", 2e-3, 6)):
        rates = [line[f"tower/learning_rate_{entry}"] for line in lines]
        assert rates == pytest.approx([peak * cosine[step] if step >= join else 0.0 for step in range(12)])


def test_an_evaluation_weighs_with_the_last_weights(whole):
    scores = whole[0].evaluate()
    assert scores["eval_loss"] == pytest.approx(2.0 * scores["eval_loss_fit"] + 0.5 * scores["eval_loss_size"])


def test_the_table_has_a_part_for_each_phase(whole):
    rows = whole[0].trainable_table()
    shown = {(row.phase, row.group): (row.trainable, row.learning_rate) for row in rows}
    # embed: 3*16+16 = 64; a block: 16*16+16 = 272; head: 16+1+1 = 18
    assert shown[0, "head"] == (18, 1e-2) and shown[0, "total"] == (18, 1e-2)
    assert shown[0, "blocks"] == (0, 0.0) and shown[1, "blocks"] == (272, 1e-2)
    assert shown[1, "embed"] == (0, 0.0) and shown[2, "embed"] == (64, 2e-3)
    assert rows[-1].phase == 2 and rows[-1].trainable == 18 + 272 + 64
    text = [line.strip() for line in trainable_text(whole[0].stage, rows).splitlines()]
    for title in ("what trains", "what trains from epoch 1 on (phase 1)", "what trains from step 6 on (phase 2)"):
        assert f"stage 'tower': {title}" in text


# ---- loss weights that begin at 0 ----------------------------------------------------------------------------------


def test_a_ramp_from_zero_trains_once_it_counts(tmp_path):
    ramp = {"kind": "linear", "start": 0.0, "end": 1.0, "epochs": [0, 1]}
    trainer = build_trainer(tmp_path, losses={"level": ramp}, args={"max_steps": 2, "weight_decay": 0.0})
    before = snapshot(trainer.model)
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert [line["first/weight_level"] for line in lines] == [0.0, 0.5] and lines[0]["grad_norm"] == 0
    assert changed(trainer.model, before) == {"head.scale"}


def test_a_term_that_a_phase_adds_is_asked_for_from_the_start(tmp_path):
    phases = [{"step": 1, "losses": {"level": 2.0}}]
    trainer = build_trainer(tmp_path, phases=phases, args={"max_steps": 2})
    trainer.train()
    lines = [line for line in trainer.state.log_history if "loss" in line]
    assert [line["first/weight_level"] for line in lines] == [0.0, 2.0] and "first/loss_level" in lines[0]


# ---- refusals ----------------------------------------------------------------------------------------------------


def test_a_phase_that_adds_what_trains_already(tmp_path):
    with pytest.raises(RecipeError, match=r"stage 'first', phases\[0\]: 'blocks' trains already; .*joined with body"):
        build_trainer(tmp_path, train=["body"], phases=[{"step": 1, "add": ["blocks"]}])


def test_a_wider_part_that_joins_takes_only_what_is_left(tmp_path):
    trainer = build_trainer(tmp_path, train=["blocks.last(1)"], phases=[{"step": 1, "add": ["body"]}])
    assert trainer.trained["blocks.2.weight"] == "blocks.last(1)" and trainer.trained["blocks.1.weight"] == "body"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"ddp_find_unused_parameters": False}, "stage 'first': .*got 'ddp_find_unused_parameters false'"),
        ({"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "steps"}, "got 'ReduceLROnPlateau'"),
    ],
)
def test_settings_under_which_no_part_can_join(tmp_path, args, message):
    with pytest.raises(RecipeError, match=message):
        build_trainer(
            tmp_path, phases=[{"step": 1, "add": ["body"]}], args=args, extra={"eval_dataset": tower.build_rows()}
        ).train()


# ---- a whole run ---------------------------------------------------------------------------------------------------


def test_a_run_with_phases_keeps_table_and_last_weights(tmp_path):
    path = write_tasks(tmp_path / "tasks.json", tasks(24))
    ramp = {"kind": "linear", "start": 0.0, "end": 0.4, "epochs": [0.0, 4.0]}
    phases = [{"epoch": 1.0, "add": ["language.last(1)"], "losses": {"consistency": ramp, "selection": 0.5}}]
    plan = selection_stage(train=["selection_head"], losses={"selection": 1.0, "reasoning": 1.0}, phases=phases)
    run_recipe(build_recipe(path, tmp_path / "run", [plan]))
    rows = json.loads((tmp_path / "run/selection/trainable.json").read_text())
    trained = {row["phase"]: row["trainable"] for row in rows if row["group"] == "total"}
    assert trained[1] > trained[0] > 0 and rows[-1]["phase"] == 1
    summary = json.loads((tmp_path / "run/selection/stage.json").read_text())
    assert summary["trainable_parameters"] == trained[1] and summary["steps"] == 6
    config = json.loads((tmp_path / "run/selection/config.json").read_text())
    # two of the ramp's four epochs: 0.2
    assert config["loss_weights"] == pytest.approx({"selection": 0.5, "reasoning": 1.0, "consistency": 0.2})

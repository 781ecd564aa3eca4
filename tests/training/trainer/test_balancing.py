"""Ways of balancing loss terms, in training: on a model whose two terms pull a shared layer apart."""

import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors import safe_open
from transformers import TrainerCallback

from hfvla.errors import CheckpointError, DataError, RecipeError
from hfvla.training.trainer.balance.balancer import BALANCER_FILE
from hfvla.training.trainer.balance.gradients import GradNorm
from hfvla.training.trainer.balance.terms import TermGradients, refuse_set_up

from ..two_terms import DISTRIBUTED, build_pull, build_puller, build_rows, collate, train_distributed

KINDS = ("uncertainty", "gradnorm", "pcgrad")
PLAIN_SGD = {
    "optim": "sgd",
    "learning_rate": 0.1,
    "lr_scheduler_type": "constant",
    "max_grad_norm": 0.0,
    "max_steps": 1,
}
IN_ORDER = {"train_sampling_strategy": "sequential"}


def lines(trainer) -> list[dict]:
    return [line for line in trainer.state.log_history if "loss" in line]


def gradients_by_hand(batch, name):
    """Return the gradient of one term, by parameter name, of a fresh model; absent where the term does not reach."""
    model = build_pull()
    model(**batch).loss_terms[name].backward()
    return {key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None}


def first_batch():
    return collate(build_rows().select(range(8)).to_list())


# ---- what a step is ------------------------------------------------------------------------------------------------


def test_pcgrad_projects_the_shared_layer_and_leaves_the_heads(tmp_path):
    trainer = build_puller(tmp_path, loss_weighting="pcgrad", args={**PLAIN_SGD, **IN_ORDER})
    before = build_pull().state_dict()
    trainer.train()

    up, down = (gradients_by_hand(first_batch(), name) for name in ("up", "down"))
    a, b = (torch.cat([g["shared.weight"].flatten(), g["shared.bias"]]) for g in (up, down))
    b = 0.5 * b
    assert a @ b < 0
    projected = (a - (a @ b) / (b @ b) * b) + (b - (a @ b) / (a @ a) * a)
    expected = {
        "shared.weight": projected[:12].view(4, 3),
        "shared.bias": projected[12:],
        **{name: up[name] for name in ("up_head.weight", "up_head.bias")},
        **{name: 0.5 * down[name] for name in ("down_head.weight", "down_head.bias")},
    }
    for name, gradient in expected.items():
        found = trainer.model.state_dict()[name]
        torch.testing.assert_close(found, before[name] - 0.1 * gradient, atol=1e-6, rtol=0)
    line = lines(trainer)[0]
    assert line["pull/balance_up"] == pytest.approx((1 - (a @ b) / (a @ a)).item(), abs=1e-5)
    assert line["pull/balance_down"] == pytest.approx(0.5 * (1 - (a @ b) / (b @ b)).item(), abs=1e-5)
    assert line["pull/weight_down"] == 0.5


def test_pcgrad_is_the_plain_sum_where_terms_agree(tmp_path):
    found = []
    for weighting in ("fixed", "pcgrad"):
        model = build_pull()
        with torch.no_grad():
            model.down_head.weight.neg_()  # minus three times the target through the negative head: both pull alike
        trainer = build_puller(tmp_path, model=model, loss_weighting=weighting)
        trainer.train()
        found.append((model.state_dict(), [line["loss"] for line in lines(trainer)]))
    (fixed, fixed_losses), (projected, losses) = found
    assert losses == pytest.approx(fixed_losses, abs=2e-4)
    for name, value in fixed.items():
        torch.testing.assert_close(projected[name], value, atol=1e-6, rtol=0)


def test_gradnorm_starts_from_the_recipes_weights_and_then_evens_the_norms(tmp_path):
    trainer = build_puller(tmp_path, loss_weighting="gradnorm", args={**PLAIN_SGD, **IN_ORDER})
    before = build_pull().state_dict()
    trainer.train()
    up, down = (gradients_by_hand(first_batch(), name) for name in ("up", "down"))
    step = up["shared.weight"] + 0.5 * down["shared.weight"]  # learned weights are 1 in the first step
    torch.testing.assert_close(
        trainer.model.state_dict()["shared.weight"], before["shared.weight"] - 0.1 * step, atol=1e-6, rtol=0
    )
    # first losses give rates of 1, so both norms should be their mean; one step of 0.025 in log w
    norms = [torch.cat([g["shared.weight"].flatten(), g["shared.bias"]]).norm().item() for g in (up, down)]
    mean = sum(norms) / 2
    sides = [1 if norm > mean else -1 for norm in norms]
    raw = torch.tensor([-0.025 * side * norm / mean for side, norm in zip(sides, norms, strict=True)]).exp()
    torch.testing.assert_close(trainer.balancer.learned.float(), 2 * raw / raw.sum(), atol=1e-5, rtol=0)
    assert trainer.balancer.learned.sum().item() == pytest.approx(2)
    assert (trainer.balancer.learned[1] < 1) == (norms[1] > norms[0])


def test_gradnorm_looks_at_shared_parameters_only():
    shared, own = torch.nn.Parameter(torch.ones(1)), torch.nn.Parameter(torch.ones(1))
    gradients = TermGradients(["a", "b", "c"], [shared, own])
    terms = {"a": shared.sum(), "b": 2 * shared.sum() + 100 * own.sum(), "c": 6 * shared.sum()}
    gradients.add(terms, keep_graph=False)
    balancer = GradNorm(["a", "b", "c"], SimpleNamespace(num_processes=1, scaler=None))
    ones = torch.ones(3, dtype=torch.float64)
    assert balancer.decide(gradients, 0.5 * ones, ones, 0).tolist() == [0.5, 0.5, 0.5]
    # norms 1, 2 and 6, mean 3: steps of 0.025 times 1/3, 2/3 and -2
    raw = (0.025 * torch.tensor([1 / 3, 2 / 3, -2.0], dtype=torch.float64)).exp()
    torch.testing.assert_close(balancer.learned, 3 * raw / raw.sum())


def test_gradnorm_uses_what_it_learned(tmp_path):
    trainer = build_puller(tmp_path, loss_weighting="gradnorm", args={"max_steps": 12})
    trainer.train()
    balances = [(line["pull/balance_up"], line["pull/balance_down"]) for line in lines(trainer)]
    assert balances[0] == (1.0, 0.5)
    for up, down in balances:
        assert up + down / 0.5 == pytest.approx(2)
    assert abs(balances[-1][0] - 1) > 0.05
    line = lines(trainer)[-1]
    parts = [line[f"pull/balance_{name}"] * line[f"pull/loss_{name}"] for name in ("up", "down")]
    assert line["loss"] == pytest.approx(sum(parts), abs=2e-4)


def test_uncertainty_moves_log_variances_towards_the_log_of_the_loss(tmp_path):
    trainer = build_puller(tmp_path, loss_weighting="uncertainty", args={"max_steps": 2, **IN_ORDER})
    trainer.train()
    first, second = lines(trainer)
    # every loss is above 1, so every s goes up; Adam's first step is its rate, 0.01: weights are exp(-0.01) of before
    assert first["pull/loss_up"] > 1 and first["pull/loss_down"] > 1
    assert first["pull/balance_up"] == pytest.approx(0.990050, abs=1e-5)
    assert first["pull/balance_down"] == pytest.approx(0.5 * 0.990050, abs=1e-5)
    # the second loss: 1 * (0.990050 * L + 0.01) + 0.5 * (0.990050 * L + 0.01)
    expected = 0.990050 * (second["pull/loss_up"] + 0.5 * second["pull/loss_down"]) + 0.015
    assert second["loss"] == pytest.approx(expected, abs=5e-4)


def test_uncertainty_learns_nothing_from_a_term_of_weight_zero(tmp_path):
    trainer = build_puller(tmp_path, loss_weighting="uncertainty", losses={"up": 1.0, "down": 0.0})
    trainer.train()
    assert trainer.balancer.log_variances[1].item() == 0 and trainer.balancer.log_variances[0].item() > 0.03


@pytest.mark.parametrize("kind", KINDS)
def test_eight_steps_of_one_are_one_step_of_eight(tmp_path, kind):
    found = []
    for size, accumulation in ((8, 1), (1, 8)):
        args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 3}
        trainer = build_puller(tmp_path, loss_weighting=kind, args=args)
        trainer.train()
        found.append((trainer.model.state_dict(), lines(trainer)))
    (whole, whole_lines), (parts, parts_lines) = found
    assert any(abs(line["pull/balance_up"] - 1) > 1e-3 for line in whole_lines)
    for first, second in zip(whole_lines, parts_lines, strict=True):
        for key in ("loss", "pull/balance_up", "pull/balance_down"):
            assert second[key] == pytest.approx(first[key], abs=2e-4), key
    for name, value in whole.items():
        torch.testing.assert_close(parts[name], value, atol=1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_scale_changes_nothing(tmp_path, kind):
    found = []
    for scale in (None, 1024.0):
        trainer = build_puller(tmp_path, loss_weighting=kind, args={"max_grad_norm": 0.0})
        trainer.accelerator.scaler = torch.amp.GradScaler("cpu", init_scale=scale) if scale else None
        trainer.train()
        found.append((trainer.model.state_dict(), trainer.balancer.logs()))
    (plain, plain_balance), (scaled, scaled_balance) = found
    assert trainer.accelerator.scaler.get_scale() == 1024.0 and trainer.optimizer.scaler is trainer.accelerator.scaler
    assert scaled_balance == pytest.approx(plain_balance, rel=1e-5)
    for name, value in plain.items():
        torch.testing.assert_close(scaled[name], value, atol=1e-6, rtol=0)


def test_what_no_term_reaches_does_not_decay(tmp_path):
    args = {"weight_decay": 0.5}
    trainer = build_puller(tmp_path, loss_weighting="pcgrad", train=["shared", "heads", "spare"], args=args)
    before = build_pull().state_dict()
    trainer.train()
    after = trainer.model.state_dict()
    assert torch.equal(after["spare.weight"], before["spare.weight"])
    assert not torch.equal(after["shared.weight"], before["shared.weight"])


def test_a_part_that_joins_is_projected_from_then_on(tmp_path):
    seen = {}

    class Watch(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            seen[state.global_step] = model.shared.weight.detach().clone()

    phases = [{"step": 3, "add": ["shared"]}]
    trainer = build_puller(tmp_path, loss_weighting="pcgrad", train=["heads"], phases=phases, callbacks=[Watch()])
    start = trainer.model.shared.weight.detach().clone()
    trainer.train()
    assert torch.equal(seen[3], start) and not torch.equal(seen[4], start)
    balance = [line["pull/balance_up"] for line in lines(trainer)]
    assert balance[:3] == [1, 1, 1] and min(balance[4:]) > 1  # the fourth batch happens to agree


def test_terms_that_share_nothing_are_told(tmp_path, caplog):
    trainer = build_puller(tmp_path, loss_weighting="gradnorm", train=["heads"])
    trainer.train()
    told = [
        record.message
        for record in caplog.records
        if "no parameter that trains now serves two loss terms" in record.message
    ]
    assert len(told) == 1 and "gradnorm" in told[0]
    assert trainer.balancer.learned.tolist() == [1, 1]


def test_evaluation_weighs_by_the_recipe_alone(tmp_path):
    losses = {}
    for kind in ("fixed", "uncertainty"):
        trainer = build_puller(tmp_path, loss_weighting=kind, evaluated=build_rows(8), args={"learning_rate": 0.0})
        trainer.train()
        losses[kind] = trainer.evaluate()["eval_loss"]
    assert losses["uncertainty"] == losses["fixed"]


# ---- checkpoints ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_resumed_in_the_middle_it_ends_bit_equal(tmp_path, kind):
    args = {"save_strategy": "steps", "save_steps": 3, "max_steps": 7, "gradient_accumulation_steps": 2}
    args |= {"per_device_train_batch_size": 2}
    options = {"loss_weighting": kind, "gradient_report": {"every": 2, "groups": ["shared"]}, "args": args}
    whole = build_puller(tmp_path, model=build_pull(0.3), **options)
    whole.train()
    resumed = build_puller(tmp_path, model=build_pull(0.3), **options)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(resumed.model.state_dict()[name], value), name
    expected, found = whole.balancer.state(), resumed.balancer.state()
    assert all(torch.equal(found[name], value) for name, value in expected.items())
    measured = ("runtime", "per_second", "data_s", "memory_gb")
    histories = [
        [{key: line[key] for key in line if not key.endswith(measured)} for line in trainer.state.log_history]
        for trainer in (whole, resumed)
    ]
    assert histories[0] == histories[1]
    assert (tmp_path / "checkpoint-3" / BALANCER_FILE).is_file() == (kind != "pcgrad")


def test_log_variances_stay_out_of_the_model(tmp_path):
    trainer = build_puller(tmp_path, loss_weighting="uncertainty")
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    with safe_open(tmp_path / "saved" / "model.safetensors", "pt") as file:
        assert set(file.keys()) == set(build_pull().state_dict())


def test_a_checkpoint_of_another_weighting_is_refused(tmp_path):
    saved = build_puller(tmp_path, loss_weighting="gradnorm").balancer
    saved.save(tmp_path)
    with pytest.raises(CheckpointError, match=r"got \('gradnorm', \['up', 'down'\]\); expected \('uncertainty'"):
        build_puller(tmp_path, loss_weighting="uncertainty").balancer.load(tmp_path)
    with pytest.raises(CheckpointError, match=f"{BALANCER_FILE}"):
        build_puller(tmp_path, loss_weighting="gradnorm").balancer.load(tmp_path / "elsewhere")


# ---- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_one_loss_term_has_nothing_to_be_balanced_against(tmp_path, kind):
    with pytest.raises(RecipeError, match=rf"stage 'pull': loss_weighting: {kind} .* got \['up'\]"):
        build_puller(tmp_path, loss_weighting=kind, losses={"up": 1.0})


@pytest.mark.parametrize("kind", ["uncertainty", "gradnorm"])
def test_a_negative_loss_cannot_be_weighed_by_its_size(tmp_path, kind):
    class Negative(type(build_pull())):
        def forward(self, **batch):
            output = super().forward(**batch)
            output.loss_terms["down"] = output.loss_terms["down"] - 1e3
            return output

    model = build_pull()
    model.__class__ = Negative
    with pytest.raises(
        DataError, match=rf"{kind} weighs losses by their size, and the term 'down' is negative; got -9"
    ):
        build_puller(tmp_path, model=model, loss_weighting=kind).train()
    assert build_puller(tmp_path, model=model, loss_weighting="pcgrad").train().global_step == 6


def fake_trainer(**changes):
    args = {"n_gpu": 1, "torch_compile": False, "gradient_checkpointing": False, "gradient_checkpointing_kwargs": None}
    plugin = SimpleNamespace(zero_stage=changes.pop("zero_stage", None))
    return SimpleNamespace(
        is_deepspeed_enabled=plugin.zero_stage is not None,
        is_fsdp_enabled=changes.pop("fsdp", False),
        accelerator=SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=plugin)),
        args=SimpleNamespace(**{**args, **changes}),
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"zero_stage": 2}, "got 'DeepSpeed ZeRO-2'"),
        ({"fsdp": True}, "got 'FSDP'"),
        ({"n_gpu": 4}, "got '4 GPUs in one process'. Start one process a GPU"),
        ({"torch_compile": True}, "got 'torch_compile'"),
        ({"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": True}}, "use_reentrant"),
    ],
)
def test_set_ups_without_whole_gradients_are_refused(changes, message):
    with pytest.raises(RecipeError, match=f"stage 'x': loss_weighting: pcgrad needs .*{message}"):
        refuse_set_up(fake_trainer(**changes), "stage 'x': loss_weighting: pcgrad")


def test_set_ups_that_work_are_let_through():
    checkpointing = {"gradient_checkpointing": True, "gradient_checkpointing_kwargs": {"use_reentrant": False}}
    for changes in ({}, checkpointing):
        assert refuse_set_up(fake_trainer(**changes), "gradient_report") is None


# ---- two processes -------------------------------------------------------------------------------------------------


def launch(folder, *more):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(Path(__file__).parents[1] / "two_terms.py"), str(folder), *map(str, more)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder)
    assert done.returncode == 0, done.stderr[-4000:]
    return folder


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    return launch(tmp_path_factory.mktemp("two"))


def read(path):
    with safe_open(path, "pt") as file:
        return {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118 - not a dict


def assert_two_equal_one(folder, alone, name):
    (first, facts), (second, _) = (read(folder / f"{name}-{rank}.safetensors") for rank in (0, 1))
    assert facts["world"] == "2"
    for key, value in first.items():
        assert torch.equal(second[key], value), key
    trainer = train_distributed(alone, name, batch=8)
    assert not torch.equal(trainer.model.shared.weight, build_pull().shared.weight)
    if name == "absent":  # a term absent from one of two batches counts half there
        return
    for key, value in trainer.model.state_dict().items():
        torch.testing.assert_close(first[key], value, atol=3e-6, rtol=0)  # sums of eight in another order
    for key, value in trainer.balancer.state().items():
        torch.testing.assert_close(first[f"balancer.{key}"], value.detach(), atol=1e-6, rtol=1e-5)
    two, one = (
        [line for line in history if "pull/gradnorm_up" in line]
        for history in (json.loads(facts["history"]), trainer.state.log_history)
    )
    assert len(one) == len(two) == (2 if "gradient_report" in DISTRIBUTED[name] else 0)
    for ours, theirs in zip(one, two, strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)


@pytest.mark.distributed
@pytest.mark.parametrize("name", list(DISTRIBUTED))
def test_two_processes_stay_equal_and_equal_one(ranks, tmp_path, name):
    assert_two_equal_one(ranks, tmp_path, name)


@pytest.mark.slow
@pytest.mark.distributed
def test_under_zero_2_uncertainty_works_and_the_others_are_refused(tmp_path, repository):
    launch(tmp_path, repository / "recipes/deepspeed/zero2.json")
    assert_two_equal_one(tmp_path, tmp_path / "alone", "uncertainty")
    refused = json.loads((tmp_path / "refused.json").read_text())
    assert set(refused) == {"pcgrad", "gradnorm", "absent", "report"}
    assert "stage 'pull': gradient_report needs the gradient" in refused["report"]
    assert "stage 'pull': loss_weighting: gradnorm needs the gradient" in refused["gradnorm"]
    assert "got 'DeepSpeed ZeRO-2'" in refused["pcgrad"]

"""Gradients of single loss terms, and the report of how they agree."""

import json
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from hfvla.errors import RecipeError
from hfvla.evaluation.run_record import read_run
from hfvla.training.run.run import run_recipe
from hfvla.training.trainer.balance.report import GradientMonitor, gradient_summary
from hfvla.training.trainer.balance.terms import TermGradients

from ..recipes import build_recipe, reasoning_stage, tasks, write_tasks
from ..two_terms import Pull, PullOutput, build_pull, build_puller, build_rows, collate

ALONE = SimpleNamespace(num_processes=1, scaler=None)
IN_ORDER = {"train_sampling_strategy": "sequential"}


def report(every: int = 1, groups=("shared",)) -> dict:
    return {"gradient_report": {"every": every, "groups": list(groups)}}


def measured(trainer) -> list[dict]:
    return [line for line in trainer.state.log_history if any(key.startswith("pull/gradnorm") for key in line)]


# ---- gradients of terms --------------------------------------------------------------------------------------------


def three_parameters():
    shared, left, unused = (nn.Parameter(torch.tensor(value)) for value in ([1.0, 2.0], [3.0], [5.0]))
    terms = {"a": shared @ torch.tensor([1.0, 0.0]), "b": (shared * torch.tensor([-1.0, 1.0])).sum() + 2 * left.sum()}
    return TermGradients(["a", "b", "c"], [shared, left, unused]), terms, (shared, left, unused)


def test_rows_and_products_by_hand():
    gradients, terms, _ = three_parameters()
    gradients.add(terms, keep_graph=False)
    # a: (1, 0 | 0 | 0), b: (-1, 1 | 2 | 0), c: nothing
    assert gradients.rows.tolist() == [[1, 0, 0, 0], [-1, 1, 2, 0], [0, 0, 0, 0]]
    assert gradients.used.tolist() == [[True, False, False], [True, True, False], [False, False, False]]
    assert gradients.gram().tolist() == [[1, -1, 0], [-1, 6, 0], [0, 0, 0]]
    assert gradients.gram(only_shared=True).tolist() == [[1, -1, 0], [-1, 2, 0], [0, 0, 0]]
    assert gradients.shared()


def test_micro_batches_add_up():
    gradients, terms, parameters = three_parameters()
    gradients.add(terms, scale=0.5, keep_graph=True)
    gradients.add(terms, scale=1.5, keep_graph=False)
    assert gradients.rows[1].tolist() == [-2, 2, 4, 0]
    assert all(parameter.grad is None for parameter in parameters)


def test_written_gradients_by_hand():
    gradients, terms, (shared, left, unused) = three_parameters()
    gradients.add(terms, keep_graph=False)
    gradients.write(shared=torch.tensor([2.0, 1.5, 9.0]), own=torch.tensor([1.0, 0.5, 9.0]))
    # shared: 2 (1, 0) + 1.5 (-1, 1) = (0.5, 1.5); left: 0.5 * 2 = 1
    assert shared.grad.tolist() == [0.5, 1.5] and left.grad.tolist() == [1.0] and unused.grad is None


def test_a_term_of_frozen_parts_only_has_no_gradient():
    gradients, _, _ = three_parameters()
    gradients.add({"a": torch.tensor(1.0)}, keep_graph=False)
    assert not gradients.used.any() and not gradients.shared()


# ---- the report ----------------------------------------------------------------------------------------------------


def test_cosine_and_norms_by_hand(tmp_path):
    trainer = build_puller(tmp_path, args={**IN_ORDER, "max_steps": 1}, **report())
    trainer.train()
    found = {}
    for name in ("up", "down"):
        model = build_pull()
        model(**collate(build_rows().select(range(8)).to_list())).loss_terms[name].backward()
        found[name] = torch.cat([model.shared.weight.grad.flatten(), model.shared.bias.grad])
    line = measured(trainer)[0]
    cosine = torch.nn.functional.cosine_similarity(found["up"], found["down"], dim=0).item()
    assert cosine < -0.3 and line["pull/cosine_up_down"] == pytest.approx(cosine, abs=1e-5)
    assert line["pull/gradnorm_up"] == pytest.approx(found["up"].norm().item(), rel=1e-5)
    assert line["pull/gradnorm_down"] == pytest.approx(0.5 * found["down"].norm().item(), rel=1e-5)


def test_every_second_step_beside_the_usual_lines(tmp_path):
    trainer = build_puller(tmp_path, **report(2))
    trainer.train()
    assert [line["step"] for line in measured(trainer)] == [2, 4, 6]
    assert [line["step"] for line in trainer.state.log_history if "loss" in line] == [1, 2, 3, 4, 5, 6]


class Checkpointed(Pull):
    """Forgets its hidden state and computes it again, dropout included, while going backward."""

    def forward(self, features, target, odd, **kwargs):
        hidden = checkpoint(lambda x: self.dropout(torch.tanh(self.shared(x))), features, use_reentrant=False)
        up, down = self.up_head(hidden)[:, 0], self.down_head(hidden)[:, 0]
        terms = {"up": ((up - target) ** 2).mean(), "down": ((down + 3 * target) ** 2).mean()}
        return PullOutput(loss_terms=terms)


class _Noisy(torch.autograd.Function):
    """The identity, whose gradient draws from the random stream."""

    @staticmethod
    def forward(ctx, value):
        return value.clone()

    @staticmethod
    def backward(ctx, gradient):
        return gradient * (1 + 0.1 * torch.rand_like(gradient))


class Noisy(Pull):
    def forward(self, features, target, odd, **kwargs):
        hidden = _Noisy.apply(torch.tanh(self.shared(features)))  # between the shared layer and the heads
        up, down = self.up_head(hidden)[:, 0], self.down_head(hidden)[:, 0]
        return PullOutput(loss_terms={"up": ((up - target) ** 2).mean(), "down": ((down + 3 * target) ** 2).mean()})


@pytest.mark.parametrize("kind", [Pull, Checkpointed, Noisy])
@pytest.mark.parametrize("weighting", ["fixed", "pcgrad"])
def test_measuring_changes_nothing(tmp_path, kind, weighting):
    found = []
    for options in ({}, report(1, ["shared", "heads"])):
        model = build_pull(0.3)
        model.__class__ = kind
        args = {"gradient_accumulation_steps": 2, "per_device_train_batch_size": 4, "logging_steps": 2}
        trainer = build_puller(tmp_path, model=model, loss_weighting=weighting, args=args, **options)
        trainer.train()
        losses = [line["loss"] for line in trainer.state.log_history if "loss" in line]
        found.append((model.state_dict(), losses, torch.get_rng_state(), measured(trainer)))
    (plain, plain_losses, plain_random, nothing), (watched, losses, random, lines) = found
    assert len(lines) == 6 and not nothing
    assert losses == plain_losses and torch.equal(random, plain_random)
    for name, value in plain.items():
        assert torch.equal(watched[name], value), name


def test_eight_steps_of_one_are_measured_as_one_of_eight(tmp_path):
    found = []
    for size, accumulation in ((8, 1), (1, 8)):
        args = {"per_device_train_batch_size": size, "gradient_accumulation_steps": accumulation, "max_steps": 3}
        trainer = build_puller(tmp_path, args=args, **report())
        trainer.train()
        found.append(measured(trainer))
    for whole, parts in zip(*found, strict=True):
        for key in ("pull/cosine_up_down", "pull/gradnorm_up", "pull/gradnorm_down"):
            assert parts[key] == pytest.approx(whole[key], rel=1e-4), key


def test_a_part_is_measured_once_it_trains(tmp_path):
    phases = [{"step": 3, "add": ["shared"]}]
    trainer = build_puller(tmp_path, train=["heads"], phases=phases, **report())
    trainer.train()
    assert [line["step"] for line in measured(trainer)] == [4, 5, 6]


def test_a_term_without_gradient_makes_no_pair(tmp_path):
    trainer = build_puller(tmp_path, losses={"up": 1.0, "down": 0.0}, **report())
    trainer.train()
    assert len(measured(trainer)) == 6
    for line in measured(trainer):
        assert line["pull/gradnorm_up"] > 0 and line["pull/gradnorm_down"] == 0 and "pull/cosine_up_down" not in line


def test_a_loss_scale_is_taken_out_of_the_norms(tmp_path):
    class Scaler:
        def scale(self, loss):
            return 1024.0 * loss

        def get_scale(self):
            return 1024.0

    weight = nn.Parameter(torch.tensor([3.0, 4.0]))
    logged = {}
    trainer = SimpleNamespace(
        state=SimpleNamespace(global_step=0),
        accelerator=SimpleNamespace(num_processes=1, scaler=Scaler()),
        current_gradient_accumulation_steps=1,
        log=logged.update,
    )
    monitor = GradientMonitor(trainer, "s", ["a", "b"], 1, {"weight": weight})
    terms = {"a": (weight**2).sum() / 2, "b": weight[0] * 2}
    monitor.measure(terms, {"a": 1.0, "b": 0.5}, {"a": 1.0, "b": 1.0})
    monitor.on_step_end(None, None, SimpleNamespace(should_log=True))
    assert logged == pytest.approx({"s/gradnorm_a": 5.0, "s/gradnorm_b": 1.0, "s/cosine_a_b": 0.6})


def test_an_unknown_group_is_named(tmp_path):
    with pytest.raises(RecipeError, match="no parameter group 'sharde'. Did you mean 'shared'"):
        build_puller(tmp_path, **report(1, ["sharde"]))


def test_a_group_that_never_trains_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="stage 'pull': gradient_report.groups .* does not train; got 'shared'"):
        build_puller(tmp_path, train=["heads"], **report())


def test_summary_by_hand():
    history = [
        {"s/cosine_a_b": -0.5},
        {"loss": 1.0},
        {"s/cosine_a_b": 0.25, "s/cosine_b_c": -1.0},
        {"s/gradnorm_a": 3.0},
    ]
    assert gradient_summary(history, "s", ["a", "b", "c"]) == [
        {"terms": ["a", "b"], "measurements": 2, "mean_cosine": -0.125, "conflicting": 0.5},
        {"terms": ["b", "c"], "measurements": 1, "mean_cosine": -1.0, "conflicting": 1.0},
    ]


# ---- a whole run ---------------------------------------------------------------------------------------------------


def test_a_recipe_reports_and_balances(tmp_path):
    path = write_tasks(tmp_path / "tasks.json", tasks(16))
    asked = {"loss_weighting": "pcgrad", "gradient_report": {"every": 2, "groups": ["language.last(1)"]}}
    recipe = build_recipe(path, tmp_path / "run", [reasoning_stage(**asked)])
    run_recipe(recipe)
    stage = json.loads((tmp_path / "run" / "reasoning" / "stage.json").read_text())
    pairs = {tuple(row["terms"]): row for row in stage["gradients"]}
    assert set(pairs) <= {("selection", "reasoning"), ("selection", "consistency"), ("reasoning", "consistency")}
    assert pairs["selection", "reasoning"]["measurements"] == stage["steps"] // 2
    assert -1 <= pairs["selection", "reasoning"]["mean_cosine"] <= 1
    figure = next(figure for figure in read_run(tmp_path / "run").figures if figure.name == "balance_reasoning")
    titles = [panel["title"] for panel in figure.data["panels"]]
    assert titles == ["cosine of gradients", "gradient norm", "weight after balancing"]

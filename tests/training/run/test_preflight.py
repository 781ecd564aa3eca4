"""What would end a run in its second stage is refused before the first."""

import json
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from hfvla.cli.commands import app
from hfvla.errors import RecipeError
from hfvla.recipe import load_recipe
from hfvla.registry import get_family
from hfvla.training.estimate import plan_recipe
from hfvla.training.run.dry_run import dry_run
from hfvla.training.run.model_size import check_models
from hfvla.training.run.preflight import check_arguments, check_data, check_rows, model_errors, unused_arguments
from hfvla.training.run.run import run_recipe

RECIPE = "recipes/ember_vlm/smoke.yaml"


def recipe(*overrides):
    return load_recipe(RECIPE, overrides)


def later(**args):
    """Return the smoke recipe with arguments in its second stage."""
    return recipe(f"stages.1.args={json.dumps(args)}")


MISTAKES = [
    ({"lr_scheduler_kwargs": {"foo": 1}}, "unexpected keyword argument 'foo'"),
    ({"lr_scheduler_type": "cosine", "lr_scheduler_kwargs": {"num_cycles": "a"}}, "could not convert string to float"),
    ({"lr_scheduler_type": "cosine_with_min_lr"}, "One of min_lr or min_lr_rate should be set"),
    ({"optim": "sgd", "optim_args": "momentum=x"}, "could not convert string to float: 'x'"),
    ({"accelerator_config": {"foo": 1}}, "unexpected keyword argument 'foo'"),
    ({"fsdp": "foo"}, "Unknown `fsdp` option: foo"),
]


@pytest.mark.parametrize(("args", "message"), MISTAKES, ids=[mistake[1] for mistake in MISTAKES])
def test_arguments_of_a_later_stage_are_built_before_the_first(args, message, tmp_path):
    chosen = later(**args)
    second = chosen.stages[1].name
    for look in (lambda chosen: check_arguments(chosen, get_family("ember_vlm")), plan_recipe):
        with pytest.raises(RecipeError, match=f"stage '{second}': its args do not go together") as caught:
            look(chosen)
        assert message in str(caught.value) and len(caught.value.problems) == 1
    with pytest.raises(RecipeError, match="do not go together"):
        run_recipe(chosen, output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(RecipeError, match="do not go together"):
        dry_run(chosen)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"tf32": True}, "args.tf32 needs an NVIDIA GPU"),
        ({"fp16": True, "use_cpu": True}, "args.fp16 needs a GPU"),
        ({"use_liger_kernel": True}, "needs the package liger-kernel"),
        ({"optim": "stable_adamw"}, "torch-optimi"),
    ],
)
def test_what_this_machine_lacks_is_for_runs_here_alone(args, message, monkeypatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("hfvla.training.run.preflight.find_spec", lambda name: None)
    chosen = recipe(*(f"args.{key}={json.dumps(value)}" for key, value in args.items()))
    with pytest.raises(RecipeError, match=message) as caught:
        check_arguments(chosen, get_family("ember_vlm"))
    assert len(caught.value.problems) == len(chosen.stages)
    check_arguments(chosen, get_family("ember_vlm"), here=False)


def test_every_stage_is_named_at_once():
    chosen = recipe("args.lr_scheduler_kwargs={foo: 1}")
    with pytest.raises(RecipeError) as caught:
        check_arguments(chosen, get_family("ember_vlm"))
    assert [problem.split("'")[1] for problem in caught.value.problems] == [stage.name for stage in chosen.stages]


def test_arguments_without_an_effect_are_said_once():
    assert unused_arguments(recipe()) == []
    both = recipe("args.max_steps=4", "args.num_train_epochs=2", "args.save_steps=2")
    found = unused_arguments(both)
    assert found == [
        "num_train_epochs has no effect: max_steps says when it ends",
        "save_steps has no effect: save_strategy is epoch, not steps",
    ]
    assert plan_recipe(both, samples=64, brief=True)["unused"] == found
    name = both.stages[1].name
    assert unused_arguments(later(eval_steps=5, num_train_epochs=1)) == [
        f"stage {name}: eval_steps has no effect: eval_strategy is epoch, not steps"
    ]
    assert unused_arguments(later(eval_steps=5, eval_strategy="steps", save_steps=5, save_strategy="steps")) == []


def test_fewer_rows_than_a_batch_are_refused_with_the_numbers():
    chosen = recipe("args.dataloader_drop_last=true", "args.per_device_train_batch_size=16")
    stage = chosen.stages[0]
    check_rows(chosen, stage, 16)
    with pytest.raises(RecipeError, match=f"stage '{stage.name}': 15 training rows do not fill one batch of 16, and"):
        check_rows(chosen, stage, 15)
    with pytest.raises(
        RecipeError, match=r"31 training rows do not fill one batch of 32 \(16 on each of 2 processes\)"
    ):
        check_rows(chosen, stage, 31, processes=2)
    check_rows(recipe("args.per_device_train_batch_size=16"), stage, 3)
    with pytest.raises(RecipeError, match="no training rows are left"):
        check_rows(recipe(), stage, 0)


def test_rows_of_all_stages_are_looked_at_before_the_first(tmp_path):
    chosen = recipe(
        "args.dataloader_drop_last=true", "stages.1.args={per_device_train_batch_size: 4000}", "args.max_steps=1"
    )
    runs = (plan_recipe, lambda recipe: run_recipe(recipe, output_dir=tmp_path / "run"), dry_run)
    for look in runs:
        with pytest.raises(RecipeError, match=f"stage '{chosen.stages[1].name}': .* do not fill one batch of 4000"):
            look(chosen)
    assert not (tmp_path / "run" / chosen.stages[0].name).exists()


def test_a_stage_without_validation_rows_cannot_keep_the_best():
    chosen = recipe("stages.1.keep_best=eval_loss")
    data = SimpleNamespace(stage_rows=lambda stage: SimpleNamespace(train=[1] * 64, validation=None))
    with pytest.raises(RecipeError, match=f"stage '{chosen.stages[1].name}': keep_best needs validation rows"):
        check_data(chosen, get_family("ember_vlm"), chosen.stages, data, 1)


def test_a_model_that_no_machine_holds_is_counted_not_built(tmp_path):
    chosen = recipe("model.config.text_config.n_embd=6000000", "model.config.text_config.n_head=1")
    with pytest.raises(RecipeError, match=r"the weights of [0-9,]{15,} parameters take [0-9,]+ GiB, and the machines"):
        check_models(chosen, get_family("ember_vlm"))
    with pytest.raises(RecipeError, match="lower the sizes in model.config"):
        run_recipe(chosen, output_dir=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_sizes_that_no_model_has_are_one_line():
    chosen = recipe("model.config.text_config.n_head=7")
    with pytest.raises(RecipeError, match=r"^model.config: the model cannot be built: ValueError: .*divisible"):
        check_models(chosen, get_family("ember_vlm"))
    with pytest.raises(RecipeError, match=r"^here: the model cannot be built: KeyError: 'x'$"), model_errors("here"):
        raise KeyError("x")


def test_the_command_line_refuses_in_one_line(tmp_path):
    words = ["plan", RECIPE, "stages.1.args={lr_scheduler_kwargs: {foo: 1}}"]
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 2 and "unexpected keyword argument 'foo'" in result.stderr
    assert "Traceback" not in result.stderr

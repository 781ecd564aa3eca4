"""`args` are checked by value: ranges, choices, and what does not go together."""

import pytest

from hfvla.errors import RecipeError
from hfvla.recipe import load_recipe
from hfvla.recipe.document import parse_value

VALUES = [
    ("adam_beta1=-1", ">= 0 and < 1; got -1"),
    ("adam_beta2=1", ">= 0 and < 1; got 1"),
    ("adam_epsilon=0", "expected a number > 0; got 0: with 0 a gradient of 0 gives NaN"),
    ("num_train_epochs=0", "expected a number > 0; got 0: a stage without an epoch trains nothing"),
    ("num_train_epochs=-1", "expected a number > 0; got -1"),
    ("num_train_epochs=.inf", "expected a finite number; got inf"),
    ("max_steps=0", "expected a whole number > 0, or -1 for epochs; got 0: a stage without a step trains nothing"),
    ("max_steps=-2", "or -1 for epochs; got -2"),
    ("logging_steps=.nan", "expected a finite number; got nan"),
    ("logging_steps=0", "expected a share of all steps (> 0, < 1) or a whole number >= 1; got 0"),
    ("save_steps=1.5", "or a whole number >= 1; got 1.5"),
    ("eval_steps=-0.1", "or a whole number >= 1; got -0.1"),
    ("save_total_limit=0", "expected a finite number >= 1; got 0"),
    ("dataloader_num_workers=100000000000000000000", "beyond what a number can hold; got '1000000000"),
    ("dataloader_num_workers=1e20", "expected a whole number; got 1e+20"),
    ("dataloader_num_workers=-1", "expected a finite number >= 0; got -1"),
    ("per_device_train_batch_size=0", "expected a finite number >= 1; got 0"),
    ("gradient_accumulation_steps=true", "expected a whole number; got true"),
    ("learning_rate=true", "expected a number; got true"),
    ("learning_rate=1e400", "beyond what a number can hold; got '1e400'"),
    ("ddp_timeout=0", "expected a finite number >= 1; got 0"),
    ("weight_decay=-0.1", "expected a finite number >= 0; got -0.1"),
    ("train_sampling_strategy=randm", "no such choice; got 'randm'. Did you mean 'random'?"),
    ("ddp_backend=ncl", "no such choice; got 'ncl'. Did you mean 'nccl'?"),
    ("optim=adamw", "no such choice; got 'adamw'"),
    ("optim=[1]", "no such choice; got [1]"),
    ("log_level=loud", "no such choice; got 'loud'"),
    ("parallelism_config={}", "only Python code can set it"),
    ("optim=galore_adamw", "chooses its parameters itself"),
    ("report_to=tensorbord", "no 'tensorbord' here. Did you mean 'tensorboard'?"),
    ("report_to=[wandb, foo]", "no 'foo' here"),
    ("gradient_checkpointing_kwargs={use_rentrant: true}", "no 'use_rentrant' here. Did you mean 'use_reentrant'?"),
    ("include_num_input_tokens_seen=some", "no such choice; got 'some'"),
    ("include_num_input_tokens_seen=1", "no such choice; got 1"),
    ("optim_args=a=1", "'adamw_torch_fused' takes no optim_args"),
]


@pytest.mark.parametrize(("override", "message"), VALUES, ids=[value[0] for value in VALUES])
def test_a_value_of_no_use_is_one_problem(write, good, families, override, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(
            write(good.replace("    keep_best: eval_macro_f1\n    patience: 2\n", "")), [f"args.{override}"], families
        )
    assert len(caught.value.problems) == 1 and message in caught.value.problems[0], caught.value.problems
    assert caught.value.problems[0].startswith(f"override 'args.{override}'")


@pytest.mark.parametrize(
    "override",
    [
        "max_steps=-1", "max_steps=5", "logging_steps=0.02", "logging_steps=1", "save_steps=50",
        "num_train_epochs=0.01", "learning_rate=0", "warmup_steps=0.1", "dataloader_num_workers=1024",
        "optim=adafactor", "report_to=[]", "lr_scheduler_kwargs={num_cycles: 2}", "debug=underflow_overflow",
    ],
)  # fmt: skip
def test_a_value_of_use_is_taken(write, good, families, override):
    name, _, written = override.partition("=")
    found = load_recipe(write(good), [f"args.{override}"], families).args[name]
    assert found == parse_value(written, name)


CLASHES = [
    ({"fp16": "true", "bf16": "true"}, "'fp16' and 'bf16' do not go together"),
    ({"bf16_full_eval": "true", "fp16_full_eval": "true"}, "'fp16_full_eval' and 'bf16_full_eval' do not go together"),
    ({"dataloader_prefetch_factor": "4"}, "needs 'dataloader_num_workers' of 1 or more"),
    ({"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "'no'"}, "follows the evaluations"),
    ({"lr_scheduler_type": "constant", "lr_scheduler_kwargs": "{a: 1}"}, "the schedule 'constant' takes none"),
    ({"optim": "sgd", "optim_args": "momentum"}, "expected key=value,key=value; got 'momentum'"),
]


@pytest.mark.parametrize(("args", "message"), CLASHES, ids=[clash[1] for clash in CLASHES])
def test_a_clash_in_a_later_stage_is_named_there(write, good, families, args, message):
    text = good.replace("    keep_best: eval_macro_f1\n    patience: 2\n", "")
    written = ", ".join(f"{key}: {value}" for key, value in args.items())
    path = write(text.replace("args: {learning_rate: 5.0e-5,", f"args: {{{written},"))
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, [], families)
    assert len(caught.value.problems) == 1 and message in caught.value.problems[0]
    assert caught.value.problems[0].startswith(f"{path}:20: stages[1].args.")


BEST = [
    (["save_strategy=steps"], "same eval_strategy and save_strategy; got 'epoch' and 'steps'"),
    (["eval_strategy=steps"], "same eval_strategy and save_strategy; got 'steps' and 'epoch'"),
    (["eval_strategy=no"], "needs evaluations and saves; got eval_strategy 'no'"),
    (["eval_strategy=steps", "save_strategy=steps", "eval_steps=40", "save_steps=50"], "a multiple of eval_steps"),
    (["eval_strategy=steps", "save_strategy=steps", "eval_steps=40"], "multiple of eval_steps; got 500 and 40"),
    (["eval_strategy=steps", "save_strategy=steps", "save_steps=50"], "one is a share of all steps"),
]


@pytest.mark.parametrize(("args", "message"), BEST, ids=[" ".join(best[0]) for best in BEST])
def test_what_keep_best_cannot_go_with(write, good, families, args, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(good), [f"args.{arg}" for arg in args], families)
    assert len(caught.value.problems) == 1 and message in caught.value.problems[0]


def test_shares_of_steps_are_compared_as_written(write, good, families):
    steps = ["args.eval_strategy=steps", "args.save_strategy=steps"]
    load_recipe(write(good), [*steps, "args.eval_steps=0.1", "args.save_steps=0.3"], families)
    with pytest.raises(RecipeError, match="multiple of eval_steps; got 0.25 and 0.1"):
        load_recipe(write(good), [*steps, "args.eval_steps=0.1", "args.save_steps=0.25"], families)

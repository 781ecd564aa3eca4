"""Phases and DeepSpeed configs that do not fit: one error each, with its place."""

import json
import re

import pytest

from hfvla.errors import RecipeError
from hfvla.recipe import load_recipe
from hfvla.recipe.zero_checks import contradictions

# Stage "align" of the good recipe: 2 epochs, trains projector and language.last(2), weights itc.
MISTAKES = [
    ("[{epoch: 1, add: [visoin]}]", "stages[0].phases[0].add[0]: no parameter group 'visoin' in family 'toy'. Did"),
    ("[{epoch: 1, add: [vision.last(1)]}]", "add[0]: 'vision.last(1)': group 'vision' has no layers to count"),
    ("[{epoch: 1, add: [projector]}]", "phases[0].add[0]: 'projector' trains already: `train` has 'projector'"),
    ("[{epoch: 1, add: [language.last(1)]}]", "'language.last(1)' trains already: `train` has 'language.last(2)'"),
    (
        "[{epoch: 0.5, add: [vision]}, {epoch: 1, add: [vision]}]",
        "phases[1].add[0]: 'vision' trains already: `add` of phases[0] has 'vision'",
    ),
    ("[{epoch: 1, add: [vision, vision]}]", "phases[0].add[1]: named twice: vision"),
    ("[{epoch: 2, add: [vision]}]", "phases[0].epoch: the stage ends at epoch 2, so this phase never begins; got 2"),
    (
        "[{epoch: 1.5, add: [vision]}, {epoch: 1, losses: {itc: 2}}]",
        "phases[1].epoch: a phase before it begins at epoch 1.5; got 1. Put them in order",
    ),
    (
        "[{step: 30, add: [vision]}, {step: 30, losses: {itc: 2}}]",
        "phases[1].step: a phase before it begins at step 30; got 30",
    ),
    (
        "[{epoch: 1, add: [vision], learning_rates: {projector: 1e-4}}]",
        "phases[0].learning_rates.projector: 'projector' is not in `add` of this phase. Known: vision.",
    ),
    (
        "[{epoch: 1, losses: {itc: 2}, learning_rates: {vision: 1e-4}}]",
        "'vision' is not in `add` of this phase. It adds nothing.",
    ),
    ("[{epoch: 1, losses: {selektion: 2}}]", "phases[0].losses.selektion: no loss term 'selektion' in family 'toy'"),
    ("[{epoch: 1, losses: {itc: 0}}]", "phases[0].losses: every loss has weight 0 from here on"),
    ("[{epoch: 1, step: 3, add: [vision]}]", "phases[0]: a phase needs either `epoch` or `step`"),
    ("[{epoch: 1}]", "phases[0]: the phase changes nothing; give `add` or `losses`"),
]


@pytest.mark.parametrize(("phases", "message"), MISTAKES)
def test_a_wrong_phase_is_the_only_problem_and_is_named(write, good, families, phases, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(good), [f"stages.align.phases={phases}"], families)
    assert len(caught.value.problems) == 1, caught.value.problems
    assert message in caught.value.problems[0]


def test_a_phase_past_the_last_step_is_named(write, good, families):
    overrides = ["stages.align.args.max_steps=10", "stages.align.phases=[{step: 10, add: [vision]}]"]
    with pytest.raises(RecipeError, match=r"phases\[0\].step: the stage ends at step 10, so .* never begins; got 10"):
        load_recipe(write(good), overrides, families)
    overrides[1] = "stages.align.phases=[{epoch: 7, add: [vision]}]"  # how long an epoch is, the trainer knows
    assert load_recipe(write(good), overrides, families).stages[0].phases[0].epoch == 7


def test_phases_that_fit_pass(write, good, families):
    text = "[{epoch: 0.5, add: [language.last(3)]}, {epoch: 1, add: [vision], learning_rates: {vision: 1e-5}, "
    recipe = load_recipe(write(good), [f"stages.align.phases={text}losses: {{selection: 1.0}}}}]"], families)
    assert [phase.add for phase in recipe.stages[0].phases] == [["language.last(3)"], ["vision"]]


# ---- DeepSpeed ---------------------------------------------------------------------------------------------------

ARGS = {"per_device_train_batch_size": 4, "gradient_accumulation_steps": 2, "bf16": True, "max_grad_norm": 0.5}
FITS = {
    "train_batch_size": 16,
    "train_micro_batch_size_per_gpu": "auto",
    "gradient_accumulation_steps": 2,
    "gradient_clipping": 0.5,
    "bf16": {"enabled": "auto"},
    "zero_optimization": {"stage": 3, "stage3_gather_16bit_weights_on_model_save": True},
}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"train_micro_batch_size_per_gpu": 8}, "train_micro_batch_size_per_gpu is 8, and args.per_device_.* is 4"),
        ({"gradient_accumulation_steps": 1}, 'gradient_accumulation_steps is 1, and args.* is 2; write "auto"'),
        ({"gradient_accumulation_steps": None}, "gradient_accumulation_steps is None"),
        ({"train_batch_size": 8}, "train_batch_size is 8, and the recipe's is 8 x 2 processes"),
        ({"gradient_clipping": 1.0}, "gradient_clipping is 1.0, and args.max_grad_norm is 0.5"),
        ({"bf16": {"enabled": False}}, "bf16.enabled is false, and args.bf16 is true"),
        ({"fp16": {"enabled": True}}, "fp16.enabled is true, and args.fp16 is false"),
        ({"optimizer": {"type": "AdamW"}}, "section 'optimizer', which would replace args.optim, learning_rate"),
        ({"scheduler": {"type": "WarmupLR"}}, "section 'scheduler', which would replace args.lr_scheduler_type"),
        (
            {"zero_optimization": {"stage": 3}},
            "stage3_gather_16bit_weights_on_model_save true .* no weights that load",
        ),
    ],
)
def test_a_contradiction_of_deepspeed_and_recipe_is_named(change, message):
    assert list(contradictions(FITS, ARGS, processes=2)) == []
    (found,) = contradictions({**FITS, **change}, ARGS, processes=2)
    assert re.search(message, found), found


def test_keys_that_deepspeed_would_not_ask_the_recipe_for_must_be_there():
    bare = {"train_micro_batch_size_per_gpu": "auto", "zero_optimization": {"stage": 1}}
    assert list(contradictions(bare, {"max_grad_norm": 0.0})) == []
    accumulation, clipping = contradictions(bare, {"gradient_accumulation_steps": 4})
    assert "gradient_accumulation_steps is absent, and args.gradient_accumulation_steps is 4" in accumulation
    assert "gradient_clipping is absent, and args.max_grad_norm is 1.0" in clipping


def test_the_place_of_a_config_is_named_once(write, good, families, tmp_path):
    (tmp_path / "zero.json").write_text(json.dumps({**FITS, "optimizer": {"type": "Adam"}}))
    recipe = write(good)
    overrides = ["args={deepspeed: zero.json, per_device_train_batch_size: 4, gradient_accumulation_steps: 2}"]
    overrides[0] = overrides[0].replace("}", ", max_grad_norm: 0.5}")
    with pytest.raises(RecipeError) as caught:
        load_recipe(recipe, overrides, families)
    assert len(caught.value.problems) == 1, caught.value.problems
    assert "args.deepspeed: the DeepSpeed config has a section 'optimizer'" in caught.value.problems[0]
    (tmp_path / "zero.json").write_text(json.dumps(FITS))
    assert load_recipe(recipe, overrides, families).args["deepspeed"] == str(recipe.parent / "zero.json")


@pytest.mark.parametrize(
    ("content", "message"), [(None, "no such DeepSpeed config; got"), ("{", "not JSON"), ("[]", "a JSON object")]
)
def test_a_config_that_cannot_be_read_is_named(write, good, families, tmp_path, content, message):
    if content is not None:
        (tmp_path / "zero.json").write_text(content)
    with pytest.raises(RecipeError, match=f"args.deepspeed: .*{message}"):
        load_recipe(write(good), ["args.deepspeed=zero.json"], families)


def test_the_configs_that_are_shipped_fit_any_recipe(repository):
    for stage in (1, 2, 3):
        config = json.loads((repository / f"recipes/deepspeed/zero{stage}.json").read_text())
        assert config["zero_optimization"]["stage"] == stage
        assert list(contradictions(config, ARGS, processes=8)) == list(contradictions(config, {})) == []

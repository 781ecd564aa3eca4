"""What a recipe is told about `loss_weighting` and `gradient_report`."""

import pytest

from hfvla.errors import RecipeError
from hfvla.recipe import load_recipe

MISTAKES = [
    ("stages.align.loss_weighting=pcgrad", "'pcgrad' balances loss terms, and this stage has one: 'itc'"),
    ("stages.align.loss_weighting=uncertainty", "'uncertainty' balances loss terms, and this stage has one: 'itc'"),
    ("stages.align.loss_weighting=gradnrom", "stages[0].loss_weighting: expected"),
    ("stages.align.gradient_report={every: 5, groups: [projector]}", "compares the gradients of loss terms, and this"),
    (
        "stages.select.gradient_report={every: 5, groups: [langauge]}",
        "stages[1].gradient_report.groups[0]: no parameter group 'langauge' in family 'toy'. Did you mean 'language'?",
    ),
    ("stages.select.gradient_report={every: 5, groups: [vision.last(1)]}", "group 'vision' has no layers to count"),
    ("stages.select.gradient_report={every: 5, groups: [language.last]}", "not a parameter group"),
    ("stages.select.gradient_report={every: 0, groups: [language]}", "expected a number >= 1; got 0"),
    ("stages.select.gradient_report={every: 5, groups: [lora]}", "no parameter group 'lora'"),
]


@pytest.mark.parametrize(("override", "message"), MISTAKES, ids=[override for override, _ in MISTAKES])
def test_a_mistake_is_the_only_problem_and_is_named(write, good, families, override, message):
    with pytest.raises(RecipeError) as caught:
        load_recipe(write(good), [override], families)
    assert len(caught.value.problems) == 1
    assert message in caught.value.problems[0]


@pytest.mark.parametrize("weighting", ["pcgrad", "gradnorm"])
def test_gradients_of_single_terms_cannot_be_had_under_deepspeed(write, good, families, weighting):
    zero = "args.deepspeed={zero_optimization: {stage: 2}, gradient_clipping: auto}"
    overrides = [f"stages.select.loss_weighting={weighting}", zero]
    with pytest.raises(RecipeError, match=f"'{weighting}' needs the gradient .* under args.deepspeed"):
        load_recipe(write(good), overrides, families)
    overrides[0] = "stages.select.gradient_report={every: 5, groups: [language]}"
    with pytest.raises(RecipeError, match=r"stages\[1\].gradient_report: it needs .* under args.deepspeed"):
        load_recipe(write(good), overrides, families)
    overrides[0] = "stages.select.loss_weighting=uncertainty"
    assert load_recipe(write(good), overrides, families).stages[1].loss_weighting == "uncertainty"


@pytest.mark.parametrize("weighting", ["uncertainty", "gradnorm", "pcgrad"])
def test_what_is_right_passes(write, good, families, weighting):
    overrides = [
        f"stages.select.loss_weighting={weighting}",
        "stages.select.gradient_report={every: 10, groups: [language.last(1), vision]}",
    ]
    stage = load_recipe(write(good), overrides, families).stages[1]
    assert stage.loss_weighting == weighting
    assert stage.gradient_report.groups == ["language.last(1)", "vision"]


def test_a_term_of_a_phase_counts(write, good, families):
    overrides = [
        "stages.align.loss_weighting=pcgrad",
        "stages.align.phases=[{epoch: 1, losses: {selection: 1.0}}]",
    ]
    assert load_recipe(write(good), overrides, families).stages[0].loss_weighting == "pcgrad"

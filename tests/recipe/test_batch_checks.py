"""`batches` and `grad_cache` in a recipe: what they do not go with."""

import pytest

from hfvla.errors import RecipeError
from hfvla.recipe import Stage
from hfvla.recipe.batch_checks import batch_problems


def problems(stage, args=None):
    tree = {"args": args or {}, "stages": [{}, stage]}
    return [(problem.steps, problem.text) for problem in batch_problems(tree)]


@pytest.mark.parametrize(
    ("stage", "args", "key", "named"),
    [
        ({"batches": {}}, {"train_sampling_strategy": "group_by_length"}, "batches", "group_by_length"),
        ({"packing": {"max_length": 64}}, {"train_sampling_strategy": "group_by_length"}, "packing", "one length"),
        ({"packing": {"max_length": 64}, "batches": {}}, None, "packing", "`batches`"),
        ({"packing": {"max_length": 64}, "too_long": "leave_out"}, None, "too_long", "packing.too_long"),
        ({"packing": {"max_length": 64}, "grad_cache": 4}, None, "packing", "`grad_cache`"),
        ({"grad_cache": 4}, {"deepspeed": "zero2.json"}, "grad_cache", "args.deepspeed"),
        ({"grad_cache": 4, "args": {"fsdp": "full_shard"}}, None, "grad_cache", "args.fsdp"),
        ({"grad_cache": 4, "loss_weighting": "pcgrad"}, None, "grad_cache", "'pcgrad'"),
        ({"grad_cache": 4, "gradient_report": {"every": 2}}, None, "grad_cache", "gradient_report"),
    ],
)
def test_what_does_not_go_together_is_named(stage, args, key, named):
    found = problems(stage, args)
    assert len(found) == 1 and found[0][0] == ("stages", 1, key) and named in found[0][1]


def test_what_goes_together_passes():
    assert not problems({"packing": {"max_length": 64}, "cache": True})
    assert not problems({"batches": {"rows_per_group": 2}, "grad_cache": 4, "loss_weighting": "uncertainty"})
    assert not problems({"loss_weighting": "pcgrad", "gradient_report": {}}, {"deepspeed": "zero2.json"})


def test_the_checks_are_asked(families, good):
    import yaml

    from hfvla.recipe.checks import all_problems

    tree = yaml.safe_load(good)
    tree["stages"][1] |= {"grad_cache": 4, "loss_weighting": "pcgrad"}
    assert ("stages", 1, "grad_cache") in [p.steps for p in all_problems(tree, families, check_args=False)]


@pytest.mark.parametrize("value", [{"grad_cache": 0}, {"batches": {"rows_per_group": 0}}, {"batches": {"rows": 2}}])
def test_wrong_values_are_refused(value):
    with pytest.raises(RecipeError, match="grad_cache|rows"):
        Stage(name="one", train=["head"], losses={"itc": 1.0}, **value)

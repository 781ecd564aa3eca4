"""`losses` of a training source: what they may name."""

from dataclasses import replace

import pytest

from hfvla.recipe.checks import all_problems
from hfvla.registry import get_family

FAMILY = get_family("ember_vlm")


def problems(entries, losses, phases=(), family=FAMILY, shared=False):
    stage = {"name": "one", "train": ["language"], "losses": dict.fromkeys(losses, 1.0), "phases": list(phases)}
    tree = {"family": "ember_vlm", "data": {"train": [{"source": "fleet"}]}, "stages": [stage]}
    if shared:
        tree["data"]["train"] = entries
    else:
        stage["data"] = {"train": entries}
    found = all_problems(tree, {"ember_vlm": family}, check_args=False)
    return [(problem.steps, problem.text) for problem in found if "losses" in problem.steps]


def shapes(*losses):
    return [{"source": "fleet"}, {"source": "shapes", "losses": list(losses)}]


@pytest.mark.parametrize("shared", [False, True])
def test_terms_of_the_stage_pass(shared):
    assert not problems(shapes("caption", "itc"), ["itc", "caption", "reasoning"], shared=shared)
    assert not problems(shapes("caption"), ["caption", "reasoning"], shared=shared)
    assert not problems(shapes("instruct"), ["reasoning"], [{"epoch": 1, "losses": {"instruct": 0.3}}], shared=shared)


def test_an_unknown_term_is_named_with_the_nearest():
    ((steps, text),) = problems(shapes("captoin"), ["caption"])
    assert steps == ("stages", 0, "data", "train", 1, "losses", 0) and "'captoin'" in text and "caption" in text


def test_terms_that_the_stage_does_not_have_are_refused():
    ((steps, text),) = problems(shapes("caption"), ["reasoning"])
    assert steps == ("stages", 0, "data", "train", 1, "losses") and "'reasoning'" in text


def test_terms_of_one_sequence_are_named_together():
    ((_, text),) = problems(shapes("caption"), ["itc", "caption", "reasoning"])
    assert "'itc'" in text and "name all" in text


def test_families_whose_rows_teach_everything_refuse_it():
    ((_, text),) = problems(shapes("caption"), ["caption"], family=replace(FAMILY, separable=()))
    assert "leave `losses` out" in text


@pytest.mark.parametrize("value", [[], "caption", [1]])
def test_a_wrong_type_is_refused(value):
    assert problems([{"source": "shapes", "losses": value}], ["caption"])

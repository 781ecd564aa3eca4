"""What was saved and written with 0.1 still loads: checkpoints, resolved recipes, names of modules."""

import importlib
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from hfvla._moved import MOVED
from hfvla.recipe import load_resolved
from hfvla.registry import available_families, load_checkpoint

OLD = Path(__file__).parent / "fixtures/checkpoints_0_1"
"""Tiny checkpoints of commit 3bdd805, each with a batch; `expected.json` has the loss terms computed there."""

EXPECTED = json.loads((OLD / "expected.json").read_text())
DRAWN = {"action", "itm"}  # with noise or negatives, whose draws are functions of the row since


@pytest.mark.parametrize("family", sorted(EXPECTED))
def test_a_checkpoint_of_0_1_computes_the_same(family):
    spec, model, _ = load_checkpoint(OLD / family)
    assert spec.name == family
    torch.manual_seed(0)
    with torch.no_grad():
        terms = model(**load_file(OLD / family / "batch.safetensors")).loss_terms
    assert set(terms) == set(EXPECTED[family]["loss_terms"])
    for name, value in EXPECTED[family]["loss_terms"].items():
        found = float(torch.as_tensor(terms[name]))
        assert found == pytest.approx(value, rel=1e-4, abs=1e-5) or name in DRAWN, name


@pytest.mark.parametrize("family", sorted(EXPECTED))
def test_a_resolved_recipe_of_0_1_loads(family):
    assert load_resolved(OLD / family / "recipe.json").family == family


def test_the_fixture_has_every_family_of_0_1():
    assert set(EXPECTED) <= set(available_families())


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("hfvla.training.trainer", "StagedTrainer"),
        ("hfvla.training.run", "run_recipe"),
        ("hfvla.data.samples", "RobotTask"),
        ("hfvla.data.samples_actions", "FrameRef"),
        ("hfvla.data.synthetic.fleet", "FleetOptions"),
        ("hfvla.metrics.functions.boxes", "box_scores"),
        ("hfvla.training.resume.checkpoints", "ExactResume"),
        ("hfvla.training.freeze", "trainable_table"),
    ],
)
def test_old_names_import_with_a_warning(module, name):
    for known in [known for known in sys.modules if any(known == o or known.startswith(f"{o}.") for o in MOVED)]:
        del sys.modules[known]
    with pytest.warns(DeprecationWarning, match=r"is now hfvla\..*goes in hfvla 0\.3"):
        found = getattr(importlib.import_module(module), name)
    assert found.__module__.startswith("hfvla.") and not found.__module__.startswith(tuple(MOVED))


def test_a_name_that_never_was_is_still_an_error():
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module("hfvla.training.never")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        importlib.import_module("hfvla.training.run").nothing  # noqa: B018


def test_new_names_do_not_warn(recwarn):
    importlib.reload(importlib.import_module("hfvla.training.stage.plan"))
    assert not [one for one in recwarn if one.category is DeprecationWarning and "hfvla" in str(one.message)]

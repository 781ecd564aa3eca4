"""2,000 hostile recipes: an error of hfvla in readable lines, or exactly what was written; no traceback, no hang.

`benchmarks/attack.py` does more of the same. To see one again: `attack_recipe(seed, folder)`, as the message says.
"""

import random
import warnings
from collections import Counter

import pytest

from hfvla.recipe import Recipe

from . import recipes
from .judging import check_outcomes, quiet
from .recipe_mutations import MUTATIONS, Mutant
from .recipes import BASES, attack_recipe, base_tree, judge

COUNT, PARTS = 2_000, 4


@pytest.fixture(autouse=True)
def _quiet():
    with quiet(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@pytest.mark.parametrize("part", range(PARTS))
def test_hostile_recipes_are_refused_or_taken_at_their_word(part, tmp_path):
    each = COUNT // PARTS
    outcomes = [attack_recipe(seed, tmp_path) for seed in range(part * each, (part + 1) * each)]
    check_outcomes(outcomes)
    verdicts = Counter(one.verdict for one in outcomes)
    assert verdicts["refused"] > each // 2 and verdicts["accepted"] > each // 20, f"no fair attack: {verdicts}"


@pytest.mark.parametrize("mutate", MUTATIONS, ids=lambda mutate: mutate.__name__)
def test_every_mutation_spoils_something(mutate):
    for name in BASES:
        spoilt = mutate(random.Random(7), base_tree(name))
        assert spoilt.overrides or spoilt.tree is None or spoilt.tree != base_tree(name) or mutate.__name__ == "alias"


@pytest.mark.parametrize("name", BASES)
def test_what_is_not_spoilt_is_accepted(name, tmp_path):
    mutant = Mutant((recipes._RECIPES / f"{name}.yaml").read_bytes(), base_tree(name))
    assert judge(0, "nothing", mutant, tmp_path).verdict == "accepted"


def test_the_judge_sees_silence(tmp_path, monkeypatch):
    """A loader that drops keys, or takes true for a number, is found out."""
    plain = base_tree("ember_vlm/smoke")
    monkeypatch.setattr(recipes, "load_recipe", lambda path, overrides: Recipe.model_validate(plain))
    assert judge(0, "plain", Mutant(b"", plain), tmp_path).verdict == "accepted"
    assert judge(0, "must", Mutant(b"", plain, refused=True), tmp_path).verdict == "silent"
    for spoilt, lost in (
        ({**plain, "sed": 3}, "'sed' is lost"),
        ({**plain, "seed": True}, "seed: True became 0"),
        ({**plain, "seed": 1}, "seed: 1 became 0"),
        ({**plain, "output_dir": "a #2"}, "output_dir: 'a #2' became 'outputs/smoke'"),
        ({**plain, "stages": plain["stages"][:1]}, "stages: "),
    ):
        found = judge(0, "spoilt", Mutant(b"", spoilt), tmp_path)
        assert found.verdict == "silent" and lost in found.detail

"""Hostile recipes: valid ones, spoilt at random from a seed, loaded and looked at as before a run, and judged.

`attack_recipe(seed, folder)` does one. `benchmarks/attack.py` and the tests beside this file do many.
"""

from __future__ import annotations

import copy
import random
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from hfvla.errors import HfvlaError
from hfvla.recipe import load_recipe, resolved_dict
from hfvla.recipe.document import read_document
from hfvla.registry import get_family
from hfvla.training.run.model_size import base_config
from hfvla.training.run.preflight import check_arguments
from hfvla.training.run.stage_run import merge_config

from .judging import LOST, HangError, limited
from .recipe_mutations import MUTATIONS, Mutant

__all__ = ["BASES", "Outcome", "attack_recipe", "base_tree", "judge"]

_LIMIT_S = 30
_RECIPES = Path(__file__).parents[2] / "recipes"
_LONGEST_LINE, _MOST_LINES = 2_000, 120  # of an error that a person reads

BASES = (
    "ember_vlm/smoke", "ember_vlm/tiny", "internvl_retrieval/smoke", "internvl_video_qa/smoke", "sensor_vla/smoke",
    "sensor_vla/tiny_flow", "sensor_vla/full_diffusion", "internvl_video_qa/qlora_8b",
)  # fmt: skip
"""Shipped recipes that are spoilt."""


@dataclass(frozen=True)
class Outcome:
    """What became of one hostile recipe.

    Attributes:
        seed: of the harm.
        mutation: its kind.
        verdict: "accepted", "refused" (an error of hfvla), or what must never be: "traceback", "unreadable" (an error
            that nobody can read), "hang", "silent" (accepted, and not what was written).
        detail: the error, or what was not as written.
    """

    seed: int
    mutation: str
    verdict: str
    detail: str = ""

    @property
    def bad(self) -> bool:
        """Whether it must never be."""
        return self.verdict in LOST


@cache
def _read(name: str) -> Any:
    return read_document(_RECIPES / f"{name}.yaml").data


def base_tree(name: str) -> Any:
    """Return a recipe of `BASES` as plain data."""
    return copy.deepcopy(_read(name))


def attack_recipe(seed: int, folder: Path) -> Outcome:
    """Spoil a recipe, load it and look at it as before a run; nothing is trained.

    Args:
        seed: decides recipe and harm.
        folder: where the file may be written.
    """
    rng = random.Random(seed)
    mutate = rng.choices(list(MUTATIONS), list(MUTATIONS.values()))[0]
    return judge(seed, mutate.__name__, mutate(rng, base_tree(rng.choice(BASES))), folder)


def judge(seed: int, name: str, mutant: Mutant, folder: Path) -> Outcome:
    """Load a mutant and say what became of it."""
    path = folder / "recipe.yaml"
    path.write_bytes(mutant.content)
    try:
        with limited(_LIMIT_S):
            recipe = load_recipe(path, mutant.overrides)
            _look(recipe)
    except HfvlaError as error:
        lines = str(error).splitlines()
        if len(lines) > _MOST_LINES or any(len(line) > _LONGEST_LINE or not line.isprintable() for line in lines):
            return Outcome(seed, name, "unreadable", f"{len(lines)} lines: {str(error)[:3000]!r}")
        return Outcome(seed, name, "refused", lines[0])
    except HangError:
        return Outcome(seed, name, "hang")
    except Exception:
        return Outcome(seed, name, "traceback", traceback.format_exc())
    if mutant.refused:
        return Outcome(seed, name, "silent", f"must be refused: {mutant.overrides} {mutant.content[:3000]!r}")
    wrong = next(_differences(mutant.tree, resolved_dict(recipe), ()), None) if mutant.tree is not None else None
    return Outcome(seed, name, "silent" if wrong else "accepted", wrong or "")


def _look(recipe: Any) -> None:
    """Do what a run does before it reads data, short of models."""
    spec = get_family(recipe.family)
    check_arguments(recipe, spec, here=False)
    config = base_config(recipe, spec)
    for stage in recipe.stages:
        config = merge_config(config, stage.model)


def _differences(written: Any, found: Any, path: tuple[Any, ...]) -> Iterator[str]:
    """Yield where a resolved recipe does not hold what was written; what was not written may have any default."""
    where = ".".join(map(str, path))
    if isinstance(written, dict) and isinstance(found, dict):
        for key, value in written.items():
            if key not in found:
                yield f"{where}: '{key}' is lost"
            else:
                yield from _differences(value, found[key], (*path, key))
    elif isinstance(written, list) and isinstance(found, list) and len(found) == len(written):
        for index, pair in enumerate(zip(written, found, strict=True)):
            yield from _differences(*pair, (*path, index))
    elif written is None or path[-1:] == ("cache",) or (path == ("output_dir",) and written == ""):
        return  # nothing written is the default, and `cache: true` is all its defaults
    elif isinstance(written, int | float) and isinstance(found, int | float) and not isinstance(written, bool):
        if isinstance(found, bool) or written != found:
            yield f"{where}: {written!r} became {found!r}"
    elif written != found or type(written) is not type(found):
        yield f"{where}: {written!r} became {found!r}"

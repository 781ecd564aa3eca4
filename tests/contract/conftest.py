"""One tiny model of each family, built once through its `FamilySpec` alone."""

import copy
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from hfvla.family import FamilySpec
from hfvla.registry import available_families


@dataclass
class Built:
    """A family's tiny model in eval mode with its processor and eight example rows."""

    spec: FamilySpec
    model: Any
    processor: Any
    rows: Any

    def copy(self) -> Any:
        return copy.deepcopy(self.model)

    def collator(self, *losses: str, training: bool = True) -> Any:
        wanted = losses or tuple(self.spec.losses)
        return self.spec.load("collator")(self.processor, self.model.config, losses=wanted, training=training)

    def batch(self, *losses: str, rows: Any = None, training: bool = True) -> dict[str, Any]:
        return self.collator(*losses, training=training)([dict(row) for row in (self.rows if rows is None else rows)])


@cache
def build(family: str) -> Built:
    spec = available_families()[family]
    rows = spec.load("examples")(8, 0)
    recipe = {"config": spec.tiny_config().to_dict(), "options": {}}
    model, processor = spec.load("initialise")(recipe, rows, seed=0)
    return Built(spec.of_model(model), spec.give_objective(model.eval()), processor, rows)


@pytest.fixture(scope="session", params=sorted(available_families()))
def built(request) -> Built:
    return build(request.param)


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory) -> dict[str, Path]:
    """The model and the processor of each family, saved."""
    folders = {}
    for family in available_families():
        folders[family] = tmp_path_factory.mktemp(family)
        build(family).model.save_pretrained(folders[family])
        build(family).processor.save_pretrained(folders[family])
    return folders


@pytest.fixture(scope="session")
def checkpoint(built, checkpoints):
    """The model and its processor, saved."""
    return checkpoints[built.spec.name]

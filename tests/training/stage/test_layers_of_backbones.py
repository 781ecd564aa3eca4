"""A group whose layers have another name in another backbone: the one that a model has is counted."""

import pytest
from torch import nn

from hfvla.errors import RecipeError
from hfvla.family import ParameterGroup
from hfvla.training.stage.groups import expand_group


def tower(name, depth=3):
    model = nn.Module()
    setattr(model, name, nn.ModuleList([nn.Linear(1, 1, bias=False) for _ in range(depth)]))
    return model


GROUPS = {"vision": ParameterGroup(("blocks.*", "layers.*", "stem.*"), layers=("blocks", "layers"))}


@pytest.mark.parametrize("name", ["blocks", "layers"])
def test_the_name_that_a_model_has(name):
    model = tower(name)
    assert GROUPS["vision"].layers_of(model) == name
    assert expand_group(model, GROUPS, "vision.last(1)") == [f"{name}.2.weight"]
    assert expand_group(model, GROUPS, "vision.first(2)") == [f"{name}.0.weight", f"{name}.1.weight"]
    with pytest.raises(RecipeError, match="group 'vision' has 3 layers"):
        expand_group(model, GROUPS, "vision.last(4)")


def test_a_model_with_none_of_them_has_no_layers_to_count():
    model = tower("stem")
    assert GROUPS["vision"].layers_of(model) is None and expand_group(model, GROUPS, "vision")
    with pytest.raises(RecipeError, match="group 'vision' has no layers to count"):
        expand_group(model, GROUPS, "vision.last(1)")


def test_one_name_and_no_name_are_as_before():
    assert ParameterGroup(("blocks.*",), layers="blocks").layers_of(tower("blocks")) == "blocks"
    assert ParameterGroup(("blocks.*",)).layers_of(tower("blocks")) is None

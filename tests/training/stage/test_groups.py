"""Names in `train:` to tensors."""

import pytest
import torch
from torch import nn

from hfvla.errors import RecipeError
from hfvla.family import ParameterGroup
from hfvla.recipe import Stage
from hfvla.training.run.tables import trainable_text
from hfvla.training.stage.groups import (
    assign_parameters,
    expand_group,
    freeze,
    fully_frozen_modules,
    table_dicts,
    trainable_table,
)

from ..toy import GROUPS, build_model


@pytest.fixture
def model():
    return build_model()


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("head", ["head.weight", "head.bias", "head.scale"]),
        ("blocks.last(1)", ["blocks.2.weight", "blocks.2.bias"]),
        ("blocks.first(2)", ["blocks.0.weight", "blocks.0.bias", "blocks.1.weight", "blocks.1.bias"]),
    ],
)
def test_groups_name_parameters(model, expression, expected):
    assert expand_group(model, GROUPS, expression) == expected


def test_all_layers_are_the_last_three(model):
    assert expand_group(model, GROUPS, "blocks.last(3)") == expand_group(model, GROUPS, "blocks")


def test_layer_ten_is_not_layer_one():
    deep = nn.Module()
    deep.blocks = nn.ModuleList([nn.Linear(1, 1, bias=False) for _ in range(11)])
    groups = {"blocks": ParameterGroup(("blocks.*",), layers="blocks")}
    assert expand_group(deep, groups, "blocks.first(2)") == ["blocks.0.weight", "blocks.1.weight"]
    assert expand_group(deep, groups, "blocks.last(1)") == ["blocks.10.weight"]


@pytest.mark.parametrize(
    ("expression", "match"),
    [
        ("haed", "no parameter group 'haed'. Did you mean 'head'"),
        ("head.last(1)", r"group 'head' has no layers to count; got 'head.last\(1\)'"),
        ("blocks.last(4)", r"group 'blocks' has 3 layers; got 'blocks.last\(4\)'; expected at most 3"),
        ("blocks.last(0)", r"not a parameter group; got 'blocks.last\(0\)'"),
        ("blocks.middle(1)", r"not a parameter group; got 'blocks.middle\(1\)'"),
        ("ghost", "'ghost' matches no parameter of ToyModel; expected parameters named phantom.*"),
    ],
)
def test_what_cannot_be_a_group_is_named(model, expression, match):
    with pytest.raises(RecipeError, match=match):
        expand_group(model, {**GROUPS, "ghost": ParameterGroup(("phantom.*",))}, expression)


def test_the_narrower_entry_has_the_parameter(model):
    for train in (["body", "blocks.last(1)"], ["blocks.last(1)", "body"]):
        assigned = assign_parameters(model, GROUPS, train)
        assert assigned["blocks.2.weight"] == assigned["blocks.2.bias"] == "blocks.last(1)"
        assert assigned["blocks.1.weight"] == assigned["backbone.0.weight"] == "body"
        assert set(assigned) == set(expand_group(model, GROUPS, "body"))


def test_an_entry_with_nothing_left_is_an_error(model):
    with pytest.raises(RecipeError, match="'blocks' trains nothing of its own"):
        assign_parameters(model, GROUPS, ["blocks", "blocks.last(1)", "blocks.first(2)"])


def test_freeze_is_exact_both_ways(model):
    freeze(model, {"head.bias": "head"})
    assert [name for name, parameter in model.named_parameters() if parameter.requires_grad] == ["head.bias"]
    freeze(model, assign_parameters(model, GROUPS, ["blocks"]))
    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    assert trained == set(expand_group(model, GROUPS, "blocks"))


def test_frozen_modules_are_the_topmost_ones(model):
    freeze(model, assign_parameters(model, GROUPS, ["head", "blocks.last(1)"]))
    assert fully_frozen_modules(model) == [model.backbone, model.blocks[0], model.blocks[1]]
    freeze(model, {})
    assert fully_frozen_modules(model) == [model]


def test_table_counts_every_parameter_once(model):
    # backbone: 3*4+4 + 4+4 = 24; blocks: 3 * (4*4+4) = 60; head: 4+1+1 = 6; "body" is the other two and owns none
    trained = assign_parameters(model, GROUPS, ["blocks.last(1)", "head"])
    rows = trainable_table(model, GROUPS, trained, {"blocks.last(1)": 1e-3, "head": 5e-4})
    assert [(row.group, row.tensors, row.parameters, row.trainable) for row in rows] == [
        ("backbone", 4, 24, 0),
        ("blocks", 6, 60, 20),
        ("head", 3, 6, 6),
        ("total", 13, 90, 26),
    ]
    assert [row.learning_rate for row in rows] == [0.0, 1e-3, 5e-4, 1e-3]
    assert [row.share for row in rows] == pytest.approx([0, 1 / 3, 1, 26 / 90])
    assert {row.dtype for row in rows} == {"float32"}


def test_table_shows_parameters_outside_every_group(model):
    model.head.to(torch.bfloat16)
    rows = trainable_table(model, {"blocks": GROUPS["blocks"]}, {}, {})
    assert [(row.group, row.parameters, row.dtype) for row in rows] == [
        ("blocks", 60, "float32"),
        ("(other)", 30, "bfloat16, float32"),
        ("total", 90, "bfloat16, float32"),
    ]
    assert table_dicts(rows)[0] == {
        "group": "blocks",
        "tensors": 6,
        "parameters": 60,
        "trainable": 0,
        "share": 0.0,
        "learning_rate": 0.0,
        "dtype": "float32",
        "decayed": 0,
        "phase": 0,
    }


def test_table_as_text(model):
    trained = assign_parameters(model, GROUPS, ["head"])
    stage = Stage(name="selection", train=["head"], losses={"fit": 1.0})
    text = trainable_text(stage, trainable_table(model, GROUPS, trained, {"head": 5e-4}))
    assert "stage 'selection': what trains" in text
    lines = text.splitlines()
    assert any(all(part in line for part in ("backbone", "24", "0.0%", "frozen")) for line in lines)
    assert any(all(part in line for part in ("head", "100.0%", "5.00e-04")) for line in lines)


def test_one_string_is_one_pattern(model):
    # As a tuple of letters it would hold "*", and so every parameter.
    assert expand_group(model, {"head": ParameterGroup("head.*")}, "head") == expand_group(model, GROUPS, "head")
    assert ParameterGroup("blocks.*", layers="blocks").patterns == ("blocks.*",)
    assert assign_parameters(model, GROUPS, "head") == assign_parameters(model, GROUPS, ["head"])


@pytest.mark.parametrize("patterns", ["", (), ("head.*", "")])
def test_a_group_has_patterns(patterns):
    with pytest.raises(RecipeError, match="a parameter group needs patterns; got"):
        ParameterGroup(patterns)


def test_a_group_of_the_whole_model_must_say_so(model):
    with pytest.raises(RecipeError, match=r"group 'all' holds every parameter of ToyModel.*whole_model=True"):
        assign_parameters(model, {**GROUPS, "all": ParameterGroup("*")}, ["head", "all"])
    said = {**GROUPS, "all": ParameterGroup("*", whole_model=True)}
    assert len(assign_parameters(model, said, ["all"])) == len(list(model.parameters()))


def test_all_layers_by_number_are_no_whole_model():
    deep = nn.Module()
    deep.blocks = nn.ModuleList([nn.Linear(1, 1) for _ in range(2)])
    groups = {"blocks": ParameterGroup("blocks.*", layers="blocks")}
    assert len(assign_parameters(deep, groups, ["blocks.last(2)"])) == 4

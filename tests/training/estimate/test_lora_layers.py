"""The table of layers that can take an adapter."""

import pytest

from hfvla.errors import RecipeError
from hfvla.recipe.stage_schema import Lora
from hfvla.training.estimate.lora_layers import lora_layer_rows, lora_target_row

from .. import toy


def test_layers_of_one_kind_share_a_row():
    rows = lora_layer_rows(toy.build_model(), toy.GROUPS)
    assert [(row["group"], row["layers"], row["count"], row["weight"]) for row in rows] == [
        ("backbone", "backbone.*", 1, "4 x 3"),
        ("blocks", "blocks.*", 3, "4 x 4"),
        ("head", "head", 1, "1 x 4"),
    ]
    assert [row["parameters"] for row in rows] == [12, 48, 4]


def test_a_target_counts_layers_and_adapter_parameters():
    model = toy.build_model()
    row = lora_target_row(model, toy.GROUPS, Lora(target=["blocks.last(2)", "head"], r=2))
    assert row["target"] == "blocks.last(2), head" and row["layers"] == 3 and row["by_group"] == "blocks 2, head 1"
    assert row["adapter_parameters"] == 2 * 2 * (4 + 4) + 2 * (4 + 1)  # r x (in + out) a layer
    assert not any("lora" in name for name, _ in model.named_parameters())


def test_a_target_without_layers_is_named():
    with pytest.raises(RecipeError, match=r"re:block matches no layer|'re:block' matches no layer.*blocks.0"):
        lora_target_row(toy.build_model(), toy.GROUPS, Lora(target="re:block"))

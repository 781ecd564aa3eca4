import json

import pytest

from hfvla.errors import RecipeError
from hfvla.recipe import recipe_json_schema


def references(value):
    """Every "$ref" in a schema."""
    if isinstance(value, dict):
        if "$ref" in value:
            yield value["$ref"]
        for part in value.values():
            yield from references(part)
    elif isinstance(value, list):
        for part in value:
            yield from references(part)


def test_names_of_the_family_are_in_the_schema(families):
    schema = recipe_json_schema("toy", families)
    stage = schema["$defs"]["Stage"]["properties"]
    assert schema["properties"]["family"]["enum"] == ["toy"]
    assert stage["train"]["items"]["anyOf"] == [
        {"enum": ["language", "projector", "vision"]},
        {"const": "lora"},
        {"pattern": r"^(language)\.(last|first)\([1-9][0-9]*\)$"},
    ]
    assert stage["losses"]["propertyNames"] == {"enum": ["itc", "selection"]}
    phase = schema["$defs"]["Phase"]["properties"]
    assert phase["add"]["items"] == stage["train"]["items"] and phase["losses"]["propertyNames"]["enum"][0] == "itc"
    assert "eval_macro_f1" in stage["keep_best"]["examples"] and "eval_loss_itc" in stage["keep_best"]["examples"]
    assert "from" in schema["$defs"]["Handover"]["properties"]


def test_each_source_has_its_own_closed_options(families):
    schema = recipe_json_schema(families=families)
    variants = {v["properties"]["source"]["const"]: v for v in schema["$defs"]["SourceRecipe"]["anyOf"]}
    assert set(variants) == {"records", "made"}
    assert variants["records"]["required"] == ["source", "path"]
    assert set(variants["made"]["properties"]) == {
        "source",
        "name",
        "weight",
        "losses",
        "size",
        "images",
        "weather",
        "pictures",
    }
    assert variants["made"]["additionalProperties"] is False
    evaluated = schema["$defs"]["EvalSourceRecipe"]["anyOf"]
    assert all("weight" not in variant["properties"] for variant in evaluated)


def test_references_lead_somewhere(families):
    schema = recipe_json_schema(families=families)
    json.dumps(schema)
    found = set(references(schema))
    assert "#/$defs/toy.made.Weather" in found
    for reference in found:
        assert reference.removeprefix("#/$defs/") in schema["$defs"]


def test_every_key_is_described(families):
    schema = recipe_json_schema(families=families)
    for name in ("Stage", "DataRecipe", "ModelRecipe", "EvaluationRecipe", "Handover"):
        for key, value in schema["$defs"][name]["properties"].items():
            assert value.get("description"), f"{name}.{key}"


def test_an_unknown_family_is_refused(families):
    with pytest.raises(RecipeError, match="no model family 'toi'. Did you mean 'toy'"):
        recipe_json_schema("toi", families)

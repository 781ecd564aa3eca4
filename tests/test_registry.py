"""Families by name, and checkpoints by what their config says."""

import json
import operator
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import hfvla
from hfvla.errors import CheckpointError, RecipeError
from hfvla.family import FamilySpec, FeatureCut, as_names
from hfvla.registry import available_families, family_of_checkpoint, get_family, load_checkpoint


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    spec = get_family("ember_vlm")
    recipe = {"config": spec.load("config").tiny().to_dict(), "options": {}}
    folder = tmp_path_factory.mktemp("checkpoint")
    for part in spec.load("initialise")(recipe, spec.load("examples")(4, 0), seed=0):
        part.save_pretrained(folder)
    return folder


def test_families_are_the_folders_under_models():
    families = available_families()
    assert "ember_vlm" in families and all(isinstance(spec, FamilySpec) for spec in families.values())
    assert all(name == spec.name for name, spec in families.items())
    assert families is available_families()
    assert hfvla.get_family("ember_vlm") is families["ember_vlm"]


def test_an_unknown_family_is_named_with_the_nearest():
    with pytest.raises(RecipeError, match="no family 'ember_vln'. Did you mean 'ember_vlm'"):
        get_family("ember_vln")


def test_the_family_of_a_checkpoint(checkpoint):
    assert family_of_checkpoint(checkpoint).name == family_of_checkpoint(str(checkpoint)).name == "ember_vlm"


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (None, "not a checkpoint: no config.json"),
        ("{broken", "config.json is not valid JSON"),
        ('{"model_type": "bert"}', r"another model type; got 'bert'; expected one of .*ember_vlm"),
        ("{}", "another model type"),
    ],
)
def test_folders_that_are_no_checkpoint_of_ours(tmp_path, content, match):
    if content is not None:
        (tmp_path / "config.json").write_text(content)
    with pytest.raises(CheckpointError, match=match):
        family_of_checkpoint(tmp_path)


def test_a_path_that_does_not_exist(tmp_path):
    with pytest.raises(CheckpointError, match="absent: no such checkpoint folder, and not a model on the hub"):
        family_of_checkpoint(tmp_path / "absent")


def test_a_checkpoint_is_loaded_whole(checkpoint):
    spec, model, processor = load_checkpoint(checkpoint, family="ember_vlm")
    assert type(model) is spec.load("model") and type(processor) is spec.load("processor") and not model.training
    saved = load_file(checkpoint / "model.safetensors")
    assert all(torch.equal(model.state_dict()[name], value) for name, value in saved.items())


def test_another_family_than_asked(checkpoint):
    with pytest.raises(CheckpointError, match="another family; got 'ember_vlm'; expected other"):
        load_checkpoint(checkpoint, family="other")


@pytest.mark.parametrize(
    ("change", "match"), [("drop", "missing_keys.*log_temperature"), ("shape", "mismatched_keys.*layers.0")]
)
def test_weights_that_are_missing_or_do_not_fit(checkpoint, tmp_path, change, match):
    state = load_file(checkpoint / "model.safetensors")
    if change == "drop":
        del state["log_temperature"]
    else:
        state["selection_head.layers.0.weight"] = torch.zeros(3, 3)
    save_file(state, tmp_path / "model.safetensors", metadata={"format": "pt"})
    (tmp_path / "config.json").write_text(json.dumps(json.loads((checkpoint / "config.json").read_text())))
    with pytest.raises(CheckpointError, match=match):
        load_checkpoint(tmp_path)


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("model.safetensors", r"no safetensors weights in this folder; expected model\.safetensors"),
        ("tokenizer.json", r"incomplete or damaged.*Copy the whole folder"),
    ],
)
def test_an_incomplete_checkpoint_is_one_clear_error(checkpoint, tmp_path, name, match):
    shutil.copytree(checkpoint, tmp_path / "part")
    (tmp_path / "part" / name).unlink()
    with pytest.raises(CheckpointError, match=match):
        load_checkpoint(tmp_path / "part")


def test_damaged_weights_are_one_clear_error(checkpoint, tmp_path):
    shutil.copytree(checkpoint, tmp_path / "part")
    (tmp_path / "part" / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(CheckpointError, match=r"model\.safetensors: incomplete or damaged weights"):
        load_checkpoint(tmp_path / "part")


def test_functions_of_a_cut_have_fixed_names_and_may_lie_elsewhere():
    cut = get_family("ember_vlm").feature_cuts["vision"]
    assert cut.path("encode") == "hfvla.models.ember_vlm.build:encode_vision" and callable(cut.load("encode"))
    assert cut.has("plan") and not cut.has("prompt")
    elsewhere = replace(cut, encode="operator:itemgetter", prompt="operator:add")
    assert elsewhere.load("encode") is operator.itemgetter and elsewhere.has("prompt")
    with pytest.raises(RecipeError, match=r"cut 'front' has no `prepare`.*expected one of cuts:prepare_front, build"):
        replace(cut, name="front").load("prepare")


def test_fields_of_names_take_one_string():
    spec = replace(get_family("ember_vlm"), label_names="labels", parameter_table={"vision": "vision.*"})
    assert (spec.label_names, spec.parameter_table) == (("labels",), {"vision": ("vision.*",)})
    strings = dict.fromkeys(("groups", "fields", "replaces", "provides", "config"), "vision")
    assert FeatureCut(prepare="m:f", encode="m:f", **strings).groups == ("vision",)
    assert as_names("itc") == ("itc",) and as_names(["itc", "itm"]) == ("itc", "itm")


def test_editors_are_told_every_public_name():
    stub = (Path(hfvla.__file__).parent / "__init__.pyi").read_text()
    told = set(re.findall(r"\w+ as (\w+),?$|^(\w+) = ", stub, flags=re.M))
    names = {"__version__", *(first or second for first, second in told)}
    assert names == set(dir(hfvla)) and set(hfvla.__all__) <= names
    for name in names:
        assert getattr(hfvla, name) is not None

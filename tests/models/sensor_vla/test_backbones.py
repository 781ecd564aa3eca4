"""A backbone from a checkpoint of its own, by the same door for every kind."""

import pytest
import torch
from transformers import AutoModelForImageTextToText

from hfvla.errors import RecipeError
from hfvla.models.sensor_vla.backbones import KINDS, processor_arguments, wrap_processor
from hfvla.models.sensor_vla.batches import SensorVLACollator
from hfvla.models.sensor_vla.build import build_config, fake_rows, initialise
from hfvla.models.sensor_vla.configuration_sensor_vla import SensorVLAConfig
from hfvla.models.sensor_vla.modeling_sensor_vla import SensorVLAForActionPrediction


@pytest.fixture(scope="module")
def rows():
    return fake_rows(4, 0)


@pytest.fixture(scope="module", params=sorted(KINDS))
def backbone(request, rows, tmp_path_factory):
    """A tiny image-text model with its processor, as the hub would give it; and the settings of a model on it."""
    settings = SensorVLAConfig.tiny(request.param).to_dict()
    model, ours = initialise({"config": settings, "options": {}}, rows, 0)
    folder = tmp_path_factory.mktemp(request.param)
    torch.manual_seed(1)
    whole = AutoModelForImageTextToText.from_config(model.config.backbone_config)
    whole.save_pretrained(folder)
    arguments = processor_arguments(model.config.backbone_config)
    wrap_processor(request.param, ours.image_processor, ours.tokenizer, arguments, None).save_pretrained(folder)
    return folder, whole, {name: value for name, value in settings.items() if name != "backbone_config"}


def test_a_checkpoint_of_a_backbone_is_taken_as_it_is(backbone, rows, tmp_path):
    folder, whole, settings = backbone
    model, processor = initialise({"config": settings, "options": {"backbone": str(folder)}}, rows, 0)
    found = model.backbone.state_dict()
    assert all(torch.equal(found[name], value) for name, value in whole.model.state_dict().items())
    assert all(torch.isfinite(value).all() for value in model.state_dict().values() if value.is_floating_point())
    batch = SensorVLACollator(processor, model.config)([rows[index] for index in range(4)])
    model.eval().save_pretrained(tmp_path)
    again = SensorVLAForActionPrediction.from_pretrained(tmp_path).eval()
    assert torch.equal(again(**batch).predicted_actions, model(**batch).predicted_actions)


def test_a_backbone_of_half_the_size_stays_so(backbone, rows, tmp_path):
    folder, _, settings = backbone
    options = {"backbone": str(folder), "dtype": "bfloat16"}
    model, processor = initialise({"config": settings, "options": options}, rows, 0)
    model.eval().save_pretrained(tmp_path)
    again = SensorVLAForActionPrediction.from_pretrained(tmp_path).eval()
    for one in (model, again):
        assert {parameter.dtype for parameter in one.backbone.parameters()} == {torch.bfloat16}
        assert {parameter.dtype for parameter in one.expert.parameters()} == {torch.float32}
    batch = SensorVLACollator(processor, model.config)([rows[index] for index in range(4)])
    assert torch.equal(again(**batch).predicted_actions, model(**batch).predicted_actions)


def test_a_backbone_is_named_once():
    recipe = {"config": SensorVLAConfig.tiny().to_dict(), "options": {"backbone": "Qwen/Qwen2.5-VL-3B-Instruct"}}
    with pytest.raises(RecipeError, match="both given"):
        build_config(recipe)

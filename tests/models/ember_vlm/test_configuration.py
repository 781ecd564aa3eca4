"""Configuration of EmberVLM."""

import pytest
import torch

from hfvla.data.samples.robots import ROBOTS
from hfvla.errors import CheckpointError
from hfvla.models.ember_vlm.configuration_ember_vlm import EmberVLMConfig
from hfvla.models.ember_vlm.modeling_ember_vlm import EmberVLMForRobotSelection


@pytest.fixture(scope="module")
def real_size():
    """Parameter names and counts at the real size; on the meta device, so without memory."""
    with torch.device("meta"):
        model = EmberVLMForRobotSelection(EmberVLMConfig())
    return {name: parameter.numel() for name, parameter in model.named_parameters()}


@pytest.mark.parametrize(
    ("prefix", "count"), [("vision.", 4_717_792), ("language_model.", 30_341_760), ("", 35_986_726)]
)
def test_parameters_of_the_real_size(real_size, prefix, count):
    assert sum(size for name, size in real_size.items() if name.startswith(prefix)) == count


def test_real_size_takes_49_or_8_visual_tokens():
    assert EmberVLMConfig().num_visual_tokens == 49  # (224 / 32)^2
    assert EmberVLMConfig(visual_grid=[2, 4]).num_visual_tokens == 8


def test_tiny_is_tiny():
    config = EmberVLMConfig.tiny()
    assert config.text_config.n_embd <= 64 and config.num_visual_tokens == 4
    model = EmberVLMForRobotSelection(config)
    assert sum(parameter.numel() for parameter in model.parameters()) < 100_000
    assert EmberVLMConfig.tiny(label_smoothing=0.3).label_smoothing == 0.3


def test_labels_follow_the_fleet():
    config = EmberVLMConfig()
    assert config.robots == list(ROBOTS) and config.num_robots == config.num_labels == 5
    assert config.id2label == dict(enumerate(ROBOTS))
    assert config.label2id == {"Drone": 0, "Underwater Robot": 1, "Humanoid": 2, "Robot with Wheels": 3} | {
        "Robot with Legs": 4
    }


def test_a_fleet_of_ones_own_has_its_own_outputs(tmp_path):
    config = EmberVLMConfig.tiny(robots=["Crane", "Truck", "Ferry"])
    assert config.num_robots == config.num_labels == 3 and config.id2label == {0: "Crane", 1: "Truck", 2: "Ferry"}
    assert EmberVLMForRobotSelection(config).selection_head.layers[-1].out_features == 3
    config.save_pretrained(tmp_path)
    loaded = EmberVLMConfig.from_pretrained(tmp_path)
    assert loaded.robots == ["Crane", "Truck", "Ferry"] and loaded.id2label == config.id2label


def test_everything_survives_saving(tmp_path):
    config = EmberVLMConfig.tiny(
        calibration={"temperature": 1.7, "threshold": 0.4}, loss_weights={"itc": 0.5}, visual_grid=[1, 2]
    )
    config.save_pretrained(tmp_path)
    assert EmberVLMConfig.from_pretrained(tmp_path).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"image_size": 65}, r"multiple of vision_stride; got \(65, 32\)"),
        ({"selection_loss": "hinge"}, "'hinge'; expected 'focal' or 'bce'"),
        ({"robots": ["Drone", "Crane", "Drone"]}, "robot names repeat; got .*'Crane'"),
        ({"counterfactual_decisions": 0.5}, "got '0.5 with explain_decision False'; expected 0 to 1, and"),
        ({"counterfactual_decisions": 1.5, "explain_decision": True}, "got '1.5 with explain_decision True'"),
        ({"image_size": 1024}, "1024 visual tokens of 512 positions"),
    ],
)
def test_values_that_cannot_work_are_refused(change, match):
    with pytest.raises(CheckpointError, match=match):
        EmberVLMConfig.tiny(**change)


def test_the_tower_must_have_the_channels_that_the_config_says():
    with pytest.raises(CheckpointError, match="vision_hidden_size: .* has 16 output channels; got 24; expected 16"):
        EmberVLMForRobotSelection(EmberVLMConfig.tiny(vision_hidden_size=24))

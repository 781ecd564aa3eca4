"""The save audit and resuming with models that transformers writes by other names than they have in memory."""

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import (
    AutoConfig,
    AutoModel,
    LlavaForConditionalGeneration,
    PaliGemmaForConditionalGeneration,
    PreTrainedConfig,
    PreTrainedModel,
    Qwen2_5_VLForConditionalGeneration,
)

from hfvla.errors import CheckpointError
from hfvla.family import ParameterGroup
from hfvla.training.checkpoint.audit import audit_reload
from hfvla.training.checkpoint.stored import stored_state
from hfvla.training.run.saving import save_and_audit

from ..toy import ToyOutput, build_trainer, changed, snapshot

SMALL = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 8}
PICTURE = {"image_size": 8, "patch_size": 4}
TEXT = {"vocab_size": 20, "num_key_value_heads": 2, **SMALL}
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 0]}
VISION = {"model_type": "siglip_vision_model", **PICTURE, **SMALL}
CONFIGS = {
    "vit": ("vit", {**PICTURE, **SMALL}),
    "dinov2": ("dinov2", {**PICTURE, **SMALL}),
    "siglip": ("siglip", {"text_config": {"vocab_size": 20, **SMALL}, "vision_config": {**PICTURE, **SMALL}}),
    "llava": (
        "llava",
        {
            "text_config": {"model_type": "llama", **TEXT},
            "vision_config": {"model_type": "clip_vision_model", **PICTURE, **SMALL},
        },
    ),
    "paligemma": (
        "paligemma",
        {"text_config": {"model_type": "gemma", "head_dim": 4, **TEXT}, "vision_config": VISION, "projection_dim": 8},
    ),
    "qwen2_5_vl": (
        "qwen2_5_vl",
        {
            "text_config": {"rope_parameters": MROPE, **TEXT},
            "vision_config": {
                "depth": 1,
                "hidden_size": 8,
                "intermediate_size": 8,
                "num_heads": 2,
                "out_hidden_size": 8,
            },
        },
    ),
}
CLASSES = {
    "llava": LlavaForConditionalGeneration,
    "paligemma": PaliGemmaForConditionalGeneration,
    "qwen2_5_vl": Qwen2_5_VLForConditionalGeneration,
}
OTHER_NAMES = {"vit", "dinov2", "llava", "paligemma", "qwen2_5_vl"}


def tower(name: str):
    kind, settings = CONFIGS[name]
    config = AutoConfig.for_model(kind, **settings)
    return CLASSES[name](config) if name in CLASSES else AutoModel.from_config(config)


class WrapperConfig(PreTrainedConfig):
    model_type = "wrapper_for_tests"


class Wrapper(PreTrainedModel):
    """A tower of transformers' with a head: what a family or a script builds."""

    config_class = WrapperConfig

    def __init__(self, config):
        super().__init__(config)
        self.tower = tower(config.tower)
        self.head = nn.Linear(8, 1)
        self.post_init()

    def forward(self, features, target=None, **kwargs):
        found = self.head(self.tower(features.reshape(-1, 1, 1, 1).expand(-1, 3, 8, 8)).last_hidden_state[:, 0])[:, 0]
        terms = {"fit": ((found - target) ** 2).mean()}
        return ToyOutput(loss=terms["fit"], loss_terms=terms, logits=found)


def build(name: str, part: bool):
    torch.manual_seed(0)
    return Wrapper(WrapperConfig(tower=name)) if part else tower(name)


@pytest.mark.parametrize("part", [False, True], ids=["whole", "part"])
@pytest.mark.parametrize("name", CONFIGS)
def test_right_checkpoints_are_accepted_and_wrong_ones_refused(tmp_path, name, part):
    model = build(name, part)
    model.save_pretrained(tmp_path)
    path, values = tmp_path / "model.safetensors", model.state_dict()
    saved = load_file(path)
    assert (set(saved) - set(values) != set()) == (name in OTHER_NAMES)  # else this test is about nothing
    loaded = audit_reload(model, tmp_path, values)
    assert not changed(loaded, values) and not changed(model, stored_state(model, tmp_path))
    longest = max(saved, key=lambda key: saved[key].numel())
    for change, message in (
        ({longest: torch.empty(0)}, "empty|another shape"),
        ({longest: saved[longest].flatten()[:-1]}, "another shape"),
        ({longest: saved[longest] + 1}, "another value"),
        ({longest: None}, "missing"),
    ):
        save_file({k: v for k, v in {**saved, **change}.items() if v is not None}, path, {"format": "pt"})
        with pytest.raises(CheckpointError, match=f"does not hold what was trained.*({message})"):
            audit_reload(model, tmp_path, values)


@pytest.mark.parametrize("name", ["vit", "dinov2"])
def test_a_stage_with_such_a_tower_trains_resumes_and_is_saved(tmp_path, name):
    groups = {"tower": ParameterGroup(("tower.*",)), "head": ParameterGroup(("head.*",))}
    rows = [{"features": [float(n)], "target": 1.0, "value": 0.0} for n in range(8)]
    from ..toy import collate

    def trainer(folder, model):
        args = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2, "learning_rate": 1e-2}
        extra = {"groups": groups, "data_collator": collate}
        return build_trainer(folder, model, rows, train=["tower", "head"], args=args, extra=extra)

    whole = trainer(tmp_path / "a", build(name, True))
    before = snapshot(whole.model)
    whole.train()
    assert any(key.startswith("tower.") for key in changed(whole.model, before))
    torch.manual_seed(5)
    resumed = trainer(tmp_path / "b", Wrapper(WrapperConfig(tower=name)))  # other weights: the checkpoint must win
    resumed.train(resume_from_checkpoint=str(tmp_path / "a/checkpoint-1"))
    assert not changed(resumed.model, whole.model.state_dict())
    assert save_and_audit(whole, tmp_path / "stage")["largest_difference"] == 0
    assert set(load_file(tmp_path / "stage/model.safetensors")) == set(before)  # hand-overs go by name


def test_weights_loaded_in_one_type_are_compared_as_they_are_on_disk(tmp_path):
    model = build("vit", True)
    model.tower.to(torch.bfloat16)  # transformers loads all in the type of the first
    model.save_pretrained(tmp_path, save_original_format=False)
    audit_reload(model, tmp_path, model.state_dict())
    path = tmp_path / "model.safetensors"
    saved = load_file(path)
    assert saved["head.weight"].dtype == torch.float32
    save_file({**saved, "head.weight": saved["head.weight"] + 1e-6}, path, {"format": "pt"})
    with pytest.raises(CheckpointError, match=r"of another value: head\.weight"):
        audit_reload(model, tmp_path, model.state_dict())

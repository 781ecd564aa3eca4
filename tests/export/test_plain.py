"""Backbones and adapters for people without hfvla, loaded in a process that cannot import it."""

import copy
import json
import os
import subprocess
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file

from hfvla.errors import CheckpointError
from hfvla.export.plain import write_adapter, write_backbone
from hfvla.recipe.stage_schema import Lora
from hfvla.training.checkpoint.adapters import merged_model, write_adapters
from hfvla.training.lora.injection import inject, lora_config, lora_targets

from ..contract.conftest import build

STRANGER = """
import sys

sys.modules["hfvla"] = None  # wherever it is installed, it cannot be imported here

import torch
from peft import PeftModel
from safetensors.torch import load_file, save_file
from transformers import AutoModelForImageTextToText, AutoTokenizer

try:
    import hfvla
    sys.exit("hfvla is here")
except ImportError:
    pass
merged, base, adapter, inputs, output = sys.argv[1:]
batch = load_file(inputs)
models = {
    "merged": AutoModelForImageTextToText.from_pretrained(merged),
    "adapter": PeftModel.from_pretrained(AutoModelForImageTextToText.from_pretrained(base), adapter),
}
AutoTokenizer.from_pretrained(merged)
with torch.no_grad():
    found = {name: model.eval()(**batch).logits for name, model in models.items()}
save_file(found, output)
"""


@pytest.fixture
def trained(tmp_path):
    """A final folder with adapters and a projector that trained, the plain backbone below, and the model in memory."""
    built = build("internvl_video_qa")
    model = built.copy()
    base = tmp_path / "base"
    model.backbone.save_pretrained(base)
    lora = Lora(target=r"re:.*language_model.*\.(q|v)_proj", r=4, alpha=8)
    inject(model, lora_config(lora, lora_targets(model, built.spec.groups, lora)))
    torch.manual_seed(0)
    for name, parameter in model.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.1)
    model.backbone.model.multi_modal_projector.linear_1.weight.data += 0.05
    state = {name: value.detach().clone() for name, value in model.state_dict().items()}
    final = tmp_path / "final"
    merged = merged_model(model, copy.deepcopy(state))
    merged.save_pretrained(final)
    built.processor.save_pretrained(final)
    write_adapters(model, state, final)
    recipe = {"family": built.spec.name, "name": "tiny", "model": {"options": {"backbone": str(base)}}}
    (final / "recipe.json").write_text(json.dumps(recipe))
    return final, base, model


def tokens():
    return {"input_ids": torch.arange(20, 44).view(2, 12), "attention_mask": torch.ones(2, 12, dtype=torch.long)}


@pytest.mark.slow
@pytest.mark.distributed
def test_a_process_without_hfvla_loads_both_and_computes_the_same(trained, tmp_path):
    final, base, model = trained
    told = write_backbone(final, tmp_path / "merged")
    assert told["class"] == "InternVLForConditionalGeneration" and told["left_out"] == 0
    told = write_adapter(final, tmp_path / "adapter")
    assert told["whole_modules"] == ["model.multi_modal_projector.linear_1"] and told["base"] == str(base)
    config = json.loads((tmp_path / "adapter" / "adapter_config.json").read_text())
    assert config["base_model_name_or_path"] == str(base) and "backbone" not in config["target_modules"]
    save_file(tokens(), tmp_path / "in.safetensors")
    names = ["merged", base, "adapter", "in.safetensors", "out.safetensors"]
    done = subprocess.run(
        [sys.executable, "-I", "-c", STRANGER, *(str(tmp_path / name) for name in names)],
        capture_output=True, text=True, check=False, timeout=500,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    with torch.no_grad():
        wanted = model.backbone.eval()(**tokens()).logits
    for found in load_file(tmp_path / "out.safetensors").values():
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_an_adapter_needs_the_backbone_that_it_began_from(trained, tmp_path):
    final, base, _ = trained
    (final / "recipe.json").write_text(json.dumps({"model": {"options": {}}}))
    with pytest.raises(CheckpointError, match=r"this run names none; expected model\.options\.backbone"):
        write_adapter(final, tmp_path / "adapter")
    other = build("internvl_video_qa").copy().backbone
    with torch.no_grad():
        other.model.language_model.layers[0].self_attn.q_proj.weight += 1.0
    other.save_pretrained(tmp_path / "other")
    with pytest.raises(CheckpointError, match="what was written is not what was trained"):
        write_adapter(final, tmp_path / "adapter", base=str(tmp_path / "other"))
    assert not (tmp_path / "adapter").exists()


def test_a_checkpoint_without_adapters_has_no_adapter_form(checkpoint_folder, tmp_path):
    with pytest.raises(CheckpointError, match="the adapter form needs one adapter; got 'none'"):
        write_adapter(checkpoint_folder, tmp_path / "adapter")


@pytest.fixture
def checkpoint_folder(tmp_path):
    built = build("ember_vlm")
    built.model.save_pretrained(tmp_path / "plain")
    built.processor.save_pretrained(tmp_path / "plain")
    return tmp_path / "plain"


def test_the_language_model_alone(checkpoint_folder, tmp_path):
    told = write_backbone(checkpoint_folder, tmp_path / "merged")
    assert told["class"] == "GPT2LMHeadModel" and told["left_out"] > 0
    config = json.loads((tmp_path / "merged" / "config.json").read_text())
    assert config["model_type"] == "gpt2" and (tmp_path / "merged" / "tokenizer.json").is_file()


def test_a_model_of_transformers_is_its_own_backbone(tmp_path):
    built = build("chat_vlm")
    built.model.save_pretrained(tmp_path / "plain")
    built.processor.save_pretrained(tmp_path / "plain")
    told = write_backbone(tmp_path / "plain", tmp_path / "merged")
    assert told["left_out"] == 0 and told["class"] == type(built.model).__name__
    with pytest.raises(CheckpointError, match="the adapter form needs one adapter"):
        write_adapter(tmp_path / "plain", tmp_path / "adapter")


def test_an_adapter_above_four_bits_is_not_handed_on_for_whole_weights(trained, tmp_path):
    final, _, _ = trained
    recipe = json.loads((final / "recipe.json").read_text())
    stages = [{"name": "one"}, {"name": "two", "lora": {"target": "language", "qlora": True}}]
    (final / "recipe.json").write_text(json.dumps({**recipe, "stages": stages}))
    with pytest.raises(CheckpointError, match=r"trained on four-bit weights.*Take the form 'merged' or 'final'"):
        write_adapter(final, tmp_path / "adapter")
    assert write_backbone(final, tmp_path / "merged")["left_out"] == 0  # the same checkpoint has this form

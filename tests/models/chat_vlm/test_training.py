"""Recipes from the first stage to a checkpoint that transformers loads where hfvla is not."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from hfvla.recipe import load_recipe
from hfvla.registry import family_of_checkpoint, load_checkpoint
from hfvla.training.estimate import plan_recipe
from hfvla.training.run.run import run_recipe

ROOT = Path(__file__).parents[3]
SMOKE = ROOT / "recipes" / "chat_vlm" / "smoke.yaml"
QUICK = [
    "data.train.shapes.size=16", "data.eval.held_out.size=4", "args.per_device_train_batch_size=4",
    "args.max_steps=2", "evaluation.max_generate=4", "evaluation.bootstrap_samples=0",
]  # fmt: skip

ALONE = """
import sys
class NotHere:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "hfvla":
            raise ImportError("hfvla is not here")
sys.meta_path.insert(0, NotHere())
import json
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
model, info = AutoModelForImageTextToText.from_pretrained(sys.argv[1], output_loading_info=True)
processor = AutoProcessor.from_pretrained(sys.argv[1])
ask = [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What colour is the circle?"}]}]
text = processor.apply_chat_template(ask, add_generation_prompt=True, tokenize=False)
batch = processor(text=[text], images=[Image.new("RGB", (32, 32), (200, 30, 30))], return_tensors="pt")
written = model.generate(**batch, max_new_tokens=3, do_sample=False)
assert "hfvla" not in sys.modules
state = {name: float(value.double().sum()) for name, value in model.state_dict().items()}
keys = [len(info[key]) for key in ("missing_keys", "unexpected_keys")]
print(json.dumps([type(model).__name__, keys, written.shape[1], state]))
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    out = tmp_path_factory.mktemp("run") / "out"
    return run_recipe(load_recipe(SMOKE, QUICK), out), out


@pytest.mark.slow
def test_the_checkpoint_is_the_plain_model(run):
    _, out = run
    done = subprocess.run(
        [sys.executable, "-c", ALONE, str(out / "final")], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    kind, keys, length, state = json.loads(done.stdout)
    assert kind == "LlavaForConditionalGeneration" and keys == [0, 0] and length > 3
    spec, model, _ = load_checkpoint(out / "final")
    assert spec.name == "chat_vlm" == family_of_checkpoint(out / "final").name
    assert {name: float(value.double().sum()) for name, value in model.state_dict().items()} == state
    config = json.loads((out / "final" / "config.json").read_text())
    assert config["model_type"] == "llava" and "loss_weights" not in config and "hfvla" not in json.dumps(config)


@pytest.mark.slow
def test_the_adapter_is_pefts_own(run):
    """PeftModel on the projector stage's model with the prefer stage's adapter is the merged model of that stage."""
    from peft import PeftModel

    _, out = run
    _, base, _ = load_checkpoint(out / "projector")
    _, merged, processor = load_checkpoint(out / "lora")
    adapted = PeftModel.from_pretrained(base, out / "lora" / "adapter").merge_and_unload()
    values = merged.state_dict()
    moved = 0
    for name, value in adapted.state_dict().items():
        if "language_model" in name:
            torch.testing.assert_close(value, values[name], atol=1e-6, rtol=1e-5)
            moved += not torch.equal(value, load_checkpoint_value(out / "projector", name))
    assert moved == 14  # 2 layers of 7 linear ones


def load_checkpoint_value(folder, name):
    from safetensors import safe_open

    with safe_open(str(folder / "model.safetensors"), framework="pt") as file:
        return file.get_tensor(name)


@pytest.mark.slow
def test_every_stage_trained_and_was_audited(run):
    record, out = run
    assert [stage["name"] for stage in record["stages"]] == ["projector", "lora", "prefer"]
    for stage in record["stages"]:
        assert stage["audit"]["largest_difference"] < 1e-5 and stage["audit"]["tensors"] > 60
        assert {
            f"loss_terms.{name}" for name in (["dpo", "distill"] if stage["name"] == "prefer" else ["sft"])
        } <= set(stage["audit"]["outputs"])
    assert set(record["stages"][1]["scores"]) >= {"eval_loss_sft", "eval_answer_accuracy", "eval_token_accuracy"}
    assert record["metrics"]["n"] == 4 and {"most_frequent", "question_only"} & set(record["baselines"])


def test_the_plan_says_what_was_taken_for_what():
    plan = plan_recipe(load_recipe(SMOKE, []))
    parts = {row["part"]: row["parameters"] for row in plan["parameters"]}
    assert list(parts) == [
        "vision: model.vision_tower.*, layers model.vision_tower.encoder.layers",
        "projector: model.multi_modal_projector.*",
        "language: model.language_model.*, layers model.language_model.layers",
    ]
    assert sum(parts.values()) == plan["total_parameters"]

"""What a person does in the first hour, as commands: each job under a minute on two cores, none with a hidden key."""

import json

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.distributed]

OWN_MODEL = """
import sys
import torch
from transformers import TrainingArguments
sys.path.insert(0, {examples!r})
import own_model_stages as own
from hfvla.family import ParameterGroup
from hfvla.recipe import Lora, Stage
from hfvla.training.trainer.trainer import StagedTrainer

torch.manual_seed(0)
model, rows = own.PictureText(own.PreTrainedConfig()), own.make_rows(64, seed=1)
adapters = Lora(target="re:text.*attention.self.(query|value)", r=4, alpha=8)
stage = Stage(name="adapt", train=["lora", "projections"], losses={{"match": 1.0, "colour": 0.5}}, lora=adapters)
args = TrainingArguments(output_dir="own/checkpoints", num_train_epochs=1, per_device_train_batch_size=16,
                         learning_rate=5e-3, report_to="none", use_cpu=True, save_strategy="no")
trainer = StagedTrainer(model, args, stage=stage, groups=own.GROUPS, train_dataset=rows)
trainer.train()
trainer.save_model("own/final")
batch = {{"pixel_values": torch.stack([row["pixel_values"] for row in rows[:4]]),
          "labels": torch.tensor([row["labels"] for row in rows[:4]])}}
model.eval()
with torch.no_grad():
    wanted = model(**batch)["logits"]
    again = own.PictureText.from_pretrained("own/final").eval()(**batch)["logits"]
torch.testing.assert_close(again, wanted, atol=1e-5, rtol=1e-4)
print("equal", sum(p.numel() for p in model.parameters() if p.requires_grad))
"""


def test_own_captions(newcomer, data):
    """Look at them, check them, train a model on them, look at what came out, ask it."""
    folder = data / "captions"
    shown = newcomer.hfvla("data", "inspect", folder)
    assert "24" in shown
    newcomer.hfvla("data", "check", folder)
    source = {"source": "vision_language", "path": str(folder)}
    recipe = newcomer.recipe(
        "chat_vlm/smoke",
        data={"train": [source], "validation": {"fraction": 0.2}, "test": {"fraction": 0.2}},
        stages=[{"name": "sft", "train": ["projector", "language"], "losses": {"sft": 1.0}}],
        output_dir="captions",
    )
    plan = newcomer.hfvla("plan", recipe)
    assert len(plan.splitlines()) <= 25 and "sft" in plan
    newcomer.hfvla("train", recipe)
    record = json.loads((newcomer.folder / "captions/run.json").read_text())
    assert record["finished"] and record["evaluation"]["test"]["metrics"]["n"] == 5
    found = newcomer.hfvla("inspect", "captions/final", "--json")
    assert found["family"] == "chat_vlm"
    newcomer.hfvla("eval", "--checkpoint", "captions/final", "--data", "validation", "--output", "captions_validation")


def test_own_lerobot_folder(newcomer, data):
    """Its sizes come from meta/; then a score on episodes held out, and one action."""
    recipe = newcomer.recipe("sensor_vla/lerobot")
    changes = [f"data.train.lerobot.path={data / 'lerobot'}", "stages.all.args.num_train_epochs=1", "output_dir=robot"]
    newcomer.hfvla("train", recipe, *changes)
    config = json.loads((newcomer.folder / "robot/final/config.json").read_text())
    assert config["views"] == ["front"] and config["state_dim"] == 2
    assert (config["action"]["dim"], config["action"]["fps"], config["action"]["names"]) == (2, 10.0, ["dx", "dy"])
    metrics = json.loads((newcomer.folder / "robot/metrics.json").read_text())
    assert metrics["n"] == 12 and {"hold_last", "mean_action"} <= set(metrics["baselines"])
    picture = data / "captions/images/000.png"
    words = ["--task", "push red", "--view", f"front={picture}", "--state", "1,2", "--json"]
    reply = newcomer.hfvla("predict", "--checkpoint", "robot/final", *words)
    assert len(reply["actions"]) == 8 and len(reply["actions"][0]) == 2


def test_own_clips(newcomer, data):
    """Questions on clips: train, answer one, write a submission."""
    source = {"source": "road_videos", "path": str(data / "road_videos/train.json")}
    recipe = newcomer.recipe(
        "internvl_video_qa/smoke",
        data={"train": [source], "validation": {"fraction": 0.2}, "test": {"fraction": 0.2}},
        output_dir="clips",
    )
    newcomer.hfvla("train", recipe)
    clip = data / "road_videos/videos/red_0.mp4"
    asked = ["--video", clip, "--question", "Which colour?", "--choices", "Red|Blue", "--json"]
    reply = newcomer.hfvla("predict", "--checkpoint", "clips/final", *asked)
    assert reply["letter"] in "AB" and sum(reply["probabilities"].values()) == pytest.approx(1)
    file = f"road_videos={data / 'road_videos/train.json'}"
    newcomer.hfvla("predict", "--checkpoint", "clips/final", "--data", file, "--csv", "answers.csv")
    assert len((newcomer.folder / "answers.csv").read_text().splitlines()) == 7


def test_own_two_tower_model_with_lora(newcomer):
    """In Python: adapters on the text tower, saved as an ordinary checkpoint, loaded again with equal outputs."""
    from .conftest import ROOT

    script = newcomer.folder / "own.py"
    script.write_text(OWN_MODEL.format(examples=str(ROOT / "examples")))
    assert newcomer.python(script).splitlines()[-1].startswith("equal")


@pytest.fixture(scope="module")
def tasks(newcomer, data):
    """Two runs on tasks of one's own: one that was killed and went on, and one with another seed."""
    source = {"source": "robot_selection", "path": str(data / "robot_selection/single.json")}
    recipe = newcomer.recipe(
        "ember_vlm/smoke",
        data={"train": [source], "validation": {"fraction": 0.2}, "test": {"fraction": 0.2}},
        stages=[
            {"name": "selection", "train": ["language", "fusion", "selection_head"], "losses": {"selection": 1.0},
             "args": {"num_train_epochs": 3}, "keep_checkpoints": "all"},
        ],
    )  # fmt: skip
    first = newcomer.folder / "first/selection/checkpoints/checkpoint-1"
    newcomer.kill_when(first, "train", recipe, "output_dir=first")
    newcomer.hfvla("train", recipe, "output_dir=first")
    newcomer.hfvla("train", recipe, "output_dir=second", "seed=1")
    return recipe


def test_kill_and_resume(newcomer, tasks):
    """It goes on from the checkpoint, and ends as one that nobody touched."""
    said = (newcomer.folder / "first/logs/run.log").read_text()
    assert "stage 'selection' goes on from checkpoint-" in said
    assert json.loads((newcomer.folder / "first/run.json").read_text())["finished"]
    newcomer.hfvla("train", tasks, "output_dir=whole")
    for name in ("selection/model.safetensors", "final/model.safetensors"):
        assert (newcomer.folder / "first" / name).read_bytes() == (newcomer.folder / "whole" / name).read_bytes()
    longer = ["output_dir=first", "stages.selection.args.num_train_epochs=4", "--extend", "selection"]
    newcomer.hfvla("train", tasks, *longer)
    assert json.loads((newcomer.folder / "first/selection/stage.json").read_text())["epochs"] == 4


def test_compare_two_checkpoints(newcomer, tasks, data):
    """The same rows, differences paired, relative to the first."""
    source = f"robot_selection={data / 'robot_selection/single.json'}"
    two = ["--checkpoint", "first/final", "--checkpoint", "second/final"]
    newcomer.hfvla("compare", *two, "--data", source, "--output", "both")
    found = json.loads((newcomer.folder / "both/comparison.json").read_text())
    assert found and "first" in (newcomer.folder / "both/comparison.md").read_text()


def test_a_key_that_no_page_names_is_noticed(newcomer):
    (newcomer.folder / "ember_vlm_smoke.yaml").unlink(missing_ok=True)  # copied by another job
    with pytest.raises(AssertionError, match="no page names the key wobble"):
        newcomer.recipe("ember_vlm/smoke", wobble=1)
    with pytest.raises(AssertionError, match="no page names --wobble"):
        newcomer.hfvla("train", "x.yaml", "--wobble", "1")

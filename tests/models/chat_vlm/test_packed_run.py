"""A recipe that mixes two sources by temperature and packs them, from its data to its log."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
from datasets import Dataset

from hfvla.data.inspection.converting import convert_rows
from hfvla.data.samples.chat import ChatSample, chat_features
from hfvla.models.chat_vlm import FAMILY
from hfvla.recipe import load_recipe
from hfvla.training.run.run import run_recipe

SMOKE = Path(__file__).parents[3] / "recipes" / "chat_vlm" / "smoke.yaml"


@pytest.fixture
def copied(tmp_path):
    """Eight questions of a set of its own, as `hfvla data convert` writes it."""
    samples = [ChatSample.from_row(row) for row in FAMILY.load("examples")(8, 1)]
    rows = [replace(one, rejected=(), source="copied", split="train").to_row() for one in samples]
    table = Dataset.from_dict({key: [row[key] for row in rows] for key in chat_features()}, features=chat_features())
    convert_rows(table, tmp_path / "copied", "jsonl")
    return tmp_path / "copied"


@pytest.mark.slow
def test_two_sources_are_mixed_and_packed(copied, tmp_path):
    import yaml

    tree = yaml.safe_load(SMOKE.read_text())
    shapes = {"source": "shapes", "size": 32, "image_size": 32}
    tree["data"] = {
        "mixture": {"kind": "temperature", "temperature": 2.0, "rows": 48},
        "train": [shapes, {"source": "vision_language", "path": str(copied), "cache_dir": str(tmp_path / "cache")}],
        "validation": {"fraction": 0},
    }
    packed = {"name": "words", "train": ["projector", "language"], "losses": {"sft": 1.0}}
    tree["stages"] = [{**packed, "packing": {"max_length": 200}, "cache": {"dtype": "float32"}}]
    tree["args"] = {"num_train_epochs": 1, "per_device_train_batch_size": 2, "logging_steps": 1}
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(tree))
    run_recipe(load_recipe(tmp_path / "recipe.yaml"), output_dir=tmp_path / "run")
    stage = json.loads((tmp_path / "run" / "words" / "stage.json").read_text())
    report = stage["packing"]
    assert stage["cache"]["misses"] == 40  # each picture is seen once, packed or not
    # 48 rows of 32 and 8 by the square root of 4: 32 and 16.
    assert stage["rows"]["train"] == report["rows"] == 48
    assert report["sequences"] < 24 and report["padding_after"] < 0.35
    assert stage["steps"] == -(-report["sequences"] // 2)
    lines = json.loads((tmp_path / "run" / "words" / "log_history.json").read_text())
    logged = {key for line in lines for key in line}
    assert {"words/loss_sft", "words/loss_sft/copied", "words/loss_sft/shapes"} <= logged

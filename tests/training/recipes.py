"""Small recipes and robot-selection files for runs."""

import json
from pathlib import Path

from hfvla.data.samples.robots import ROBOTS
from hfvla.recipe import Recipe

PLACES = ["roof", "reef", "valve", "parcel", "hill", "bridge", "tunnel", "garden", "harbour", "tower", "field", "mine"]
ACTIONS = ["Inspect", "Clean", "Measure", "Film"]

MODEL = {
    "config": {
        "vision_config": {
            "architecture": "repvit_m0_9",
            "do_pooling": False,
            "model_args": {"embed_dim": [8, 8, 16, 16], "depth": [1, 1, 1, 1]},
        },
        "text_config": {
            **{"n_layer": 2, "n_head": 2, "n_embd": 32, "n_inner": 64, "n_positions": 256},
            **{"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0},
        },
        "image_size": 64,
        "vision_hidden_size": 16,
        "selection_hidden_size": 16,
        "selection_dropout": 0.0,
        "word_dropout": 0.0,
    },
    "options": {"tokenizer_vocab_size": 400},
}


def tasks(count: int = 48) -> list[tuple[str, str]]:
    """Return different tasks with the robot each place asks for."""
    pairs = [(f"{action} the {place}", ROBOTS[PLACES.index(place) % 5]) for action in ACTIONS for place in PLACES]
    return pairs[:count]


def write_tasks(path: Path, chosen: list[tuple[str, str]]) -> str:
    """Write a robot-selection file and return its path."""
    records = [{"instruction": "Pick robots.", "input": f"Task: {task}", "output": robot} for task, robot in chosen]
    path.write_text(json.dumps(records))
    return str(path)


def build_recipe(path: str, output: Path, stages: list[dict] | None = None, **changes) -> Recipe:
    """Return a recipe of two short stages on one file."""
    settings = {"per_device_train_batch_size": 8, "num_train_epochs": 2, "learning_rate": 5e-3, "logging_steps": 1}
    tree = {
        "family": "ember_vlm",
        "name": "tiny",
        "seed": 3,
        "output_dir": str(output),
        "model": MODEL,
        "data": {"train": [{"source": "robot_selection", "path": path}], "validation": {"fraction": 0.25}},
        "args": {**settings, "adam_epsilon": 1e-4, "disable_tqdm": True},
        "stages": stages or [selection_stage(), reasoning_stage()],
        **changes,
    }
    return Recipe.model_validate(tree)


def selection_stage(**changes) -> dict:
    stage = {"name": "selection", "train": ["language", "fusion", "selection_head"], "losses": {"selection": 1.0}}
    return {**stage, **changes}


def reasoning_stage(**changes) -> dict:
    stage = {
        "name": "reasoning",
        "train": ["language.last(1)", "selection_head"],
        "losses": {"selection": 1.0, "reasoning": 1.0, "consistency": 0.4},
        "learning_rates": {"selection_head": 1e-3},
        "args": {"num_train_epochs": 2, "learning_rate": 2e-3},
    }
    return {**stage, **changes}

"""Bytes on disk of a run: checkpoints that stay, and those that hold adapters alone."""

from hfvla.recipe import Recipe
from hfvla.training.estimate.tools import disk_bytes

PLANNED = {"checkpoint_bytes": 100, "adapter_bytes": 10, "resume_bytes": 300, "epochs": 5}


def recipe(**stage) -> Recipe:
    made = {"name": "one", "train": ["head"], "losses": {"selection": 1.0}, **stage}
    return Recipe.model_validate({"family": "ember_vlm", "stages": [made]})


def test_what_stays_counts():
    gone = disk_bytes(recipe(), [PLANNED])
    assert gone == {"finished": 100 + 10 + 100, "most": 100 + 10 + 3 * 300}
    last = disk_bytes(recipe(keep_checkpoints="last"), [PLANNED])
    best = disk_bytes(recipe(keep_checkpoints="last", keep_best="eval_loss"), [PLANNED])
    every = disk_bytes(recipe(keep_checkpoints=True), [PLANNED])
    assert last["finished"] == gone["finished"] + 300 and best["finished"] == gone["finished"] + 2 * 300
    assert every == {"finished": gone["finished"] + 5 * 300, "most": 110 + 6 * 300}
    limited = recipe(keep_checkpoints=True, args={"save_total_limit": 3})
    assert disk_bytes(limited, [PLANNED])["finished"] == gone["finished"] + 3 * 300

"""A real two-stage run: the upgraded adapters compute at load what the plain ones did, and then learn."""

import json

import pytest
import torch

from hfvla.models.internvl_retrieval import FAMILY
from hfvla.recipe import Recipe
from hfvla.training.checkpoint.handover import load_state
from hfvla.training.run.run import run_recipe

from .conftest import recipe as model_section

UPGRADE = {"adapter": {"skip": True, "layer_norm": True}}
ADDED = {f"{side}_adapter.{part}" for side in ("image", "text") for part in (
    "skip.weight", "norm.gate", "norm.norm.weight", "norm.norm.bias")}  # fmt: skip


def build(folder, rate, **handover):
    foundation = {
        "name": "foundation",
        "train": ["vision", "projector", "language", "adapters", "grid", "itm_head", "temperature"],
        "losses": {"itc": 1.0, "itm": 1.0},
        "batches": {"rows_per_group": 1},
    }
    multitask = {
        "name": "multitask",
        "train": ["adapters", "temperature"],
        "losses": {"itc": 1.0, "itm": 1.0, "bbox": 0.05, "spatial": 0.05},
        "model": UPGRADE,
        "args": {"learning_rate": rate, "max_steps": 2},
        "phases": [{"step": 1, "add": ["heads", "language.last(1)"], "losses": {"bbox": 0.1}}],
        "handover": handover or {"new": ["*_adapter.skip", "*_adapter.norm"]},
    }
    tree = {
        "family": "internvl_retrieval",
        "seed": 1,
        "output_dir": str(folder),
        "model": {**model_section(), "options": {"tokenizer_vocab_size": 400}},
        "data": {
            "train": [{"source": "drone", "buildings": 12, "views": 2, "captions": 1, "image_size": 32}],
            "validation": {"fraction": 0.0},
        },
        "args": {"per_device_train_batch_size": 4, "max_steps": 3, "learning_rate": 3e-3, "adam_epsilon": 1e-4,
                 "lr_scheduler_type": "constant", "disable_tqdm": True, "use_cpu": True},
        "stages": [foundation, multitask],
    }  # fmt: skip
    return Recipe.model_validate(tree)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """One run whose second stage does not learn (rate 0), so that its end is its beginning; and one that does."""
    folder = tmp_path_factory.mktemp("stages")
    for name, rate in (("still", 0.0), ("learning", 3e-3)):
        run_recipe(build(folder / name, rate))
    return folder / "still", folder / "learning"


def test_the_upgraded_model_equals_the_first_stage_at_load(runs, rows):
    before, after = (FAMILY.load("model").from_pretrained(runs[0] / name) for name in ("foundation", "multitask"))
    processor = FAMILY.load("processor").from_pretrained(runs[0] / "multitask")
    assert before.config.adapter["skip"] is False and after.config.adapter == {"dropout": 0.0, **UPGRADE["adapter"]}
    batch = FAMILY.load("collator")(processor, after.config, losses=tuple(FAMILY.losses))([dict(row) for row in rows])
    with torch.inference_mode():
        expected, found = before.eval()(**batch), after.eval()(**batch)
    for name in ("image_embeds", "text_embeds", "logits_per_image", "box_predictions", "spatial_logits"):
        torch.testing.assert_close(found[name], expected[name], atol=1e-6, rtol=1e-6)
    for name, term in expected.loss_terms.items():
        torch.testing.assert_close(found.loss_terms[name], term, atol=1e-6, rtol=1e-6)


def test_the_hand_over_says_what_is_new(runs):
    report = json.loads((runs[0] / "multitask" / "handover.json").read_text())
    assert {tensor["name"] for tensor in report["tensors"] if tensor["status"] == "new"} == ADDED
    assert report["counts"]["carried"] == len(load_state(runs[0] / "foundation"))


def test_then_the_added_parts_learn(runs):
    still, learned = (load_state(folder / "multitask") for folder in runs)
    assert all(not still[f"{side}_adapter.norm.gate"].any() for side in ("image", "text"))
    changed = {name for name, value in learned.items() if not torch.equal(value, still[name])}
    assert changed >= ADDED | {"bbox_head.0.weight", "backbone.language_model.layers.1.mlp.up_proj.weight"}
    assert not {name for name in changed if name.startswith(("backbone.vision", "backbone.language_model.layers.0"))}


def test_an_upgrade_that_is_not_announced_is_refused(tmp_path):
    from hfvla.errors import HfvlaError

    with pytest.raises(HfvlaError, match=r"8 tensors change.*new: image_adapter\.skip\.weight"):
        run_recipe(build(tmp_path, 1e-3, new=[]))

"""The two stages as a run does them: an expert on cached features, then LoRA, saved, merged and handed over."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from hfvla.errors import RecipeError
from hfvla.family import Metric
from hfvla.models.sensor_vla import FAMILY
from hfvla.recipe import load_recipe
from hfvla.registry import load_checkpoint
from hfvla.training.checkpoint.handover import load_state
from hfvla.training.checkpoint.merging import merge_checkpoint
from hfvla.training.run.arguments import stage_arguments
from hfvla.training.run.build_caches import build_caches
from hfvla.training.run.run import run_recipe
from hfvla.training.stage.data import RecipeData

from .conftest import observe

ROOT = Path(__file__).parents[3]
NEW_PARTS = ("sensor_encoder", "state_encoder", "fusion", "expert")
SMALL = [
    "data.train.reaching.episodes=6", "data.train.reaching.steps=5", "data.eval.held_out.episodes=2",
    "data.eval.held_out.steps=5", "evaluation.bootstrap_samples=5", "args.num_train_epochs=1",
    "args.disable_tqdm=true", "args.use_cpu=true", "args.per_device_train_batch_size=8",
]  # fmt: skip


def recipe(output, *overrides):
    return load_recipe(ROOT / "recipes/sensor_vla/smoke.yaml", [*SMALL, f"output_dir={output}", *overrides])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A finished run of both stages."""
    out = tmp_path_factory.mktemp("stages") / "run"
    run_recipe(recipe(out))
    return out


def moved(one, two):
    return {name for name, value in one.items() if not torch.equal(value, two[name])}


def test_a_run_splits_by_episode(tmp_path):
    """Windows and chunks of neighbouring steps overlap: a split of steps would validate on what was trained."""
    made = recipe(tmp_path)
    rows = RecipeData(FAMILY, made).stage_rows(made.stages[0])
    train, validation = ({row["episode"] for row in part} for part in (rows.train, rows.validation))
    assert train and validation and train.isdisjoint(validation)
    assert len(rows.train) + len(rows.validation) == 30 and len(validation) * 5 == len(rows.validation)


def test_the_first_stage_trains_the_new_parts_on_cached_features(folder):
    record = json.loads((folder / "run.json").read_text())["stages"]
    census = record[0]["cache"]
    assert census["samples"] == census["misses"] > 0 and "cache" not in record[1]
    rows = build_caches(recipe(folder))[0]  # the same again: everything is there
    assert rows["hits"] == census["samples"] and rows["misses"] == 0


def test_the_second_stage_starts_from_the_first(folder):
    report = json.loads((folder / "lora/handover.json").read_text())
    first = load_state(folder / "expert")
    assert report["counts"]["carried"] == len(first) and not report["counts"].get("left_behind")
    assert report["counts"].get("new", 0) == sum("lora_" in tensor["name"] for tensor in report["tensors"])


def test_lora_trains_the_language_model_and_nothing_else_of_the_backbone(folder):
    merge_checkpoint(folder / "lora", folder / "merged")
    first, merged = load_state(folder / "expert"), load_state(folder / "merged")
    changed = moved(first, merged)
    backbone = {name for name in changed if name.startswith("backbone.")}
    layers = [f"backbone.language_model.layers.{layer}.self_attn" for layer in (0, 1)]
    assert backbone == {f"{layer}.{name}_proj.weight" for layer in layers for name in "qkvo"}
    assert {name.partition(".")[0] for name in changed - backbone} == set(NEW_PARTS)


def test_adapter_and_heads_are_saved_and_merging_changes_no_prediction(folder, tmp_path):
    assert any((folder / "lora/adapter").rglob("*.safetensors"))
    merge_checkpoint(folder / "lora", tmp_path / "plain")
    assert not (tmp_path / "plain/adapter").exists()
    answers = []
    for path in (folder / "lora", tmp_path / "plain"):
        _, model, processor = load_checkpoint(path, family="sensor_vla")
        model.eval()
        noise = torch.Generator().manual_seed(1)
        answers.append(model.predict_actions(processor, [observe()], generator=noise))
    np.testing.assert_allclose(answers[0], answers[1], rtol=1e-4, atol=1e-7)
    _, model, processor = load_checkpoint(folder / "expert", family="sensor_vla")
    before = model.eval().predict_actions(processor, [observe()], generator=torch.Generator().manual_seed(1))
    assert np.abs(before - answers[0]).max() > 1e-6


def test_the_final_checkpoint_is_evaluated(folder):
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["n"] == 10 and metrics["failures"] == 0
    assert {"hold_last", "mean_action"} == set(metrics["baselines"])
    assert {"without_sensor", "shuffled_sensor", "blank_views", "without_state"} == set(metrics["ablations"])
    assert {"mse", "first_mse", "mse/dx", "skill/hold_last"} <= set(metrics)


def test_the_best_epoch_is_the_one_with_the_smallest_error(tmp_path):
    """`eval_action_mse` is an error: of a family that names it so, less is better."""
    made = recipe(tmp_path)
    assert made.stages[0].keep_best == "eval_action_mse" and all(metric.is_error for metric in FAMILY.metrics)
    other = (Metric("action_mse", lower_is_better=False, quick=True),)
    for spec, greater in ((FAMILY, False), (dataclasses.replace(FAMILY, metrics=other), True)):
        found = stage_arguments(made, made.stages[0], spec, tmp_path, has_validation=True)
        assert found.metric_for_best_model == "eval_action_mse" and found.greater_is_better is greater


def test_cached_features_are_refused_where_the_backbone_trains(tmp_path):
    """LoRA on cached features would get no gradient; the original trained it so."""
    for override in ("stages.lora.lora.target=language", "stages.lora.train=[lora, language]"):
        with pytest.raises(RecipeError, match="needs vision, projector, language frozen, but 'language' trains"):
            recipe(tmp_path, "stages.lora.cache=true", override)
    regex = recipe(tmp_path, "stages.lora.cache=true")
    with pytest.raises(RecipeError, match="stays frozen through the whole stage.*lora on 're:"):
        build_caches(regex, stage="lora")
    assert not list(tmp_path.rglob("*.arrow"))

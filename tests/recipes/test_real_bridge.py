"""Robot episodes as `make real` reads them from RLDS files, and what stands beside the model: on drawn ones."""

import io
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from tests.recipes.real_parts import write_language

from hfvla.recipe import load_recipe
from hfvla.training.run.run import run_recipe

ROOT = Path(__file__).parents[2]
EPISODES, STEPS = 15, 6
TASKS = ("put the cup away", "turn the lever")
pytestmark = pytest.mark.usefixtures("scripts")


def record(features):
    import bridge

    message = bridge.example_class()()
    for name, values in features.items():
        kind = {bytes: "bytes_list", float: "float_list", int: "int64_list"}[type(values[0])]
        getattr(message.features.feature[name], kind).value.extend(values)
    return message.SerializeToString()


def colour(task, step):
    return (250 if task else 10, 40 * step, 100)


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """Episodes whose actions follow from state and task, linearly."""
    folder, generator = tmp_path_factory.mktemp("rlds"), np.random.default_rng(0)
    with (folder / "arm-train.tfrecord-00000-of-00001").open("wb") as file:
        for episode in range(EPISODES):
            task = episode % 2
            state = generator.normal(size=(STEPS, 7))
            action = 0.1 * state + (0.5 if task else -0.5)
            pictures = []
            for step in range(STEPS):
                stored = io.BytesIO()
                Image.new("RGB", (32, 32), colour(task, step)).save(stored, "PNG")
                pictures.append(stored.getvalue())
            body = record({
                "steps/observation/image_0": pictures,
                "steps/observation/state": [float(one) for one in state.ravel()],
                "steps/action": [float(one) for one in action.ravel()],
                "steps/language_instruction": [TASKS[task].encode()] * STEPS,
                "steps/is_last": [0] * (STEPS - 1) + [300],
            })  # fmt: skip
            file.write(struct.pack("<Q", len(body)) + b"crc1" + body + b"crc2")
    return folder


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory):
    import bridge

    return bridge.build_bridge(source, tmp_path_factory.mktemp("data") / "bridge")


def test_records_of_rlds_become_rows_with_the_same_numbers_and_pixels(source, folder, tmp_path):
    import bridge
    import robot

    file = next(source.iterdir())
    first = bridge.example(next(bridge.records(file)))
    assert first["steps/is_last"].tolist() == [0] * (STEPS - 1) + [300]
    rows = bridge.rows_of(folder)
    assert len(rows) == EPISODES * STEPS and {row["task"] for row in rows} == set(TASKS)
    steps = robot.Steps(rows)
    np.testing.assert_allclose(steps.actions[:STEPS, 0].ravel(), first["steps/action"], rtol=1e-6)
    assert steps.mask[STEPS - 1].tolist() == [True, False, False, False]
    assert np.isnan(steps.before[0]).all() and np.allclose(steps.before[1], steps.actions[0, 0])
    from hfvla.data.samples.actions import FrameRef
    from hfvla.data.signals.frame_loader import FrameLoader

    view = {key: value for key, value in rows[STEPS + 2]["views"][0].items() if key != "name"}
    assert FrameLoader().load([FrameRef(**view)])[0][5, 5].tolist() == list(colour(1, 2))
    (tmp_path / "cut-train.tfrecord-0").write_bytes(file.read_bytes()[:500])
    with pytest.raises(ValueError, match="ends inside a record"):
        bridge.build_bridge(tmp_path, tmp_path / "made")
    with pytest.raises(ValueError, match=r"no tf\.train\.Example"):
        bridge.example(b"\xff\xff")
    with pytest.raises(ValueError, match="no \\*train.tfrecord"):
        bridge.build_bridge(tmp_path / "nowhere", tmp_path / "made")


def test_another_seed_holds_out_other_episodes_of_every_instruction(folder):
    import bridge

    rows = bridge.rows_of(folder)
    splits = [bridge.split_episodes(rows, seed) for seed in (7, 8)]
    for split in splits:
        assert sorted(split["train"] + split["test"]) == list(range(EPISODES))
        assert {number % 2 for number in split["test"]} == {0, 1} and len(split["test"]) == 3
    assert splits[0] != splits[1]


def test_a_ridge_finds_what_follows_from_state_and_instruction(folder, tmp_path):
    import bridge
    import robot

    torch.manual_seed(0)
    timm.models.save_for_hf(timm.create_model("test_efficientnet"), str(tmp_path / "tower"), safe_serialization=True)
    rows = bridge.rows_of(folder)
    features = robot.tower_features(tmp_path / "tower", rows, 64)
    assert features.shape == (EPISODES * STEPS, 4 * 256)
    found = robot.baselines(rows, features, bridge.split_episodes(rows, 7))
    errors = {name: scores[robot.ERROR] for name, scores in found.items()}
    assert errors["mean action"] == 1.0 and errors["hold the last action"] < 0.5  # a task's actions are alike
    assert errors["ridge on state and instruction"] < 0.1  # first steps follow exactly, later ones by the task
    assert found["ridge on state and instruction"]["first action"] < 1e-3
    assert set(found["mean action"]) == set(robot.SCORES)


def test_the_recipe_trains_on_episodes_and_is_scored_on_others(folder, tmp_path):
    import bridge
    import parts
    import robot

    timm.models.save_for_hf(timm.create_model("test_efficientnet"), str(tmp_path / "tower"), safe_serialization=True)
    joined = parts.join(tmp_path / "tower", write_language(tmp_path / "language", layers=1), tmp_path / "joined", 64)
    split = bridge.split_episodes(bridge.rows_of(folder), 7)
    options = [f"model.options.backbone={joined}", "evaluation.bootstrap_samples=20", "evaluation.ablations=false"]
    options += ["stages.expert.args.max_steps=2", f"stages.expert.cache.folder={tmp_path / 'cache'}"]
    for place, part in (("train.lerobot", "train"), ("eval.held_out", "test")):
        options += [f"data.{place}.path={folder}", f"data.{place}.episodes={split[part]}"]
    run_recipe(load_recipe(ROOT / "recipes/sensor_vla/real.yaml", options), output_dir=tmp_path / "run")
    found = robot.of_run(tmp_path / "run")
    assert set(found) == {""} and set(found[""]) == set(robot.SCORES)
    assert np.isfinite(found[""][robot.ERROR]) and found[""][robot.ERROR] > 0
    cache = json.loads((tmp_path / "run" / "expert" / "stage.json").read_text())["cache"]
    assert cache["samples"] == cache["misses"] == len(split["train"]) * STEPS

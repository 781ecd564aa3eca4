"""A recipe with `hub:` pushes its result once, at the end, and loses nothing where the hub is away."""

import json

import pytest

from hfvla.errors import CheckpointError, HfvlaError
from hfvla.hub import push as push_module
from hfvla.recipe import load_recipe
from hfvla.registry import load_checkpoint
from hfvla.training.run.run import run_recipe

from ..training.recipes import build_recipe, selection_stage, tasks, write_tasks


def recipe_for(tmp_path, **more):
    file = write_tasks(tmp_path / "tasks.json", tasks())
    data = {"train": [{"source": "robot_selection", "path": file}], "validation": {"fraction": 0.25}}
    data["eval"] = {"real": {"source": "robot_selection", "path": file}}
    stage = selection_stage(args={"num_train_epochs": 1})
    settings = {"evaluation": {"bootstrap_samples": 10, "max_generate": 0, "ablations": False}, "data": data}
    return build_recipe(file, tmp_path / "run", [stage], hub={"repo": "me/tiny", "license": "mit"}, **settings, **more)


@pytest.mark.slow
def test_a_run_pushes_its_result_once_and_a_hub_that_is_away_loses_nothing(hub, tmp_path, monkeypatch):
    monkeypatch.setattr(push_module.time, "sleep", lambda seconds: None)
    hub.commits_left = 0
    recipe = recipe_for(tmp_path)
    with pytest.raises(CheckpointError, match="the push failed; the repository is as it was"):
        run_recipe(recipe)
    assert hub.files("me/tiny") == {}
    assert (tmp_path / "run" / "report.html").is_file() and (tmp_path / "run" / "metrics.json").is_file()
    hub.commits_left = None
    record = run_recipe(recipe)  # the stage is finished: the result is scored and pushed
    assert len(hub.repositories["me/tiny"].commits) == 2 and record["hub"]["repo"] == "me/tiny"
    files = hub.files("me/tiny")
    assert {"README.md", "model.safetensors", "report.html", "metrics.json", "recipe.json"} <= set(files)
    card = files["README.md"].decode()
    assert "license: mit" in card and f"{record['metrics']['exact_match']:.3f}" in card and "ajority" in card
    assert json.loads((tmp_path / "run" / "run.json").read_text())["hub"]["commit"] == record["hub"]["commit"]
    spec, model, processor = load_checkpoint("me/tiny")
    assert model.config.calibration == json.loads(files["config.json"])["calibration"]


def test_a_run_that_cannot_push_does_not_begin(hub, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(HfvlaError, match=r"hub\.repo: me/tiny: there is no token of the hub here"):
        run_recipe(recipe_for(tmp_path))
    assert not (tmp_path / "run").exists()


def test_an_adapter_needs_a_last_stage_with_one(tmp_path):
    text = """
family: internvl_video_qa
data: {train: [{source: road, size: 8}]}
hub: {repo: me/x, what: adapter}
stages:
  - {name: one, train: [projector], losses: {letters: 1.0}}
"""
    (tmp_path / "r.yaml").write_text(text)
    with pytest.raises(
        HfvlaError, match=r"hub\.what: the last stage trains no adapters \(`lora`\); say final or merged"
    ):
        load_recipe(tmp_path / "r.yaml")

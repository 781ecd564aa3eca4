"""Trackers write below `<out>/logs`, without a network, a key or a question."""

import json
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from hfvla.errors import MissingExtraError
from hfvla.training.run import trackers
from hfvla.training.run.run import run_recipe
from hfvla.training.run.trackers import chosen_trackers, stage_logs

from ..recipes import build_recipe, reasoning_stage, selection_stage, tasks, write_tasks
from ..toy import build_trainer

NAMES = ("TENSORBOARD_LOGGING_DIR", "WANDB_DIR", "WANDB_MODE", "WANDB_PROJECT", "WANDB_API_KEY", "TRACKIO_DIR")


@pytest.fixture(autouse=True)
def _plain_environment(monkeypatch, tmp_path):
    for name in (*NAMES, "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run of two stages, one step each, that says nothing about trackers."""
    folder = tmp_path_factory.mktemp("trackers")
    file = write_tasks(folder / "tasks.json", tasks(24))
    stages = [selection_stage(args={"max_steps": 1}), reasoning_stage(args={"max_steps": 1})]
    section = {"train": [{"source": "robot_selection", "path": file}], "validation": {"fraction": 0.25}}
    section["eval"] = {"seen": {"source": "robot_selection", "path": file}}
    evaluation = {"bootstrap_samples": 0, "max_generate": 0, "ablations": False}
    recipe = build_recipe(file, folder / "run", stages, data=section, evaluation=evaluation)
    return folder / "run", run_recipe(recipe)


def test_tensorboard_by_default_one_folder_a_stage(run):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    folder, _ = run
    files = sorted(path.parent.relative_to(folder) for path in folder.rglob("events.out.tfevents.*"))
    assert [str(path) for path in files] == ["logs/evaluation", "logs/reasoning", "logs/selection"]
    events = EventAccumulator(str(folder / "logs/reasoning"))
    events.Reload()
    assert "train/reasoning/loss_consistency" in events.Tags()["scalars"]
    (point,) = events.Scalars("train/reasoning/loss_selection")
    history = json.loads((folder / "reasoning/log_history.json").read_text())
    line = next(line for line in history if "reasoning/loss_selection" in line)
    assert point.step == 1 and point.value == pytest.approx(line["reasoning/loss_selection"])


def test_the_environment_is_as_before(run, tmp_path, monkeypatch):
    import os

    assert not [name for name in NAMES if name in os.environ]
    monkeypatch.setenv("TENSORBOARD_LOGGING_DIR", "mine")
    with stage_logs(tmp_path, "a", "p"):
        assert os.environ["TENSORBOARD_LOGGING_DIR"] == "mine"
    assert os.environ["TENSORBOARD_LOGGING_DIR"] == "mine"


def test_a_named_tracker_must_be_installed(monkeypatch):
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    assert chosen_trackers() == "none" and chosen_trackers("none") == "none"
    with pytest.raises(MissingExtraError, match=r"args.report_to: trackio needs .* 'trackio'. .*hfvla\[track\]"):
        chosen_trackers(["none", "trackio"])
    monkeypatch.setattr(trackers, "find_spec", lambda name: SimpleNamespace())
    assert chosen_trackers() == ["tensorboard"] and chosen_trackers(["wandb"]) == ["wandb"]


def test_a_recipe_names_its_tracker(tmp_path, monkeypatch):
    from hfvla.registry import get_family
    from hfvla.training.run.arguments import stage_arguments

    recipe = build_recipe("x.json", tmp_path / "run", args={"report_to": "none"})
    spec = get_family("ember_vlm")
    arguments = stage_arguments(recipe, recipe.stages[0], spec, tmp_path, has_validation=False)
    assert arguments.report_to == [] and arguments.run_name == "tiny-selection" and arguments.project == "tiny"
    recipe = build_recipe("x.json", tmp_path / "run", args={})
    arguments = stage_arguments(recipe, recipe.stages[0], spec, tmp_path, has_validation=False)
    assert arguments.report_to == ["tensorboard"]


@pytest.mark.parametrize(
    ("key", "netrc", "answers", "offline"),
    [
        (None, None, True, True),
        ("k", None, True, False),
        ("k", None, False, True),
        (None, "machine api.wandb.ai login user password k", True, False),
        (None, "machine", True, True),  # torn
    ],
)
def test_wandb_is_offline_without_key_or_network(tmp_path, monkeypatch, key, netrc, answers, offline):
    import os

    if find_spec("wandb") is None:
        pytest.skip("wandb is not installed")
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    if netrc:
        (tmp_path / "home").mkdir()
        (tmp_path / "home/.netrc").write_text(netrc)
        (tmp_path / "home/.netrc").chmod(0o600)
    monkeypatch.setattr(trackers, "_answers", lambda host, port: answers and (host, port) == ("api.wandb.ai", 443))
    with stage_logs(tmp_path, "a", "p", "wandb"):
        assert os.environ.get("WANDB_MODE") == ("offline" if offline else None)
    monkeypatch.setenv("WANDB_MODE", "online")
    with stage_logs(tmp_path, "a", "p", ["wandb"]):
        assert os.environ["WANDB_MODE"] == "online"


def test_a_network_that_does_not_answer_is_left_soon(monkeypatch):
    monkeypatch.setattr(trackers, "_CONNECT_TIMEOUT_S", 0.3)
    monkeypatch.setattr("socket.create_connection", lambda *_, **__: __import__("time").sleep(30))
    assert trackers._answers("api.wandb.ai", 443) is False


def test_wandb_trains_offline_one_run_a_stage(tmp_path):
    wandb = pytest.importorskip("wandb")
    for stage in ("one", "two"):
        with stage_logs(tmp_path, stage, "project", "wandb"):
            build_trainer(tmp_path / "run", name=stage, args={"report_to": "wandb", "run_name": stage}).train()
            assert wandb.run.settings.mode == "offline" and wandb.run.project == "project"
        assert wandb.run is None
        (folder,) = (tmp_path / "logs" / stage / "wandb").glob("offline-run-*")
        assert [path for path in folder.glob("run-*.wandb") if path.stat().st_size > 100]


def test_trackio_keeps_a_run_in_its_folder(tmp_path):
    if find_spec("trackio") is None or "trackio" in sys.modules:
        pytest.skip("trackio is not installed, or was imported before (it reads its folder then)")
    for stage in ("one", "two"):
        with stage_logs(tmp_path, stage, "project", "trackio"):
            args = {"report_to": "trackio", "run_name": stage, "project": "project"}
            build_trainer(tmp_path / "run", name=stage, args=args).train()
    import sqlite3

    (database,) = (tmp_path / "logs/trackio").glob("*.db")
    rows = sqlite3.connect(database).execute("select run_name, metrics from metrics").fetchall()
    assert {name for name, _ in rows} == {"one", "two"}
    assert any("train/one/loss_fit" in str(metrics) for _, metrics in rows)


def test_the_summary_of_the_run(run):
    folder, record = run
    found = json.loads((folder / "experiment_summary.json").read_text())
    assert found["seed"] == 3 and found["versions"] == record["versions"] and found["commit"] == record["commit"]
    assert [stage["name"] for stage in found["stages"]] == ["selection", "reasoning"]
    for stage, summary in zip(found["stages"], record["stages"], strict=True):
        assert stage["seconds"] == summary["seconds"] and stage["steps"] == 1
        assert stage["scores"] == summary["scores"] and "eval_jaccard" in stage["scores"]
        (phase,) = stage["trainable"]
        assert phase["trainable"] == summary["trainable_parameters"] and 0 < phase["share"] < 1
        assert stage["energy"] is None and stage["samples"] == 8  # one step of 8
    totals = found["totals"]
    assert totals["steps"] == 2 and totals["samples"] == 16 and totals["energy_kwh"] is None
    assert totals["stages_without_energy"] == 2 and totals["seconds"] == pytest.approx(record["seconds"], abs=5)
    assert found["metrics"] == {"seen": record["metrics"]} and set(found["baselines"]) == {"seen"}

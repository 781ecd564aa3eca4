"""A run and an evaluation on two and three processes: each set and source by its share, the numbers of one process."""

import json
from pathlib import Path

import pytest
import yaml

from hfvla.evaluation.run import evaluate_checkpoint
from hfvla.recipe import load_recipe, resolved_dict

from ..launching import launch
from ..recipes import build_recipe, selection_stage, tasks, write_tasks

pytestmark = pytest.mark.distributed

SETS = {"first": 7, "second": 5}


def make(folder):
    """Two sources, two evaluation sets of odd sizes, a cached stage and one after it."""
    pairs = tasks(48)
    paths = {name: write_tasks(folder / f"{name}.json", pairs[30 : 30 + size]) for name, size in SETS.items()}
    sources = [
        write_tasks(folder / f"train_{number}.json", pairs[start : start + 15]) for number, start in enumerate((0, 15))
    ]
    section = {
        "train": [
            {"source": "robot_selection", "name": name, "path": path} for name, path in zip("ab", sources, strict=True)
        ],
        "validation": {"fraction": 0.3},
        "eval": {name: {"source": "robot_selection", "path": path} for name, path in paths.items()},
    }
    stage = selection_stage(args={"num_train_epochs": 1, "per_device_train_batch_size": 4, "ddp_timeout": 600})
    evaluation = {"bootstrap_samples": 5, "max_generate": 1, "batch_size": 2}
    recipe = build_recipe("", folder / "run", [stage], data=section, evaluation=evaluation)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(resolved_dict(recipe)))
    return paths


@pytest.fixture(scope="module", params=[2, 3])
def shared(request, tmp_path_factory):
    """Return what the processes left, how many they were, what each said, and what one finds for their checkpoint."""
    folder = tmp_path_factory.mktemp(f"on_{request.param}")
    paths = make(folder)
    told = launch(request.param, Path(__file__).parent / "shared_worker.py", folder)
    sets = {name: {"source": "robot_selection", "path": path} for name, path in paths.items()}
    options = {
        "seed": load_recipe(folder / "recipe.yaml").seed,
        "batch_size": 2,
        "max_generate": 1,
        "bootstrap_samples": 5,
    }
    alone = evaluate_checkpoint(folder / "run/final", sets, folder / "alone", device="cpu", **options)
    return folder, request.param, [json.loads(text.splitlines()[-1]) for text in told], alone


def read(path):
    return json.loads(path.read_text())


def lines(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_all_took_part_and_one_wrote(shared):
    folder, count, told, _ = shared
    assert told == [[count, rank == 0, ["first"], rank == 0] for rank in range(count)]
    assert read(folder / "run/run.json")["processes"] == count
    assert (folder / "run/report.html").is_file() and (folder / "eval/report.html").is_file()
    assert not list(folder.glob("*/.meeting-*"))


def test_the_scores_are_those_of_one_process(shared):
    folder, _, _, alone = shared
    run = read(folder / "run/run.json")["evaluation"]
    for name, size in SETS.items():
        assert run[name]["metrics"] == pytest.approx(alone[name].metrics, abs=1e-6)
        found = lines(folder / f"run/predictions_{name}.jsonl")
        assert found == lines(folder / f"alone/predictions_{name}.jsonl") and len(found) == size
    again = read(folder / "eval/metrics.json")
    assert {name: again[name] for name in alone["first"].metrics} == pytest.approx(alone["first"].metrics, abs=1e-6)
    assert again["ablations"].keys() == alone["first"].ablations.keys()
    assert again["baselines"].keys() == alone["first"].baselines.keys() and again["baselines"]
    assert lines(folder / "eval/predictions.jsonl") == lines(folder / "alone/predictions_first.jsonl")


def test_the_timeout_of_the_recipe_is_in_force():
    """One process waits in a collective for another that is busy for longer than `ddp_timeout` (2 s)."""
    waited, busy = launch(2, Path(__file__).parent / "timeout_worker.py")
    assert waited.startswith("stopped: ") and busy.strip() == "busy"

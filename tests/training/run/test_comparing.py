"""`hfvla compare`: recipes of equal budget are trained, finished ones used again, and the result written."""

import json

import pytest

from hfvla.cli import main
from hfvla.errors import DataError, RecipeError
from hfvla.evaluation.comparison_file import load_comparison
from hfvla.recipe import resolved_dict, save_resolved
from hfvla.training.run import comparing

RECIPE = """
family: ember_vlm
data:
  train: [{source: fleet, size: 20}]
args: {per_device_train_batch_size: 4, num_train_epochs: 2}
stages:
  - {name: only, train: [selection_head], losses: {selection: 1.0}}
"""


@pytest.fixture
def trained(monkeypatch):
    """What was trained: (folder, seed, learning rate); a run writes scores that depend on both."""
    calls = []

    def run_recipe(recipe, output_dir):
        rate = recipe.args.get("learning_rate", 5e-5)
        calls.append((output_dir.parent.name, recipe.seed, rate))
        epochs = recipe.stages[0].args.get("num_train_epochs", recipe.args["num_train_epochs"])
        stage = {"name": "only", "steps": 5 * epochs, "epochs": epochs, "rows": {"train": 20}, "seconds": 1.0,
                 "parameters": 10, "trainable_parameters": 5, "best_step": None}  # fmt: skip
        output_dir.mkdir(parents=True)
        save_resolved(recipe, output_dir / "recipe.json")
        record = {"recipe": resolved_dict(recipe), "stages": [stage], "processes": 1, "evaluation": {"test": {}}}
        (output_dir / "run.json").write_text(json.dumps(record))
        hits = [(n + recipe.seed) % 2 or rate > 1e-4 for n in range(8)]
        rows = [{"id": str(n), "group": str(n // 2), "scores": {"hit": float(hit)}} for n, hit in enumerate(hits)]
        (output_dir / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        (output_dir / "metrics.json").write_text(json.dumps({"hit": sum(hits) / 8}))

    monkeypatch.setattr(comparing, "run_recipe", run_recipe)
    return calls


@pytest.fixture
def file(tmp_path):
    (tmp_path / "recipe.yaml").write_text(RECIPE)

    def write(second="", more=""):
        text = f"""
runs:
  quick: {{recipe: recipe.yaml, overrides: [args.learning_rate=1e-3, {second}]}}
  plain: {{recipe: recipe.yaml}}
seeds: [0, 1]
metrics: {{hit: hit}}
{more}
"""
        (tmp_path / "compare.yaml").write_text(text)
        return tmp_path / "compare.yaml"

    return write


def test_all_runs_then_none(file, trained, tmp_path, capsys):
    words = ["compare", str(file()), "--output", str(tmp_path / "out"), "--json"]
    for _ in range(2):
        with pytest.raises(SystemExit) as caught:
            main(words)
        assert not caught.value.code
    found = json.loads(capsys.readouterr().out.split("\n}\n")[0] + "\n}")
    assert trained == [("quick", 0, 1e-3), ("plain", 0, 5e-5), ("quick", 1, 1e-3), ("plain", 1, 5e-5)], "once each"
    assert found["reference"] == "plain" and found["budget"]["samples_seen"] == {"quick": 40, "plain": 40}
    (metric,) = found["metrics"]
    assert metric["differences"]["quick"] == {"value": 0.5, "interval": [0.5, 0.5], "relative": 1.0}
    assert json.loads((tmp_path / "out" / "comparison.json").read_text()) == found
    assert "+0.500 [+0.500, +0.500]" in (tmp_path / "out" / "comparison.md").read_text()


def test_a_changed_recipe_is_not_taken_for_finished(file, trained, tmp_path, monkeypatch):
    comparison = load_comparison(file())
    comparing.run_comparison(comparison, output_dir=tmp_path / "out")
    asked = []

    def refuse(recipe, output_dir):
        asked.append(output_dir)
        raise RecipeError("this folder holds a run of another recipe")

    monkeypatch.setattr(comparing, "run_recipe", refuse)
    with pytest.raises(RecipeError, match="another recipe"):
        comparing.run_comparison(comparison, ["args.weight_decay=0.1"], tmp_path / "out")
    assert asked == [tmp_path / "out" / "quick" / "seed_0"]


def test_unequal_budgets_are_refused_with_their_numbers(file, trained, tmp_path):
    unequal = "args.num_train_epochs=3"
    with pytest.raises(DataError, match="equal budget; got {'quick': 60, 'plain': 40}.*at most 2%"):
        comparing.run_comparison(load_comparison(file(unequal)), output_dir=tmp_path / "out")
    assert len(trained) == 2, "the second seed is not trained for nothing"
    found = comparing.run_comparison(load_comparison(file(unequal, "budget: any")), output_dir=tmp_path / "out")
    assert found["budget"]["largest_difference"] == pytest.approx(0.5)


def test_a_mistake_in_the_last_recipe_costs_no_training(file, trained, tmp_path):
    path = file()
    path.write_text(path.read_text().replace("plain: {recipe: recipe.yaml}", "plain: {recipe: recipe.yaml, "
                                             "overrides: [stages.only.train=nothing]}"))  # fmt: skip
    with pytest.raises(RecipeError, match="nothing"):
        comparing.run_comparison(load_comparison(path), output_dir=tmp_path / "out")
    assert not trained

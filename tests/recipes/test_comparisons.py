"""The shipped comparison names recipes that load; a comparison of two smoke runs goes from the file to the table."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from hfvla.evaluation.comparison_file import load_comparison
from hfvla.recipe import load_recipe

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "recipes").glob("*/compare*.yaml"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.parent.name)
def test_its_recipes_load_with_all_overrides(path):
    comparison = load_comparison(path)
    folders = set()
    for run in comparison.runs.values():
        recipe = load_recipe(run.recipe, [*comparison.overrides, *run.overrides])
        assert recipe.data.scored, "a recipe without an evaluation set has no scores"
        folders.add(recipe.output_dir)
    assert len(folders) == len(comparison.runs) and comparison.output_dir not in folders


@pytest.mark.slow
def test_two_smoke_runs(tmp_path):
    """Trains both, then uses both again; the second run may not train."""
    smoke = ROOT / "recipes" / "internvl_retrieval" / "smoke.yaml"
    (tmp_path / "file.yaml").write_text(
        f"""
runs:
  slow: {{recipe: {smoke}}}
  quick: {{recipe: {smoke}, overrides: [args.learning_rate=0.003]}}
overrides: [evaluation.ablations=false]
metrics: {{mean_recall: [t2i_r1, t2i_r5, t2i_r10, i2t_r1, i2t_r5, i2t_r10], box_iou: box_iou}}
bootstrap_samples: 50
"""
    )
    command = [sys.executable, "-m", "hfvla.cli", "compare", str(tmp_path / "file.yaml"), "--json"]
    results = []
    for _ in range(2):
        done = subprocess.run(
            [*command, "--output", str(tmp_path / "out")], cwd=ROOT, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr[-3000:]
        results.append(json.loads(done.stdout))
        assert ("is finished; it is used as it is" in done.stderr) == (len(results) == 2)
    assert results[0] == results[1]
    recall, boxes = results[0]["metrics"]
    reported = json.loads((tmp_path / "out" / "quick" / "seed_0" / "metrics.json").read_text())
    assert recall["scores"]["quick"]["value"] == pytest.approx(reported["mean_recall"])
    low, high = boxes["differences"]["slow"]["interval"]
    assert low <= boxes["differences"]["slow"]["value"] <= high
    samples = results[0]["budget"]["samples_seen"]
    assert samples["slow"] == samples["quick"] > 0

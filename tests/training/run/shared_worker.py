"""Trains and evaluates a recipe, then evaluates its checkpoint again, on any number of processes.

`shared_worker.py FOLDER`: FOLDER holds recipe.yaml; `run` and `eval` are written there.
"""

import json
import sys
from pathlib import Path

from hfvla.data.processes import Processes
from hfvla.evaluation.run import evaluate_checkpoint
from hfvla.recipe import load_recipe
from hfvla.training.run.run import run_recipe


def main(folder: Path) -> None:
    recipe = load_recipe(folder / "recipe.yaml")
    record = run_recipe(recipe, output_dir=folder / "run")
    sets = {"first": {"source": "robot_selection", "path": recipe.data.eval["first"].options["path"]}}
    results = evaluate_checkpoint(
        folder / "run/final",
        sets,
        folder / "eval",
        device="cpu",
        seed=recipe.seed,
        batch_size=2,
        max_generate=1,
        bootstrap_samples=5,
    )
    processes = Processes.current()
    print(json.dumps([processes.count, "metrics" in record, sorted(results), bool(results["first"].intervals)]))


if __name__ == "__main__":
    main(Path(sys.argv[1]))

"""Grouped k-fold cross-validation on the real single-robot file: `make crossval DATA=<folder>`.

Trains the recipe's foundation stage once, on generated tasks only; then, for each fold, the remaining stages on the
fold's training part, and scores the fold's test part with `hfvla eval`. No task is in both parts. Prints one table:
ours and every baseline, mean over folds, the range of folds, and the pooled score with its bootstrap interval.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from hfvla.data.rows.splits import grouped_folds
from hfvla.data.samples.robots import normalise_task
from hfvla.metrics.bootstrap import bootstrap_intervals
from hfvla.metrics.selection import selection_scores, set_matrix
from hfvla.recipe import load_recipe

METRICS = ("top1_in_set", "exact_match", "jaccard", "macro_f1", "ece")
SINGLE = "single_robot_selection.json"


def run(*words: str) -> None:
    """Run one `hfvla` command; its output goes to the terminal."""
    subprocess.run([sys.executable, "-m", "hfvla.cli", *words], check=True)


def write_folds(data: Path, folds: int, seed: int, output: Path) -> list[tuple[Path, Path]]:
    """Write <output>/fold<k>/{train,test}.json, grouped by normalised task; return the two files of each fold."""
    records = json.loads((data / SINGLE).read_text(encoding="utf-8"))
    parts = grouped_folds([normalise_task(record["input"]) for record in records], folds, seed)
    files = []
    for index, held_out in enumerate(parts):
        folder = output / f"fold{index}"
        folder.mkdir(parents=True, exist_ok=True)
        test = set(held_out.tolist())
        pair = folder / "train.json", folder / "test.json"
        pair[0].write_text(json.dumps([record for i, record in enumerate(records) if i not in test], indent=1))
        pair[1].write_text(json.dumps([record for i, record in enumerate(records) if i in test], indent=1))
        files.append(pair)
    return files


def train_fold(args: argparse.Namespace, foundation: Path, train: Path, test: Path, folder: Path) -> dict[str, Any]:
    """Train the stages after the foundation on one fold and evaluate its test part."""
    names = [stage.name for stage in load_recipe(args.recipe, [f"data.train.robot_selection.path={train}"]).stages]
    run(
        "train",
        args.recipe,
        f"data.train.robot_selection.path={train}",
        "data.eval={}",
        "--output",
        str(folder / "run"),
        "--start-at",
        names[1],
        "--from",
        str(foundation),
    )
    checkpoint, out = str(folder / "run" / "final"), str(folder / "eval")
    run(
        "eval", "--checkpoint", checkpoint, "--data", f"robot_selection={test}", "--output", out, "--max-generate", "0"
    )
    return json.loads((folder / "eval" / "metrics.json").read_text())


def pooled(folders: list[Path], seed: int) -> tuple[dict[str, float], dict[str, tuple[float, float]]]:
    """Score the test predictions of all folds together, with a bootstrap over tasks."""
    rows = [json.loads(line) for folder in folders for line in (folder / "eval" / "predictions.jsonl").open()]
    robots = list(rows[0]["scores"])
    arrays = {
        "gold": set_matrix([row["gold"] for row in rows], robots),
        "predicted": set_matrix([row["prediction"] for row in rows], robots),
        "probabilities": np.array([[row["scores"][robot] for robot in robots] for row in rows]),
    }
    groups = [normalise_task(row["task"]) for row in rows]
    scores = selection_scores(**arrays)
    return scores, bootstrap_intervals(lambda **a: selection_scores(**a), arrays, groups, 1000, seed)


def show(folds: list[dict[str, Any]], scores: dict[str, float], intervals: dict[str, tuple[float, float]]) -> None:
    """Print the table."""
    table = Table(title=f"Grouped {len(folds)}-fold cross-validation, mean over folds (lowest to highest fold)")
    table.add_column("system")
    for metric in METRICS:
        table.add_column(metric, justify="right")
    systems = {"this model": folds}
    for name in folds[0]["baselines"]:
        systems[name] = [fold["baselines"][name] for fold in folds]
    for name, values in systems.items():
        cells = []
        for metric in METRICS:
            column = [value[metric] for value in values]
            cells.append(f"{np.mean(column):.3f} ({min(column):.2f}-{max(column):.2f})")
        table.add_row(name, *cells)
    table.add_section()
    shown = [
        f"{scores[m]:.3f} [{intervals[m][0]:.3f}, {intervals[m][1]:.3f}]" if m in intervals else "" for m in METRICS
    ]
    table.add_row("this model, pooled [95 %]", *shown)
    Console(width=150).print(table)


def main() -> None:
    """Run the cross-validation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help=f"folder with {SINGLE}")
    parser.add_argument("--output", type=Path, default=Path("outputs/crossval"))
    parser.add_argument("--recipe", default="recipes/ember_vlm/robot_selection.yaml")
    parser.add_argument("--folds", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0, help="of the folds")
    args = parser.parse_args()
    started = time.perf_counter()
    files = write_folds(args.data, args.folds, args.seed, args.output)
    path = f"data.train.robot_selection.path={files[0][0]}"
    first = load_recipe(args.recipe, [path]).stages[0].name
    run(
        "train",
        args.recipe,
        path,
        "data.eval={}",
        "--output",
        str(args.output / "foundation"),
        "--stop-after",
        first,
    )
    foundation = args.output / "foundation" / first
    folders = [train.parent for train, _ in files]
    pairs = zip(files, folders, strict=True)
    folds = [train_fold(args, foundation, train, test, folder) for (train, test), folder in pairs]
    scores, intervals = pooled(folders, args.seed)
    show(folds, scores, intervals)
    result = {"folds": folds, "pooled": scores, "intervals": intervals, "seconds": time.perf_counter() - started}
    (args.output / "crossval.json").write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()

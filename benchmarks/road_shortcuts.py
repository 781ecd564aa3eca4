"""What a guess without the moment is worth on the generated road questions that need it.

    python benchmarks/road_shortcuts.py                 # the held-out questions of recipes/internvl_video_qa/tiny.yaml

The guess: the value that most moments of the clip show, ties shared. A model that scores no more has not found the
moment that is asked about. Nothing is drawn and no model runs.
"""

from __future__ import annotations

import argparse
from collections import Counter
from pathlib import Path

from rich.console import Console
from rich.table import Table

from hfvla.recipe import load_recipe
from hfvla.worlds.road import RoadOptions
from hfvla.worlds.road.builder import generate_questions

RECIPE = Path(__file__).resolve().parents[1] / "recipes/internvl_video_qa/tiny.yaml"
KINDS = ("light", "side")
"""Kinds whose choices are all values, so that the most frequent one is always among them."""


def majority_scores(options: RoadOptions, seed: int) -> dict[str, tuple[float, int]]:
    """Return, by kind and for "all", the guess' accuracy and the number of questions."""
    clips, questions = generate_questions(options, seed, Path())
    by_name = {clip.name: clip for clip in clips}
    hits: dict[str, list[float]] = {kind: [] for kind in KINDS}
    for question in questions:
        if question.kind in KINDS:
            clip = by_name[Path(question.video).stem]
            shown = Counter(getattr(station, question.kind) for station in clip.stations)
            most = [value for value, count in shown.items() if count == max(shown.values())]
            station = clip.stations[int(question.details["station"])]
            hits[question.kind].append((getattr(station, question.kind) in most) / len(most))
    hits["all"] = [hit for kind in KINDS for hit in hits[kind]]
    return {kind: (sum(found) / len(found), len(found)) for kind, found in hits.items()}


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--recipe", type=Path, default=RECIPE)
    args = parser.parse_args()
    recipe = load_recipe(args.recipe)
    table = Table("set", "kind", "questions", "most frequent value", title="guesses without the moment")
    for name, entry in recipe.data.eval.items():
        options = RoadOptions(**entry.options)
        seed = options.seed if options.seed is not None else recipe.seed
        for kind, (score, count) in majority_scores(options, seed).items():
            table.add_row(name, kind, str(count), f"{score:.3f}")
    Console().print(table)


if __name__ == "__main__":
    main()

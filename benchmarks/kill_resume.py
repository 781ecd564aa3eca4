"""Kills a small run at random moments, starts it again, and compares how it ends with a run that was left alone.

    python benchmarks/kill_resume.py --runs 30                       # one process
    python benchmarks/kill_resume.py --runs 30 --processes 2 --workers 2
    python benchmarks/kill_resume.py --runs 30 --family sensor_vla   # its smoke recipe: LoRA, a feature cache, phases
    python benchmarks/kill_resume.py --damage                        # 36 kinds of damage to a run that was killed

Every run gets SIGKILL (all of its processes at once) at a moment drawn uniformly between its first file and its last,
so imports do not count; then the same command goes on. A run that ended before its moment is drawn again. Equal means:
every tensor of every stage and of the final checkpoint, every log line and every score, bit for bit; only measured
times may differ. Dropout is on, and every training picture is brightened and mirrored at random (by this benchmark;
see `augment`); the other families train their smoke recipes, with checkpoints every two steps. Two runs that nobody
kills are compared first. After damage a run must end equal, or be refused with the damaged file's name. CPU; about
ten minutes for 30 runs on two free cores. Runs of one process are forked from one that has imported torch.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import multiprocessing
import os
import platform
import random
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psutil
import torch
import yaml
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks/results/kill_resume.json"
_TRAIN = "--train"
TIMES = (
    "seconds",
    "runtime",
    "per_second",
    "data_share",
    "energy",
    "memory_gb",
    "energy_kwh",
    "co2_kg",
    "_s",
    "hits",
    "misses",
    "seal",
)
"""How keys of what is measured end. A cache filled before the kill has hits; a seal is a hash of files with times."""
MODEL = {
    "config": {
        "vision_config": {
            "architecture": "repvit_m0_9",
            "do_pooling": False,
            "model_args": {"embed_dim": [8, 8, 16, 16], "depth": [1, 1, 1, 1]},
        },
        "text_config": {"n_layer": 2, "n_head": 2, "n_embd": 32, "n_inner": 64, "n_positions": 512},
        "image_size": 64,
        "vision_hidden_size": 16,
        "word_dropout": 0.2,
    },
    "options": {"tokenizer_vocab_size": 600},
}


def build_recipe(workers: int, processes: int) -> dict[str, Any]:
    """Return a recipe of two stages with a phase boundary, evaluations, dropout, augmentation and `keep_best`."""
    batch = {"per_device_train_batch_size": 8 // processes, "per_device_eval_batch_size": 8 // processes}
    args = {**batch, "learning_rate": 1e-3, "logging_steps": 2, "dataloader_num_workers": workers, "use_cpu": True}
    source = {"source": "fleet", "size": 96, "image_size": 64}
    alignment = {
        "name": "alignment",
        "train": ["projector", "temperature"],
        "losses": {"itc": 0.5, "caption": 0.5},
        "args": {"num_train_epochs": 3},
        "phases": [{"epoch": 1, "add": ["language.last(1)"]}, {"step": 16, "add": ["vision"], "losses": {"itc": 1.0}}],
    }
    each = {"save_strategy": "steps", "save_steps": 7, "eval_strategy": "steps", "eval_steps": 7}
    selection = {
        "name": "selection",
        "train": ["projector", "language", "fusion", "selection_head"],
        "losses": {"selection": 1.0, "consistency": 0.4},
        "keep_best": "eval_loss",
        "patience": 4,
        "args": {"num_train_epochs": 4, **each},
    }
    return {
        "family": "ember_vlm",
        "name": "kill_resume",
        "seed": 11,
        "model": MODEL,
        "data": {
            "train": [source],
            "validation": {"fraction": 0.2},
            "eval": {"held_out": {**source, "size": 48, "split": "test"}},
        },
        "args": {**args, "disable_tqdm": True},
        "evaluation": {"bootstrap_samples": 20, "max_generate": 2, "ablations": False},
        "stages": [alignment, selection],
    }


def build_smoke_recipe(family: str, workers: int, processes: int) -> dict[str, Any]:
    """Return a family's smoke recipe with checkpoints and evaluations every two steps, and rows for more of them."""
    recipe = yaml.safe_load((ROOT / "recipes" / family / "smoke.yaml").read_text(encoding="utf-8"))
    each = {"save_strategy": "steps", "save_steps": 2, "eval_strategy": "steps", "eval_steps": 2}
    batch = {"per_device_train_batch_size": 8 // processes, "per_device_eval_batch_size": 8 // processes}
    own = {"num_train_epochs": 3, "dataloader_num_workers": workers, "use_cpu": True, "disable_tqdm": True}
    recipe["args"] = {**recipe["args"], **batch, **each, **own, "logging_steps": 1}
    recipe.pop("output_dir")
    return {**recipe, "seed": 11}


def augment() -> None:
    """Let the family's collator brighten and mirror training pictures, by the seeds that their rows carry."""
    import numpy as np

    from hfvla.data.rows.epoch import AUGMENTATION_SEED
    from hfvla.models.ember_vlm.batches import EmberVLMCollator

    original = EmberVLMCollator.__call__

    def collate(collator: Any, rows: Any) -> dict[str, torch.Tensor]:
        batch = original(collator, rows)
        if "pixel_values" in batch and AUGMENTATION_SEED in rows[0]:
            pixels = batch["pixel_values"]
            generator = np.random.default_rng([row[AUGMENTATION_SEED] for row in rows])
            light = torch.tensor(generator.uniform(0.7, 1.3, size=(len(pixels), 1, 1, 1)), dtype=pixels.dtype)
            mirrored = torch.tensor(generator.random((len(pixels), 1, 1, 1)) < 0.5)
            batch["pixel_values"] = torch.where(mirrored, pixels.flip(-1), pixels) * light
        return batch

    EmberVLMCollator.__call__ = collate  # type: ignore[method-assign, assignment]


def train(words: list[str]) -> None:
    """Do what recipes/train.py does, with augmentation."""
    from hfvla.cli import main as run

    augment()
    run(["train", *words])


_PRELOADED = (
    "torch",
    "transformers.trainer",
    "datasets",
    "peft",
    "timm",
    "hfvla.cli.commands",
    "hfvla.training.run.run",
)
_FORKS = multiprocessing.get_context("forkserver")


def train_forked(words: list[str], log: str, folder: str) -> None:
    """Train in a process that was forked with torch and the others imported: they take longer than the run."""
    os.setsid()
    os.chdir(folder)
    multiprocessing.set_start_method(None, force=True)  # workers start as they do in `hfvla train`
    out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(out, 1)
    os.dup2(out, 2)
    train(words)


class Forked:
    """A run in one process, with what `subprocess.Popen` offers.

    Args:
        words: after `hfvla train`.
        log: file that its output is added to.
    """

    def __init__(self, words: list[str], log: Path) -> None:
        self.process = _FORKS.Process(target=train_forked, args=(words, str(log), str(log.parent)))
        self.process.start()
        self.pid = int(self.process.pid or 0)

    def poll(self) -> int | None:
        """Return how it ended; None while it runs."""
        return self.process.exitcode

    def wait(self, timeout: float | None = None) -> int:
        """Return how it ended.

        Raises:
            subprocess.TimeoutExpired: it runs on.
        """
        self.process.join(timeout)
        if self.process.exitcode is None:
            raise subprocess.TimeoutExpired("train", timeout or 0.0)
        return self.process.exitcode


class Runs:
    """Starts one recipe again and again, each time in a folder of its own.

    Args:
        folder: where recipe, run folders and logs go.
        processes: processes of a run.
        workers: data loader workers of each process.
        family: the family whose recipe it is.
    """

    def __init__(self, folder: Path, processes: int, workers: int, family: str = "ember_vlm") -> None:
        self.folder, self.processes = folder, processes
        own = family == "ember_vlm"
        recipe = build_recipe(workers, processes) if own else build_smoke_recipe(family, workers, processes)
        self.stages = tuple(stage["name"] for stage in recipe["stages"])
        (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe), encoding="utf-8")

    def start(self, name: str) -> subprocess.Popen[bytes] | Forked:
        """Start or go on with the run of that name, in a process group of its own."""
        log, words = (
            self.folder / f"{name}.log",
            [str(self.folder / "recipe.yaml"), "--output", str(self.folder / name)],
        )
        if self.processes == 1:
            return Forked(words, log)
        launch = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
        launch += ["--nproc_per_node", str(self.processes), str(Path(__file__).resolve()), _TRAIN, *words]
        with log.open("ab") as out:
            return subprocess.Popen(launch, stdout=out, stderr=out, start_new_session=True, cwd=self.folder)

    def finish(self, name: str) -> float:
        """Run to the end; return the seconds it took.

        Raises:
            RuntimeError: it failed; with the end of its log.
        """
        began, process = time.monotonic(), self.start(name)
        code = process.wait()
        if code:
            end = (self.folder / f"{name}.log").read_text(encoding="utf-8", errors="replace")[-3000:]
            raise RuntimeError(f"{name} ended with {code}:\n{end}")
        return time.monotonic() - began

    def kill_at(self, name: str, seconds: float) -> str | None:
        """Start a run and kill it `seconds` after its folder appears; return where it was, None if it had ended."""
        process, folder = self.start(name), self.folder / name
        while process.poll() is None and not (folder / "recipe.json").is_file():
            time.sleep(0.005)
        try:
            process.wait(seconds)
            return None
        except subprocess.TimeoutExpired:
            kill_all(process.pid)
            process.wait()
            return where(folder, self.stages)


def kill_all(pid: int) -> None:
    """Send SIGKILL to a process and everything it started; a launcher's processes are not in its group."""
    launcher = psutil.Process(pid)
    found = [launcher, *launcher.children(recursive=True)]
    for process in found:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(found, timeout=10)


def where(folder: Path, stages: tuple[str, ...]) -> str:
    """Say how far a killed run had come, from the files it left."""
    done = [stage for stage in stages if (folder / stage / "stage.json").is_file()]
    if len(done) == len(stages):
        scored = "after scoring" if (folder / "metrics.json").is_file() else "scoring"
        return scored if (folder / "final").is_dir() else "final checkpoint"
    stage = stages[len(done)]
    checkpoints = folder / stage / "checkpoints"
    if not checkpoints.is_dir():
        return f"{stage}, before its first checkpoint"
    if list(checkpoints.glob(".tmp-*")):
        return f"{stage}, inside a save"
    if (folder / stage / "model.safetensors").is_file():
        return f"{stage}, boundary"
    steps = [int(path.name.split("-")[1]) for path in checkpoints.glob("checkpoint-*")]
    return f"{stage}, after step {max(steps, default=0)}"


def without_times(value: Any) -> Any:
    """Return JSON content without measured times and energies."""
    if isinstance(value, dict):
        return {key: without_times(part) for key, part in value.items() if not key.endswith(TIMES)}
    return [without_times(part) for part in value] if isinstance(value, list) else value


def differences(first: Path, second: Path, stages: tuple[str, ...]) -> list[str]:
    """Return what two finished runs do not have in common, to the bit."""
    found = []
    for stage in (*stages, "final"):
        one, two = (load_file(folder / stage / "model.safetensors") for folder in (first, second))
        if set(one) != set(two):
            found.append(f"{stage}: other tensors")
        else:
            found += [f"{stage}: {name}" for name in one if not torch.equal(one[name], two[name])]
    kinds = ("log_history", "handover", "stage")
    files = ["metrics.json", *(f"{stage}/{name}.json" for stage in stages for name in kinds)]
    for name in files:
        one, two = (without_times(json.loads((folder / name).read_text())) for folder in (first, second))
        if one != two:
            found.append(name)
    answers = [path / "predictions.jsonl" for path in (first, second)]
    if any(path.is_file() for path in answers) and answers[0].read_bytes() != answers[1].read_bytes():
        found.append("predictions.jsonl")
    left = [path.relative_to(second).as_posix() for path in second.rglob("*") if ".tmp" in path.name]
    return found + [f"left behind: {path}" for path in left]


def cpu_model() -> str:
    """Return the processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def written_span(folder: Path) -> float:
    """Return the seconds between a run's first file and its last."""
    times = [path.stat().st_mtime for path in folder.rglob("*")]
    return max(times) - (folder / "recipe.json").stat().st_mtime


def kill_once(runs: Runs, number: int, span: float, seed: int, console: Console) -> dict[str, Any]:
    """Kill one run, let it go on, compare it; return its row of the table."""
    generator, name, place = random.Random(f"{seed}/{number}"), f"run{number}", None
    while place is None:
        moment = generator.uniform(0, span)
        place = runs.kill_at(name, moment)
        if place is None:
            shutil.rmtree(runs.folder / name)
    runs.finish(name)
    found = differences(runs.folder / "whole", runs.folder / name, runs.stages)
    shutil.rmtree(runs.folder / name)
    console.print(f"run {number}: {moment:.2f} s, {place}: {'equal' if not found else found[:3]}")
    return {"run": number, "killed_after_s": round(moment, 2), "where": place, "differences": found}


def measure(runs: Runs, count: int, seed: int, jobs: int, console: Console) -> tuple[list[dict[str, Any]], float]:
    """Kill `count` runs once each; return a row for each, and the span of seconds the moments were drawn from.

    Raises:
        RuntimeError: two runs that nobody killed differ, so that comparing others says nothing.
    """
    with ThreadPoolExecutor(jobs) as pool:
        seconds = list(pool.map(runs.finish, ["whole", "control"]))
        span = written_span(runs.folder / "whole")
        console.print(f"uninterrupted: {seconds[0]:.1f} s, of which {span:.1f} s between its first file and its last")
        found = differences(runs.folder / "whole", runs.folder / "control", runs.stages)
        if found:
            raise RuntimeError(f"two runs that nobody killed differ: {found[:5]}")
        rows = list(pool.map(lambda n: kill_once(runs, n, span, seed, console), range(1, count + 1)))
    return rows, span


_HARMS = ("truncate", "flip", "delete", "empty", "list")


def damages(folder: Path, stages: tuple[str, ...]) -> list[tuple[str, str]]:
    """Return 36 kinds of damage: (file, harm), three harms of five for each of twelve files of a killed run."""
    checkpoint = max((folder / stages[1] / "checkpoints").glob("checkpoint-*"), key=lambda path: path.stat().st_mtime)
    inside = checkpoint.relative_to(folder).as_posix()
    files = ["recipe.json", "rows.json", "run.json"]
    files += [f"{stages[0]}/{name}" for name in ("model.safetensors", "config.json", "stage.json", "complete.json")]
    files += [f"{inside}/{name}" for name in ("model.safetensors", "optimizer.pt", "trainer_state.json")]
    files += [f"{inside}/{name}" for name in ("engine-0.json", "complete.json")]
    return [(name, _HARMS[(index + turn) % len(_HARMS)]) for index, name in enumerate(files) for turn in range(3)]


def harm_file(path: Path, harm: str) -> None:
    """Damage one file."""
    content = path.read_bytes()
    middle = len(content) // 2
    if harm == "delete":
        path.unlink()
        return
    harmed = {
        "truncate": content[:middle],
        "flip": content[:middle] + bytes([content[middle] ^ 4]) + content[middle + 1 :],
        "empty": b"",
        "list": b"[]\n",
    }
    path.write_bytes(harmed[harm])


def kill_in_second_stage(runs: Runs, name: str) -> None:
    """Start a run and kill it once its second stage has written a checkpoint."""
    process, folder = runs.start(name), runs.folder / name / runs.stages[1] / "checkpoints"
    while process.poll() is None and not list(folder.glob("checkpoint-*/complete.json")):
        time.sleep(0.01)
    kill_all(process.pid)
    process.wait()


def damage_once(runs: Runs, number: int, name: str, harm: str, console: Console) -> dict[str, Any]:
    """Damage a copy of the killed run, go on with it, and judge; return its row."""
    copy = f"damaged{number}"
    shutil.copytree(runs.folder / "killed", runs.folder / copy)
    harm_file(runs.folder / copy / name, harm)
    try:
        runs.finish(copy)
        found = differences(runs.folder / "whole", runs.folder / copy, runs.stages)
        result = "equal" if not found else f"DIFFERENT: {found[:3]}"
    except RuntimeError:
        log = (runs.folder / f"{copy}.log").read_text(encoding="utf-8", errors="replace")
        named = Path(name).name in log.replace("\n", "")
        result = "traceback" if "Traceback" in log else "refused" if named else "refused without the file's name"
        if result != "refused":
            result += f": {log[-300:]}"
    shutil.rmtree(runs.folder / copy)
    console.print(f"{number}: {name}, {harm}: {result}")
    return {
        "file": name,
        "harm": harm,
        "result": result,
        "differences": [] if result in ("equal", "refused") else [result],
    }


def measure_damage(runs: Runs, count: int, jobs: int, console: Console) -> list[dict[str, Any]]:
    """Damage `count` copies of a killed run, each in another way; return a row for each."""
    with ThreadPoolExecutor(jobs) as pool:
        runs.finish("whole")
        kill_in_second_stage(runs, "killed")
        kinds = damages(runs.folder / "killed", runs.stages)[:count]
        return list(pool.map(lambda one: damage_once(runs, one[0], *one[1], console), enumerate(kinds, 1)))


def quiet_environment() -> None:
    """Set what every run inherits."""
    paths = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))
    os.environ |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    os.environ |= {"HFVLA_ENERGY": "0", "PYTHONPATH": paths}
    _FORKS.set_forkserver_preload(list(_PRELOADED))


def main() -> None:
    """Parse, run, print the table, write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=0, help="how many runs are killed (30) or damaged (36)")
    parser.add_argument("--processes", type=int, choices=(1, 2), default=1)
    parser.add_argument("--workers", type=int, default=0, help="data loader workers of each process")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--jobs", type=int, default=0, help="runs at a time; default: cores / processes, at most 2")
    parser.add_argument("--family", default="ember_vlm", help="whose recipe is run")
    parser.add_argument("--damage", action="store_true", help="36 kinds of damage in place of kills")
    parser.add_argument("--output", type=Path, default=RESULTS)
    options = parser.parse_args()
    quiet_environment()
    console, began = Console(), time.monotonic()
    jobs = options.jobs or max(1, min(2, (os.cpu_count() or 1) // options.processes))
    with tempfile.TemporaryDirectory(prefix="kill-resume-") as folder:
        runs = Runs(Path(folder), options.processes, options.workers, options.family)
        if options.damage:
            rows = measure_damage(runs, options.runs or 36, jobs, console)
            good = sum(not row["differences"] for row in rows)
            console.print(f"{good} of {len(rows)} end equal or are refused with the file's name")
            save(options, rows, good, 0.0, time.monotonic() - began)
            sys.exit(good != len(rows))
        rows, span = measure(runs, options.runs or 30, options.seed, jobs, console)
    table = Table(title=f"{options.processes} process(es), {options.workers} worker(s)")
    for heading in ("run", "killed after [s]", "where", "result"):
        table.add_column(heading)
    for row in rows:
        result = "equal" if not row["differences"] else f"{len(row['differences'])} differences"
        table.add_row(str(row["run"]), f"{row['killed_after_s']:.2f}", row["where"], result)
    console.print(table)
    equal = sum(not row["differences"] for row in rows)
    console.print(f"{equal} equal of {len(rows)}")
    save(options, rows, equal, span, time.monotonic() - began)
    sys.exit(equal != len(rows))


def save(options: argparse.Namespace, rows: list[dict[str, Any]], equal: int, span: float, seconds: float) -> None:
    """Write this setting's result beside those of other settings."""
    content = json.loads(options.output.read_text(encoding="utf-8")) if options.output.is_file() else {}
    family = "" if options.family == "ember_vlm" else f"family={options.family} "
    family = f"damage {family}" if options.damage else family
    content[f"{family}processes={options.processes} workers={options.workers}"] = {
        "equal": equal,
        "runs": len(rows),
        "seed": options.seed,
        "seconds": round(seconds, 1),
        "span_s": round(span, 2),
        "hardware": {"cpu": cpu_model(), "cores": os.cpu_count()},
        "versions": {"python": platform.python_version(), "torch": torch.__version__},
        "rows": rows,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    if sys.argv[1:2] == [_TRAIN]:
        train(sys.argv[2:])
    else:
        main()

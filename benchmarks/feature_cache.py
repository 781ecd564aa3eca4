"""What the frozen-feature cache is worth: `python benchmarks/feature_cache.py`.

Runs one alignment stage twice through `run_recipe`, without and with `cache: true`: a RepViT-M0.9 vision tower of real
size, frozen, on 224-pixel pictures of generated scenes, and a small projector and language model that train. Weights
are random; the time does not depend on them. Prints samples a second of the first and of the later epochs, the ratio,
bytes a sample, and the epoch after which the cache has paid for itself. Seed 0; the numbers belong to the hardware.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import platform
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers.trainer
from rich.console import Console
from rich.table import Table
from transformers import TrainerCallback

from hfvla.recipe import Recipe, check_recipe
from hfvla.training.run import run_recipe

GOAL = 10.0
RESULT = Path(__file__).parent / "results" / "feature_cache.json"


class EpochClock(TrainerCallback):
    """Notes how long each epoch takes: by the clock, and in CPU time, which other programs do not share."""

    epochs: list[float] = []  # noqa: RUF012  (one list a run, read after it)
    cpu: list[float] = []  # noqa: RUF012

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._started, self._cpu = time.perf_counter(), time.process_time()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop it."""
        EpochClock.epochs.append(time.perf_counter() - self._started)
        EpochClock.cpu.append(time.process_time() - self._cpu)


def build_recipe(output: Path, samples: int, batch: int, epochs: int, cached: bool) -> Recipe:
    """Return the recipe of one run; the two differ in `cache` and in the number of epochs only."""
    tree = {
        "family": "ember_vlm",
        "name": "feature_cache",
        "output_dir": str(output),
        "model": {
            "config": {
                "vision_config": {"architecture": "repvit_m0_9", "do_pooling": False},
                "text_config": {"n_layer": 2, "n_head": 2, "n_embd": 64, "n_inner": 128, "n_positions": 256},
                "image_size": 224,
                "visual_grid": [2, 4],
            },
            "options": {"tokenizer_vocab_size": 1024},
        },
        "data": {
            "train": [{"source": "fleet", "size": samples, "image_size": 224}],
            "validation": {"fraction": 0.0},
        },
        "args": {
            "per_device_train_batch_size": batch,
            "per_device_eval_batch_size": batch,
            "num_train_epochs": epochs,
            "learning_rate": 1e-3,
            "save_strategy": "no",
            "logging_steps": 4,
            "disable_tqdm": True,
            "use_cpu": True,
        },
        "stages": [
            {
                "name": "align",
                "train": ["projector", "language", "temperature"],
                "losses": {"itc": 1.0},
                **({"cache": True} if cached else {}),
            }
        ],
    }
    recipe = Recipe.model_validate(tree)
    check_recipe(recipe)
    return recipe


def measure(samples: int, batch: int, epochs: int, cached: bool) -> dict[str, Any]:
    """Run one recipe in a fresh folder; return seconds by epoch and the census of its cache."""
    EpochClock.epochs, EpochClock.cpu = [], []
    with tempfile.TemporaryDirectory() as folder:
        record = run_recipe(build_recipe(Path(folder), samples, batch, epochs, cached))
    stage = record["stages"][0]
    return {
        "epoch_seconds": list(EpochClock.epochs),
        "epoch_cpu_seconds": list(EpochClock.cpu),
        "train_loss": stage["train_loss"],
        "rows": stage["rows"]["train"],
        "cache": stage.get("cache"),
    }


def summarise(plain: dict[str, Any], cached: dict[str, Any]) -> dict[str, Any]:
    """Return rates in samples a second, their ratio, bytes a sample and the epoch at which the cache has paid."""
    rows, census = plain["rows"], cached["cache"]
    without, within = statistics.median(plain["epoch_seconds"]), statistics.median(cached["epoch_seconds"])
    first = census["seconds"] + cached["epoch_seconds"][0]
    return {
        "samples": rows,
        "plain_samples_per_second": rows / without,
        "cached_first_epoch_samples_per_second": rows / first,
        "cached_samples_per_second": rows / within,
        "ratio_after_the_first_epoch": without / within,
        "ratio_in_cpu_time": statistics.median(plain["epoch_cpu_seconds"])
        / statistics.median(cached["epoch_cpu_seconds"]),
        "build_seconds": census["seconds"],
        "bytes_per_sample": census["bytes_per_sample"],
        "paid_for_itself_after_epoch": math.ceil(census["seconds"] / max(without - within, 1e-9)),
    }


def processor_name() -> str:
    """Return the processor's model name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def show(numbers: dict[str, Any], hardware: dict[str, Any]) -> None:
    """Print the table."""
    title = f"frozen-feature cache, RepViT-M0.9 at 224 px, {numbers['samples']} samples"
    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in ("samples/s, first epoch", "samples/s, later epochs"):
        table.add_column(heading, justify="right")
    rate = f"{numbers['plain_samples_per_second']:.1f}"
    table.add_row("without", rate, rate)
    first, later = numbers["cached_first_epoch_samples_per_second"], numbers["cached_samples_per_second"]
    table.add_row("with (first epoch: with building it)", f"{first:.1f}", f"{later:.1f}")
    ratio = numbers["ratio_after_the_first_epoch"]
    console = Console()
    console.print(table)
    cpu = numbers["ratio_in_cpu_time"]
    console.print(f"ratio after the first epoch: {ratio:.1f}x (goal: at least {GOAL:.0f}x); in CPU time {cpu:.1f}x")
    console.print(f"bytes a sample on disk: {numbers['bytes_per_sample']:,.0f} (float16)")
    console.print(f"has paid for itself after epoch {numbers['paid_for_itself_after_epoch']}")
    console.print(f"hardware: {hardware['cpu']}, {hardware['cores']} cores, {hardware['threads']} torch threads")


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--plain-epochs", type=int, default=2)
    parser.add_argument("--cached-epochs", type=int, default=6)
    parser.add_argument("--output", type=Path, default=RESULT)
    options = parser.parse_args()
    transformers.trainer.DEFAULT_CALLBACKS.append(EpochClock)
    plain = measure(options.samples, options.batch, options.plain_epochs, cached=False)
    cached = measure(options.samples, options.batch, options.cached_epochs, cached=True)
    numbers = summarise(plain, cached)
    hardware = {"cpu": processor_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    show(numbers, hardware)
    content = {
        "command": f"python benchmarks/feature_cache.py --samples {options.samples} --batch {options.batch} "
        f"--plain-epochs {options.plain_epochs} --cached-epochs {options.cached_epochs}",
        "seed": 0,
        "hardware": hardware,
        "torch": torch.__version__,
        "goal": GOAL,
        **numbers,
        **{f"plain_{name}": plain[name] for name in ("epoch_seconds", "epoch_cpu_seconds")},
        **{f"cached_{name}": cached[name] for name in ("epoch_seconds", "epoch_cpu_seconds")},
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

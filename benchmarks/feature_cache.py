"""What the frozen-feature cache is worth: `python benchmarks/feature_cache.py`.

Runs one stage twice through `run_recipe`, without and with a cache:

- `--family ember_vlm`: a RepViT-M0.9 vision tower of real size, frozen, on 224-pixel pictures of generated scenes, and
  a small projector and language model that train;
- `--family sensor_vla`: a whole backbone, frozen (8 vision and 8 language layers, width 256), two cameras of 96 pixels
  on drawn robot episodes, and a sensor encoder and a regression expert that train; kept in float32.

Weights are random; the time does not depend on them. Prints samples a second of the first and of the later epochs, the
ratio, bytes a sample, the epoch after which the cache has paid for itself, and how far the losses of the two runs lie
apart, step by step. Seed 0; the numbers belong to the hardware.
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
from hfvla.training.run.run import run_recipe

GOAL = 10.0
RESULTS = Path(__file__).parent / "results"
TITLES = {"ember_vlm": "RepViT-M0.9 at 224 px", "sensor_vla": "a whole backbone of width 256, two views of 96 px"}


class EpochClock(TrainerCallback):
    """Notes how long each epoch takes: by the clock, and in CPU time, which other programs do not share."""

    epochs: list[float] = []  # noqa: RUF012  (one list a run, read after it)
    cpu: list[float] = []  # noqa: RUF012
    losses: list[float] = []  # noqa: RUF012

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Keep each logged loss."""
        if logs and "loss" in logs:
            EpochClock.losses.append(float(logs["loss"]))

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._started, self._cpu = time.perf_counter(), time.process_time()

    def on_epoch_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop it."""
        EpochClock.epochs.append(time.perf_counter() - self._started)
        EpochClock.cpu.append(time.process_time() - self._cpu)


def sensor_tree(samples: int) -> dict[str, Any]:
    """Return model, data and stage of a sensor VLA on drawn episodes of 16 steps."""
    backbone = {
        "model_type": "internvl",
        "vision_config": {"hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4,
                          "intermediate_size": 1024, "image_size": [96, 96], "patch_size": [12, 12]},
        "text_config": {"model_type": "qwen2", "hidden_size": 256, "num_hidden_layers": 8, "num_attention_heads": 4,
                        "num_key_value_heads": 4, "intermediate_size": 1024, "max_position_embeddings": 256},
        "image_seq_length": 16,
    }  # fmt: skip
    config = {
        "backbone_config": backbone,
        "state_dim": 4,
        "action": {"dim": 4, "horizon": 8, "fps": 20.0},
        "sensor": {"channels": 6, "points": 16, "rate_hz": 400.0},
        "sensor_encoder": {"width": 64, "conv_widths": [32, 64], "layers": 1, "heads": 4, "feed_forward": 128,
                           "sensor_dropout": 0.0},
        "expert": {"kind": "regression", "width": 96, "layers": 2, "heads": 4, "feed_forward": 192},
    }  # fmt: skip
    source = {
        "source": "reaching",
        "episodes": -(-samples // 16),
        "steps": 16,
        "image_size": 96,
        "horizon": 8,
        "seed": 0,
    }
    return {
        "family": "sensor_vla",
        "model": {"config": config, "options": {"tokenizer_vocab_size": 300}},
        "data": {"train": [source], "validation": {"fraction": 0.0}},
        "stage": {"train": ["sensor", "state", "fusion", "expert"], "losses": {"action": 1.0}},
        "cache": {"dtype": "float32"},
    }


def vision_tree(samples: int) -> dict[str, Any]:
    """Return model, data and stage of an alignment stage behind a frozen vision tower."""
    return {
        "family": "ember_vlm",
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
        "stage": {"train": ["projector", "language", "temperature"], "losses": {"itc": 1.0}},
        "cache": True,
    }


def build_recipe(family: str, output: Path, samples: int, batch: int, epochs: int, cached: bool) -> Recipe:
    """Return the recipe of one run; the two differ in `cache` and in the number of epochs only."""
    tree = vision_tree(samples) if family == "ember_vlm" else sensor_tree(samples)
    stage, cache = tree.pop("stage"), tree.pop("cache")
    tree |= {
        "name": "feature_cache",
        "output_dir": str(output),
        "args": {
            "per_device_train_batch_size": batch,
            "per_device_eval_batch_size": batch,
            "num_train_epochs": epochs,
            "learning_rate": 1e-3,
            "save_strategy": "no",
            "lr_scheduler_type": "constant",
            "logging_steps": 1,
            "disable_tqdm": True,
            "use_cpu": True,
        },
        "stages": [{"name": "cached", **stage, **({"cache": cache} if cached else {})}],
    }
    recipe = Recipe.model_validate(tree)
    check_recipe(recipe)
    return recipe


def measure(family: str, samples: int, batch: int, epochs: int, cached: bool) -> dict[str, Any]:
    """Run one recipe in a fresh folder; return seconds by epoch and the census of its cache."""
    EpochClock.epochs, EpochClock.cpu, EpochClock.losses = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        record = run_recipe(build_recipe(family, Path(folder), samples, batch, epochs, cached))
    stage = record["stages"][0]
    return {
        "epoch_seconds": list(EpochClock.epochs),
        "epoch_cpu_seconds": list(EpochClock.cpu),
        "losses": list(EpochClock.losses),
        "rows": stage["rows"]["train"],
        "cache": stage.get("cache"),
    }


def summarise(plain: dict[str, Any], cached: dict[str, Any]) -> dict[str, Any]:
    """Return rates in samples a second, their ratio, bytes a sample and the epoch at which the cache has paid."""
    rows, census = plain["rows"], cached["cache"]
    without, within = statistics.median(plain["epoch_seconds"]), statistics.median(cached["epoch_seconds"])
    pairs = list(zip(plain["losses"], cached["losses"], strict=False))
    first = census["seconds"] + cached["epoch_seconds"][0]
    return {
        "samples": rows,
        "plain_samples_per_second": rows / without,
        "cached_first_epoch_samples_per_second": rows / first,
        "cached_samples_per_second": rows / within,
        "ratio_after_the_first_epoch": without / within,
        "ratio_in_cpu_time": statistics.median(plain["epoch_cpu_seconds"])
        / statistics.median(cached["epoch_cpu_seconds"]),
        "steps_compared": len(pairs),
        "largest_loss_difference": max(abs(one - other) for one, other in pairs),
        "loss_of_the_first_step": pairs[0][0],
        "build_seconds": census["seconds"],
        "bytes_per_sample": census["bytes_per_sample"],
        "paid_for_itself_after_epoch": math.ceil(census["seconds"] / max(without - within, 1e-9)),
    }


def processor_name() -> str:
    """Return the processor's model name."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def show(family: str, numbers: dict[str, Any], hardware: dict[str, Any]) -> None:
    """Print the table."""
    title = f"frozen-feature cache, {TITLES[family]}, {numbers['samples']} samples"
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
    console.print(
        f"losses of the two runs, {numbers['steps_compared']} steps: at most {numbers['largest_loss_difference']:.1e} "
        f"apart (the first is {numbers['loss_of_the_first_step']:.4f})"
    )
    kept = "float16" if family == "ember_vlm" else "float32"
    console.print(f"bytes a sample on disk: {numbers['bytes_per_sample']:,.0f} ({kept})")
    console.print(f"has paid for itself after epoch {numbers['paid_for_itself_after_epoch']}")
    console.print(f"hardware: {hardware['cpu']}, {hardware['cores']} cores, {hardware['threads']} torch threads")


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--family", choices=list(TITLES), default="ember_vlm")
    parser.add_argument("--samples", type=int, default=256)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--plain-epochs", type=int, default=2)
    parser.add_argument("--cached-epochs", type=int, default=6)
    parser.add_argument("--output", type=Path, help="default: results/feature_cache[_<family>].json")
    options = parser.parse_args()
    suffix = "" if options.family == "ember_vlm" else f"_{options.family}"
    output = options.output or RESULTS / f"feature_cache{suffix}.json"
    transformers.trainer.DEFAULT_CALLBACKS.append(EpochClock)
    plain = measure(options.family, options.samples, options.batch, options.plain_epochs, cached=False)
    cached = measure(options.family, options.samples, options.batch, options.cached_epochs, cached=True)
    numbers = summarise(plain, cached)
    hardware = {"cpu": processor_name(), "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    show(options.family, numbers, hardware)
    content = {
        "command": f"python benchmarks/feature_cache.py --family {options.family} --samples {options.samples} "
        f"--batch {options.batch} --plain-epochs {options.plain_epochs} --cached-epochs {options.cached_epochs}",
        "seed": 0,
        "hardware": hardware,
        "torch": torch.__version__,
        "goal": GOAL,
        **numbers,
        **{f"plain_{name}": plain[name] for name in ("epoch_seconds", "epoch_cpu_seconds")},
        **{f"cached_{name}": cached[name] for name in ("epoch_seconds", "epoch_cpu_seconds")},
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()

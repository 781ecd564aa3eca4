"""EmberVLM at its real size on two cores: int8 ONNX against torch in float32, and against what a small computer has.

    python benchmarks/edge.py --trained outputs/demo/final ... [--real robot_selection.json ...] [--output FILE.json]

The model (36 M parameters: RepViT-M0.9 at 224 pixels, six layers of width 384, a vocabulary of 50,263) has random
weights unless `--checkpoint` names others: sizes and times do not depend on them. It is exported with 8 bits
(`--method`, by default blocks: products in blocks, convolutions as float16), and

- the size of the two graphs that a selection needs (vision, select) is summed, and that of the decoder said beside it;
- a fresh process with NumPy and ONNX Runtime alone says how far it grows by loading both and selecting once;
- it selects robots for one picture and one task, one selection after another, on two threads: p50 and p95, without
  text; the same with a pause before each, after which a virtual core wakes slowly and finds its caches cold; and the
  processor time of a selection on one thread, which other processes do not lengthen much;
- generated rows of the test split, and rows of real files where `--real` names them, are decided by both: by
  checkpoints of any size that were trained in earnest (`--trained`), for where weights are random, log-odds lie so
  near to the threshold that any rounding decides. How near they lie is said beside each share (`margin`). Without it
  fusion and head of the model itself learn to select for `--steps` behind all the rest.

Goals: at most 50 MB, 100 MB, 30 ms, and 99.5 % of the decisions equal.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from hfvla.export.engines import OnnxEngine, TorchEngine
from hfvla.export.graphs import write_onnx
from hfvla.export.quantise import left_whole, quantise
from hfvla.export.run import Recorder
from hfvla.models.ember_vlm.build import initialise
from hfvla.models.ember_vlm.export import export_plan, selected

GOALS = {"file_mb": 50.0, "memory_mb": 100.0, "p50_ms": 30.0, "alike": 0.995}
SELECTION = ("vision", "select")
_VOCABULARY, _ENCODED, _CALIBRATED = 50_263, 32, 32

MEASURE = """
import json, os, sys, time
import numpy as np
import onnxruntime as ort

def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096

folder, threads, runs, pause_s = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
inputs = np.load(os.path.join(folder, "inputs.npz"))
pixels, rest = inputs["pixel_values"], {name: inputs[name] for name in inputs.files if name != "pixel_values"}
before = resident()
options = ort.SessionOptions()
options.intra_op_num_threads = threads
options.log_severity_level = 3
options.add_session_config_entry("session.intra_op.allow_spinning", "0")
paths = [os.path.join(folder, name + ".onnx") for name in ("vision", "select")]
vision, select = (ort.InferenceSession(path, options, providers=["CPUExecutionProvider"]) for path in paths)
wanted = [one.name for one in select.get_inputs()]

def choose():
    tokens = vision.run(None, {"pixel_values": pixels})[0]
    return select.run(None, {name: tokens if name == "image_tokens" else rest[name] for name in wanted})[0]

choose()
grown = resident() - before
clock, cpu = [], []
for _ in range(runs):
    time.sleep(pause_s)
    started, used = time.perf_counter(), time.process_time()
    choose()
    clock.append(time.perf_counter() - started)
    cpu.append(time.process_time() - used)
times = {"clock_ms": [1000 * one for one in clock], "cpu_ms": [1000 * one for one in cpu]}
print(json.dumps({"memory_mb": grown / 1e6, **times}))
"""


def fleet_rows(split: str, count: int, seed: int, images: bool = True) -> list[dict[str, Any]]:
    """Generated tasks."""
    from hfvla.worlds.fleet import FleetOptions, build_fleet

    options = FleetOptions(size=count, split=split, images=images, image_size=224)
    return list(build_fleet(options, seed=seed).dataset)


def real_rows(paths: list[str]) -> list[dict[str, Any]]:
    """Rows of robot-selection files, without pictures."""
    from hfvla.data.sources.robot_selection import RobotSelectionOptions, build_robot_selection

    found = [build_robot_selection(RobotSelectionOptions(path=path), seed=0).dataset for path in paths]
    return [row for rows in found for row in rows]


def real_size(rows: list[dict[str, Any]], layers: dict[str, Any], seed: int) -> tuple[Any, Any]:
    """The model at its real size; the tokenizer knows fewer words than the vocabulary has room for."""
    from transformers import set_seed

    from hfvla.models.ember_vlm.configuration_ember_vlm import EmberVLMConfig
    from hfvla.models.ember_vlm.modeling_ember_vlm import EmberVLMForRobotSelection

    small, processor = initialise({"config": layers, "options": {"tokenizer_vocab_size": 4096}}, rows, seed)
    settings = small.config.to_dict()
    if not layers:
        settings["text_config"]["vocab_size"] = _VOCABULARY
    set_seed(seed)
    return EmberVLMForRobotSelection(EmberVLMConfig(**settings)).eval(), processor


def settle(model: Any, processor: Any, rows: list[dict[str, Any]]) -> None:
    """Give the tower's batch norms the statistics of pictures, as any trained tower has: without, its maps explode."""
    norms = [one for one in model.vision.modules() if isinstance(one, torch.nn.modules.batchnorm._BatchNorm)]
    for one in norms:
        one.reset_running_stats()
        one.momentum = None  # the mean over all batches
    model.vision.train()
    pictures = [row["image"] for row in rows if row["image"] is not None]
    with torch.no_grad():
        for start in range(0, len(pictures), _ENCODED):
            model.vision(processor.pixels(pictures[start : start + _ENCODED]))
    model.vision.eval()


def learn(model: Any, processor: Any, rows: list[dict[str, Any]], steps: int, batch: int, seed: int) -> list[float]:
    """Train fusion and head on what all the rest, random and frozen, makes of the rows; returns the losses.

    Each row goes through the rest once: minutes where training all of it takes hours, and decisions that differ from
    row to row, which is what an export has to keep.
    """
    from hfvla.models.ember_vlm.batches import EmberVLMCollator

    collate = EmberVLMCollator(processor, model.config, losses=("selection",), training=False)
    kept: list[tuple[Any, ...]] = []
    hook = model.fusion.register_forward_pre_hook(lambda _, given: kept.append(given))
    labels = []
    with torch.no_grad():
        for start in range(0, len(rows), _ENCODED):
            rows_now = collate([dict(row) for row in rows[start : start + _ENCODED]])
            model(**rows_now)
            labels.append(rows_now["robot_labels"])
    hook.remove()
    inputs = [
        None if one[0] is None else torch.cat([torch.as_tensor(part) for part in one])
        for one in zip(*kept, strict=True)
    ]
    gold, order = torch.cat(labels), np.random.default_rng(seed)
    learned = [*model.fusion.parameters(), *model.selection_head.parameters()]
    optimizer = torch.optim.AdamW(learned, lr=1e-3, weight_decay=0.01)
    losses = []
    for _ in range(steps):
        chosen = torch.from_numpy(order.choice(len(rows), batch, replace=False))
        fused = model.fusion(*(None if one is None else one[chosen] for one in inputs))
        loss = torch.nn.functional.binary_cross_entropy_with_logits(model.selection_head(fused), gold[chosen].float())
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(loss.item())
    return losses


def decided(engine: Any, model: Any, processor: Any, rows: list[dict[str, Any]]) -> tuple[list[Any], np.ndarray]:
    """The chosen set of every row, and its log-odds."""
    logits = np.stack([selected(engine, model.config, processor, [row["task"]], [row["image"]])[0] for row in rows])
    chosen = model.chosen(model.probabilities(torch.from_numpy(logits)))
    return [tuple(row) for row in chosen.tolist()], logits


def compare(engines: tuple[Any, Any], model: Any, processor: Any, rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Decide rows with both engines."""
    (first, ours), (second, theirs) = (decided(engine, model, processor, rows) for engine in engines)
    threshold = model.config.calibration["threshold"]
    line = model.config.calibration["temperature"] * np.log(threshold / (1 - threshold))
    margins = np.abs(ours - line).min(axis=1)
    gold = [tuple(name in row["robots"] for name in model.config.robots) for row in rows]
    exact = [
        float(np.mean([one == right for one, right in zip(found, gold, strict=True)])) for found in (first, second)
    ]
    return {
        "rows": len(rows),
        "alike": float(np.mean([one == other for one, other in zip(first, second, strict=True)])),
        "different_sets": len(set(first)),
        "margin": {f"p{share}": float(np.percentile(margins, share)) for share in (1, 5, 50)},
        "max_difference": float(np.abs(ours - theirs).max()),
        "mean_difference": float(np.abs(ours - theirs).mean()),
        "exact_match": {"float32": float(exact[0]), "int8": float(exact[1])},
    }


def measured(
    folder: Path, processor: Any, row: dict[str, Any], threads: int, runs: int, pause_s: float
) -> dict[str, Any]:
    """Memory and time of a selection in a fresh process: one after another, and each after a pause."""
    batch = processor.prompts([row["task"]], [row["image"]])
    np.savez(folder / "inputs.npz", **{name: value.numpy() for name, value in batch.items()})

    def run(count: int, pause: float = 0.0) -> dict[str, Any]:
        words = [sys.executable, "-c", MEASURE, str(folder), str(count), str(runs), str(pause)]
        return dict(json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout))

    found, rested, alone = run(threads), run(threads, pause_s), run(1)
    clock, cpu = found["clock_ms"], found["cpu_ms"]
    return {
        "memory_mb": found["memory_mb"], "p50_ms": float(np.median(clock)), "p95_ms": float(np.percentile(clock, 95)),
        "p50_rested_ms": float(np.median(rested["clock_ms"])), "pause_s": pause_s, "best_ms": min(clock),
        "p50_cpu_ms": float(np.median(cpu)), "runs": runs, "threads": threads,
        "one_thread_cpu_ms": float(np.median(alone["cpu_ms"])), "one_thread_best_ms": min(alone["clock_ms"]),
    }  # fmt: skip


def main() -> None:
    """Build or load, export, measure, print and write."""
    arguments = parsed()
    torch.manual_seed(arguments.seed)
    train = fleet_rows("train", arguments.pictures, arguments.seed) if not arguments.trained else []
    train += fleet_rows("train", arguments.train_rows, arguments.seed + 1, images=False)
    layers = json.loads(arguments.config) if arguments.config else {}
    started, losses = time.perf_counter(), []
    if arguments.checkpoint:
        from hfvla.registry import load_checkpoint

        _, model, processor = load_checkpoint(arguments.checkpoint, family="ember_vlm")
    else:
        model, processor = real_size(train, layers, arguments.seed)
        if not arguments.trained:
            settle(model, processor, train)
            losses = learn(model, processor, train, arguments.steps, arguments.batch, arguments.seed)
    built_s = time.perf_counter() - started
    with tempfile.TemporaryDirectory() as name:
        found = export_and_compare(model, processor, Path(arguments.graphs or name), arguments)
    found |= {
        "parameters": sum(one.numel() for one in model.parameters()), "losses": losses[:1] + losses[-1:],
        "built_s": built_s, "seed": arguments.seed, "goals": GOALS,
        "hardware": {"cpu": platform.machine(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
    }  # fmt: skip
    show(found)
    arguments.output.parent.mkdir(parents=True, exist_ok=True)
    arguments.output.write_text(json.dumps(found, indent=2) + "\n")


def export_and_compare(model: Any, processor: Any, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Write float32 and int8 graphs, measure both, and decide rows."""
    plan = export_plan(model, processor)
    parts = [part for part in plan.parts if arguments.decoder or part.name in SELECTION]
    left = written(plan, parts, model, processor, folder, arguments)
    test = fleet_rows("test", arguments.rows, arguments.seed)
    measures = {}
    for name in ("float32", "int8"):
        place = folder / name
        measures[name] = measured(place, processor, test[0], arguments.threads, arguments.runs, arguments.pause)
        sizes = {part.name: (place / f"{part.name}.onnx").stat().st_size / 1e6 for part in parts}
        measures[name] |= {"file_mb": sum(sizes[part] for part in SELECTION), "parts_mb": sizes}
    found = {"engines": measures, "left_whole": left, "method": arguments.method}
    if not arguments.trained:
        return {**found, "sets": decisions(plan, model, processor, folder, test, arguments)}
    return {**found, **trained_decisions(folder / "trained", test, arguments)}


def written(plan: Any, parts: list[Any], model: Any, processor: Any, folder: Path, arguments: Any) -> dict[str, Any]:
    """Write `float32/` and `int8/`, and return what stayed whole; graphs of an earlier run in `--graphs` stay."""
    whole, small = folder / "float32", folder / "int8"
    for place in (whole, small):
        place.mkdir(parents=True, exist_ok=True)
    write_onnx([part for part in parts if not (whole / f"{part.name}.onnx").is_file()], whole)
    given = Recorder(TorchEngine(plan.parts))
    for row in fleet_rows("train", _CALIBRATED, arguments.seed) if arguments.method in ("static", "mixed") else ():
        selected(given, model.config, processor, [row["task"]], [row["image"]])
    left = {}
    for part in parts:
        (small / f"{part.name}.onnx").write_bytes((whole / f"{part.name}.onnx").read_bytes())
        quantise(small / f"{part.name}.onnx", 8, arguments.method, given.rows.get(part.name, []))
        left[part.name] = left_whole(small / f"{part.name}.onnx")
    return left


def decisions(plan: Any, model: Any, processor: Any, folder: Path, test: list[Any], arguments: Any) -> dict[str, Any]:
    """Decide rows of every set with torch and with the int8 graphs."""
    engines = TorchEngine(plan.parts), OnnxEngine(folder / "int8", arguments.threads)
    sets = {"generated": [compare(engines, model, processor, test)]}
    if arguments.real:
        sets["real"] = [compare(engines, model, processor, real_rows(arguments.real))]
    return sets


def trained_decisions(folder: Path, test: list[Any], arguments: argparse.Namespace) -> dict[str, Any]:
    """Export the checkpoints of `--trained` the same way, and decide rows with each."""
    from hfvla.registry import load_checkpoint

    about: list[dict[str, Any]] = []
    sets: dict[str, list[Any]] = {}
    for number, checkpoint in enumerate(arguments.trained):
        place = folder / str(number)
        _, model, processor = load_checkpoint(checkpoint, family="ember_vlm")
        plan = export_plan(model, processor)
        written(plan, [part for part in plan.parts if part.name in SELECTION], model, processor, place, arguments)
        size = sum(one.numel() for one in model.parameters())
        about.append({"parameters": size, "image_size": model.config.image_size})
        for name, found in decisions(plan, model, processor, place, test, arguments).items():
            sets.setdefault(name, []).extend(found)
    return {"trained": about, "sets": sets}


def show(found: dict[str, Any]) -> None:
    """Print one table."""
    table = Table(
        title=f"EmberVLM, {found['parameters'] / 1e6:.1f} M parameters, on {found['hardware']['cores']} cores"
    )
    for heading in ("", "float32", "int8", "goal"):
        table.add_column(heading, justify="right" if heading else "left")
    engines = found["engines"]
    for key, label in (
        ("file_mb", "vision + select, MB"), ("memory_mb", "memory of loading, MB"), ("p50_ms", "selection p50, ms"),
        ("p95_ms", "selection p95, ms"), ("p50_rested_ms", "p50 after a pause, ms"),
        ("best_ms", "selection, fastest, ms"),
        ("p50_cpu_ms", "processor time, all threads, ms"), ("one_thread_cpu_ms", "processor time, one thread, ms"),
    ):  # fmt: skip
        goal = f"<= {GOALS[key]:g}" if key in GOALS else ""
        table.add_row(label, f"{engines['float32'][key]:.1f}", f"{engines['int8'][key]:.1f}", goal)
    for name, one in [(name, one) for name, several in found["sets"].items() for one in several]:
        table.add_row(
            f"{name}: decided alike, {one['rows']} rows", "", f"{one['alike']:.2%}", f">= {GOALS['alike']:.1%}"
        )
        apart = f"{one['mean_difference']:.3f}; {one['max_difference']:.3f}"
        table.add_row(f"{name}: log-odds apart, mean; most", "", apart, "")
        margin = f"{one['margin']['p1']:.3f}; {one['margin']['p50']:.3f}"
        table.add_row(f"{name}: nearest to the threshold, 1 %; median", margin, "", "")
    Console().print(table)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", help="a checkpoint of the size to measure, in place of random weights")
    parser.add_argument(
        "--trained", nargs="*", default=[], help="trained checkpoints of any size, to compare decisions on"
    )
    parser.add_argument("--real", nargs="*", default=[], help="robot-selection files")
    parser.add_argument("--config", help="JSON of config values, for another size")
    parser.add_argument("--method", default="blocks", help="of 8 bits: dynamic, static, blocks or mixed")
    parser.add_argument("--steps", type=int, default=300)
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--train-rows", type=int, default=1200, help="generated tasks without a picture")
    parser.add_argument("--pictures", type=int, default=200, help="and with one")
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--pause", type=float, default=0.05, help="seconds between two selections")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--graphs", help="folder to keep the graphs in; float32 ones that are there are taken")
    parser.add_argument("--decoder", action="store_true", help="also export the decoder")
    parser.add_argument("--output", type=Path, default=Path(__file__).parent / "results" / "edge.json")
    return parser.parse_args()


if __name__ == "__main__":
    main()

"""Latency of action chunks on one device: a part of `benchmarks/gpu.py`, which calls `measure_actions`.

One robot (batch 1), Qwen2.5-VL-3B shapes with random bf16 weights, cameras of 640 x 360, the (65, 1026) sensor window:

- eager, with 1, 2, 3 and 5 views: backbone, fusion and expert for every chunk;
- compiled: the same through torch.compile;
- cached features: the backbone's features are those of an earlier picture, only state, sensor and expert are new;
- diffusion and flow experts with 5, 10 and 20 denoising steps, on cached features.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from importlib.util import find_spec
from typing import Any

import torch

VIEWS, DENOISING = (1, 2, 3, 5), (5, 10, 20)
GOAL_CHUNKS_PER_S = 35.0  # two views on an H100


def latencies(step: Callable[[], Any], runs: int, device: str, warmup: int = 3) -> dict[str, float]:
    """Return p50 and p95 in milliseconds, and chunks a second at p50."""
    seconds = []
    for number in range(warmup + runs):
        if device != "cpu":
            torch.cuda.synchronize()
        began = time.perf_counter()
        step()
        if device != "cpu":
            torch.cuda.synchronize()
        if number >= warmup:
            seconds.append(time.perf_counter() - began)
    p50 = statistics.median(seconds)
    p95 = sorted(seconds)[min(len(seconds) - 1, round(0.95 * (len(seconds) - 1)))]
    return {"p50_ms": 1e3 * p50, "p95_ms": 1e3 * p95, "chunks_per_s": 1.0 / p50}


def build(views: int, expert: Mapping[str, Any], tiny: bool, device: str) -> tuple[Any, dict[str, Any]]:
    """Return a model with random bf16 weights and the inputs of one robot, on the device."""
    from hfvla.models.sensor_vla.batches import plan_batch
    from hfvla.models.sensor_vla.configuration_sensor_vla import SensorVLAConfig
    from hfvla.models.sensor_vla.modeling_sensor_vla import SensorVLAForActionPrediction

    names = [f"view{number}" for number in range(views)]
    if tiny:
        small = {"width": 32, "layers": 1, "heads": 2, "feed_forward": 64}
        config = SensorVLAConfig.tiny(views=names, expert={**expert, **small})
    else:
        config = SensorVLAConfig(views=names, state_dim=12, sensor={}, expert={**expert, "width": 1024})
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with torch.device(device):
            model = SensorVLAForActionPrediction(config).eval()
    finally:
        torch.set_default_dtype(before)
    batch = plan_batch(config, 1, ("action",))
    draw = torch.Generator().manual_seed(0)
    inputs = {}
    for name, value in batch.items():
        if name in {"actions", "action_mask", "confidence"}:
            continue
        if value.device.type == "meta":
            value = torch.randn(value.shape, generator=draw)
        inputs[name] = value.to(device, torch.bfloat16 if value.is_floating_point() else None)
    return model.to(torch.bfloat16), inputs


def split(inputs: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what the backbone reads, and what the robot's numbers are."""
    robot = ("state", "sensor", "sensor_present", "sensor_mask")
    return {k: v for k, v in inputs.items() if k not in robot}, {k: v for k, v in inputs.items() if k in robot}


def whole(model: Any, inputs: Mapping[str, Any], steps: int | None = None) -> Callable[[], Any]:
    """Return a call that predicts a chunk from pictures."""
    pictures, robot = split(inputs)

    @torch.no_grad()
    def step() -> Any:
        fused = model.fuse(model.encode(**pictures), **robot)
        return model.expert.sample(fused.tokens, feature_mask=fused.mask, steps=steps)

    return step


def reused(model: Any, inputs: Mapping[str, Any], steps: int | None = None) -> Callable[[], Any]:
    """Return a call that predicts a chunk from features that are there already."""
    pictures, robot = split(inputs)
    with torch.no_grad():
        features = model.encode(**pictures)

    @torch.no_grad()
    def step() -> Any:
        fused = model.fuse(features, **robot)
        return model.expert.sample(fused.tokens, feature_mask=fused.mask, steps=steps)

    return step


def cases(tiny: bool, device: str) -> Iterator[tuple[dict[str, Any], Callable[[], Callable[[], Any]]]]:
    """Yield each row's name with what builds the call to time."""

    def regression(views: int, kind: str) -> Callable[[], Any]:
        model, inputs = build(views, {"kind": "regression"}, tiny, device)
        if kind == "compiled":
            backend = "eager" if device == "cpu" else "inductor"
            model.backbone = torch.compile(model.backbone, backend=backend)
            model.expert.predict = torch.compile(model.expert.predict, backend=backend)
        return reused(model, inputs) if kind == "cached features" else whole(model, inputs)

    def sampled(expert: str, steps: int) -> Callable[[], Any]:
        return reused(*build(2, {"kind": expert}, tiny, device), steps)

    for kind in ("eager", "compiled", "cached features"):
        for views in VIEWS:
            name = {"expert": "regression", "views": views, "kind": kind, "steps": None}
            yield name, lambda views=views, kind=kind: regression(views, kind)
    for expert in ("diffusion", "flow"):
        for steps in DENOISING:
            name = {"expert": expert, "views": 2, "kind": "cached features", "steps": steps}
            yield name, lambda expert=expert, steps=steps: sampled(expert, steps)


def measure_actions(tiny: bool, device: str, runs: int) -> list[dict[str, Any]]:
    """Time every case; one that cannot run is a row that says so."""
    rows = []
    for name, prepare in cases(tiny, device):
        row = dict(name)
        if name["expert"] == "diffusion" and find_spec("diffusers") is None:
            rows.append({**row, "left_out": "diffusers is not installed"})
            continue
        try:
            torch.manual_seed(0)
            row |= latencies(prepare(), runs, device)
        except Exception as error:
            row["left_out"] = f"{type(error).__name__}: {str(error).splitlines()[0][:160]}"
        finally:
            torch.compiler.reset()
            if device != "cpu":
                torch.cuda.empty_cache()
        rows.append(row)
    return rows


def show_actions(rows: list[dict[str, Any]]) -> None:
    """Print the table."""
    form = "{:12} {:>5} {:16} {:>9} {:>9} {:>9} {:>9}"
    print(f"\naction chunks of one robot (goal on an H100: {GOAL_CHUNKS_PER_S:g} chunks/s with two views)")
    print(form.format("expert", "views", "kind", "denoising", "p50 ms", "p95 ms", "chunks/s"))
    for row in rows:
        told = (row["expert"], row["views"], row["kind"], row["steps"] or "-")
        if "left_out" in row:
            print(f"{told[0]:12} {told[1]:>5} {told[2]:16} {told[3]:>9} left out: {row['left_out']}")
            continue
        print(form.format(*told, f"{row['p50_ms']:.1f}", f"{row['p95_ms']:.1f}", f"{row['chunks_per_s']:.1f}"))

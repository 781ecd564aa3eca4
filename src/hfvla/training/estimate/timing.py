"""Seconds of an optimizer step: arithmetic, memory traffic and launches on a GPU, and what moves between GPUs."""

from __future__ import annotations

import itertools
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfvla.errors import DataError
from hfvla.training.estimate.devices import GPUS, MFU, Gpu
from hfvla.training.estimate.memory import Setting
from hfvla.training.estimate.profile import StepProfile
from hfvla.training.estimate.sizes import ModelBytes

__all__ = ["Throughput", "read_throughput", "step_seconds"]

_HOST_ADAM_PARAMETERS_S = 1e9  # parameters that DeepSpeed's CPU Adam updates a second on one process's cores
_LAUNCH_SECONDS = 8e-6  # of one operation in eager mode, Python included
_GIGA, _TERA = 1e9, 1e12


@dataclass(frozen=True)
class Throughput:
    """How fast GPUs compute.

    Attributes:
        measured_tflops: TFLOP/s reached, by name of a GPU; others count by their peak.
        mfu: share of the peak reached where nothing was measured.
    """

    measured_tflops: dict[str, float]
    mfu: float = MFU

    def arithmetic_seconds(self, flops: float, gpu: Gpu, half: bool) -> float:
        """Return seconds of floating-point operations at the measured speed, or else at a share of the peak."""
        if half and gpu.name in self.measured_tflops:
            return flops / (self.measured_tflops[gpu.name] * _TERA)
        return flops / (self.mfu * (gpu.peak_tflops if half else gpu.peak_tflops_float32) * _TERA)

    def batch_seconds(self, profile: StepProfile, gpu: Gpu, half: bool) -> float:
        """Return seconds of one forward and backward pass: the longest of arithmetic, memory traffic and launches.

        Args:
            profile: the step.
            gpu: where it runs.
            half: in bf16 or fp16.
        """
        arithmetic = self.arithmetic_seconds(profile.flops, gpu, half)
        if half and gpu.name in self.measured_tflops:  # holds all three
            return arithmetic
        traffic = profile.traffic_bytes / (gpu.memory_gb_s * _GIGA)
        return max(arithmetic, traffic, profile.kernels * _LAUNCH_SECONDS)


def read_throughput(path: str | Path, mfu: float = MFU) -> Throughput:
    """Read what was measured: the result of `benchmarks/gpu.py`, or {"achieved_tflops": {"a100-80": 140.2, ...}}.

    Of a benchmark's rows the fastest plain step counts.

    Raises:
        DataError: no such file, not JSON, nothing measured in it, or a GPU that is not in the table.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(f"cannot read measured throughputs: {error}", where=str(path)) from error
    content = content if isinstance(content, dict) else {}
    found = content.get("achieved_tflops") or _benchmark(content)
    names = [gpu.name for gpu in GPUS]
    if not found or any(name not in names or not value > 0 for name, value in found.items()):
        raise DataError(
            "no measured throughput of a known GPU in this file",
            where=str(path),
            got=found or sorted(content),
            expected=f"a result of benchmarks/gpu.py, or achieved_tflops by name: {', '.join(names)}",
        )
    return Throughput({name: float(value) for name, value in found.items()}, mfu)


def _benchmark(content: dict[str, Any]) -> dict[str, float]:
    """Return TFLOP/s by GPU of a result of `benchmarks/gpu.py`; nothing where it holds none."""
    hardware = content.get("hardware", {})
    card = str(hardware.get("gpu", "")).lower()
    words = re.split(r"[^a-z0-9]+", card)
    words += [first + second for first, second in itertools.pairwise(words)]  # "RTX 4090"
    gpus = [gpu for gpu in GPUS if gpu.name.split("-")[0] in words]
    size = hardware.get("gpu_bytes", 0)
    gpu = min(gpus, key=lambda known: abs(known.memory_bytes - size), default=None)
    reached = [row["mfu"] for row in content.get("rows", ()) if row.get("mfu") and row.get("variant") == "sdpa"]
    return {gpu.name: max(reached) * hardware["peak_bf16_tflops"]} if gpu and reached else {}


def step_seconds(
    batch_seconds: float, size: ModelBytes, setting: Setting, gpu: Gpu, gpus: int, accumulation: int = 1
) -> float:
    """Return seconds of one optimizer step; nothing is assumed to overlap.

    Args:
        batch_seconds: forward and backward pass of one batch, by `Throughput.batch_seconds`.
        size: the model, in the dtype that travels.
        setting: how it is spread.
        gpu: on which GPU.
        gpus: how many.
        accumulation: batches an optimizer step.
    """
    share = (gpus - 1) / gpus
    exchanged = share * 2 * size.gradients  # reduce-scatter and all-gather, or one all-reduce
    if setting.zero >= 2:
        exchanged = share * size.gradients * (accumulation + 1)
    if setting.zero == 3:  # every batch gathers all weights twice and scatters its gradients
        exchanged = share * accumulation * (2 * size.weights + size.gradients)
    spread = gpus if setting.zero else 1
    touched = 2 * (size.gradients + size.optimizer.state) / spread  # read and written by the optimizer
    moved = host = 0.0
    if setting.offload_optimizer:
        moved, touched = 2 * size.gradients / gpus, 0.0
        host = size.trainable / gpus / _HOST_ADAM_PARAMETERS_S
    if setting.offload_parameters:
        moved += accumulation * 2 * size.weights / gpus
    exchange = exchanged / gpu.link_gb_s + touched / gpu.memory_gb_s + moved / gpu.host_gb_s
    return accumulation * batch_seconds + exchange / _GIGA + host

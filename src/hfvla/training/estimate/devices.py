"""The GPUs a plan is made for, and what is assumed of them. Every number here is a statement, not a measurement."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass, replace

from hfvla.errors import HfvlaError, did_you_mean

__all__ = ["GPUS", "GPU_COUNTS", "MFU", "Gpu", "find_gpu", "this_cpu"]

_GIB = 1 << 30
GPU_COUNTS = (1, 2, 4, 8)
MFU = 0.4
"""Model FLOPs utilisation assumed where nothing was measured: what well-fed transformers of 1 B parameters and more
reach in bf16. Small models stay far below it."""


@dataclass(frozen=True)
class Gpu:
    """A GPU.

    Attributes:
        name: as options and JSON say it.
        memory_bytes: what CUDA reports as total, not what the label says.
        peak_tflops: dense bf16 tensor-core peak of the data sheet, sums in float32; fp16's where there is no bf16.
        peak_tflops_float32: float32 peak without TF32, which PyTorch leaves off.
        memory_gb_s: bandwidth of its own memory, of the data sheet.
        link_gb_s: GB/s that one GPU sends in a collective inside one machine.
        host_gb_s: GB/s between one GPU and the host's memory.
        price: price of a GPU-hour in units of an A40's; an assumption for ranking only.
        bf16: whether it multiplies in bf16.
        like: GPU of the table whose speed is assumed, where only the memory was said.
    """

    name: str
    memory_bytes: int
    peak_tflops: float
    peak_tflops_float32: float
    memory_gb_s: float
    link_gb_s: float
    host_gb_s: float
    price: float
    bf16: bool = True
    like: str = ""


GPUS = (
    Gpu("t4-16", int(14.6 * _GIB), 65.0, 8.1, 320.0, 8.0, 10.0, 0.4, bf16=False),
    Gpu("l4-24", int(22.0 * _GIB), 121.0, 30.3, 300.0, 20.0, 20.0, 0.8),
    Gpu("rtx3090-24", int(23.6 * _GIB), 71.0, 35.6, 936.0, 15.0, 20.0, 0.5),
    Gpu("rtx4090-24", int(23.5 * _GIB), 165.2, 82.6, 1008.0, 15.0, 20.0, 0.9),
    Gpu("rtx5090-32", int(31.4 * _GIB), 209.5, 104.8, 1792.0, 30.0, 40.0, 1.4),
    Gpu("a100-40", int(39.4 * _GIB), 312.0, 19.5, 1555.0, 200.0, 20.0, 2.5),
    Gpu("a40-48", int(44.4 * _GIB), 149.7, 37.4, 696.0, 20.0, 20.0, 1.0),
    Gpu("l40s-48", int(44.4 * _GIB), 362.0, 91.6, 864.0, 20.0, 20.0, 1.7),
    Gpu("a100-80", int(79.1 * _GIB), 312.0, 19.5, 2039.0, 200.0, 20.0, 3.5),
    Gpu("h100-80", int(79.1 * _GIB), 989.0, 67.0, 3350.0, 350.0, 40.0, 6.0),
    Gpu("h200-141", int(139.8 * _GIB), 989.0, 67.0, 4800.0, 350.0, 40.0, 7.5),
    Gpu("b200-180", int(178.4 * _GIB), 2250.0, 75.0, 7700.0, 700.0, 55.0, 11.0),
)
"""In the order of their memory. A GeForce card has no link of its own: gradients travel over PCIe."""

_SIZE = re.compile(r"^(?P<name>[^:]+):(?P<size>\d+(\.\d+)?) ?gi?b$", re.IGNORECASE)
_USABLE = 0.93  # of the memory on a label, in GiB: what CUDA reports is less on every card of the table


def find_gpu(name: str) -> Gpu:
    """Return a GPU by name ("a40-48", "rtx4090"), or one with the memory that is said ("rtx3090:48GB", "mine:24GB").

    A name that the table does not have gets the speed of the card there whose memory is nearest.

    Raises:
        HfvlaError: unknown, or several have that name; the message suggests the nearest.
    """
    sized = _SIZE.match(name.strip())
    if sized is not None:
        return _with_memory(sized["name"], float(sized["size"]))
    found = [gpu for gpu in GPUS if name.lower() in (gpu.name, gpu.name.split("-")[0])]
    if len(found) == 1:
        return found[0]
    if found:
        several = ", ".join(gpu.name for gpu in found)
        raise HfvlaError(f"there are several GPUs '{name}' in the table", expected=several)
    names, short = [gpu.name for gpu in GPUS], name.partition(":")[0].replace(" ", "") or "mine"
    raise HfvlaError(
        f"no GPU '{name}' in the table. {did_you_mean(name, names)} Or say its memory: --gpu {short}:24GB."
    )


def _with_memory(name: str, gigabytes: float) -> Gpu:
    if gigabytes <= 0:
        raise HfvlaError("a GPU has some memory", where="--gpu", got=f"{name}:{gigabytes:g}GB")
    memory = int(gigabytes * _USABLE * _GIB)
    nearest = min(GPUS, key=lambda gpu: abs(gpu.memory_bytes - memory))
    model = next((gpu for gpu in GPUS if name.lower() in (gpu.name, gpu.name.split("-")[0])), nearest)
    like = model.name if model is nearest and not model.name.startswith(name.lower()) else ""
    return replace(model, name=f"{name.lower()}-{gigabytes:g}", memory_bytes=memory, like=like)


def this_cpu() -> Gpu:
    """Return this machine's CPU as a device of a plan: its float32 speed is measured here, in a tenth of a second.

    Its memory's bandwidth is an assumption; half precision is taken to be no faster than float32.
    """
    import torch

    matrix = torch.ones(768, 768)
    best = float("inf")  # the others of this machine slow some of them down
    until = time.perf_counter() + 0.1
    while time.perf_counter() < until:
        started = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - started)
    tflops = 2 * 768**3 / best / 1e12
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return Gpu("cpu", memory, tflops, tflops, 20.0, 1.0, 20.0, 0.0)

"""The GPUs a plan is made for, and what is assumed of them. Every number here is a statement, not a measurement."""

from __future__ import annotations

from dataclasses import dataclass

from hfvla.errors import HfvlaError, did_you_mean

__all__ = ["GPUS", "GPU_COUNTS", "MFU", "Gpu", "find_gpu"]

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
        peak_tflops: dense bf16 tensor-core peak of the data sheet.
        peak_tflops_float32: float32 peak without TF32, which PyTorch leaves off.
        memory_gb_s: bandwidth of its own memory, of the data sheet.
        link_gb_s: GB/s that one GPU sends in a collective inside one machine.
        host_gb_s: GB/s between one GPU and the host's memory.
        price: price of a GPU-hour in units of an A40's; an assumption for ranking only.
    """

    name: str
    memory_bytes: int
    peak_tflops: float
    peak_tflops_float32: float
    memory_gb_s: float
    link_gb_s: float
    host_gb_s: float
    price: float


GPUS = (
    Gpu("a40-48", int(44.4 * _GIB), 149.7, 37.4, 696.0, 20.0, 20.0, 1.0),
    Gpu("a100-40", int(39.4 * _GIB), 312.0, 19.5, 1555.0, 200.0, 20.0, 2.5),
    Gpu("a100-80", int(79.1 * _GIB), 312.0, 19.5, 2039.0, 200.0, 20.0, 3.5),
    Gpu("h100-80", int(79.1 * _GIB), 989.0, 67.0, 3350.0, 350.0, 40.0, 6.0),
)


def find_gpu(name: str) -> Gpu:
    """Return a GPU by name.

    Raises:
        HfvlaError: unknown; the message suggests the nearest.
    """
    for gpu in GPUS:
        if gpu.name == name:
            return gpu
    raise HfvlaError(f"no GPU '{name}' in the table. {did_you_mean(name, [gpu.name for gpu in GPUS])}")

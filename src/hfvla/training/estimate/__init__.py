"""What training would need before it starts: stages and phases, bytes, peak memory and time, from shapes alone.

A step is followed on the meta device (`profile`), its bytes are laid out for plain, DDP and ZeRO training (`memory`),
and its floating-point operations become time (`timing`). `plan_recipe` does it for every stage of a recipe,
`plan_shape` for a well-known backbone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hfvla.training.estimate.costs import Workload, training_costs
from hfvla.training.estimate.devices import GPU_COUNTS, GPUS, MFU, Gpu, find_gpu, this_cpu
from hfvla.training.estimate.memory import SETTINGS, MemoryEstimate, Setting, combine, estimate_memory
from hfvla.training.estimate.profile import StepProfile, estimate_flops, profile_step
from hfvla.training.estimate.shapes import ShapeRun, plan_shape, shape_batch, shape_model, shape_names
from hfvla.training.estimate.sizes import PRECISIONS, ModelBytes, Precision
from hfvla.training.estimate.timing import Throughput, read_throughput, step_seconds
from hfvla.training.estimate.tracker import EstimateError

if TYPE_CHECKING:
    from hfvla.training.estimate.recipe import plan_recipe

__all__ = [
    "GPUS",
    "GPU_COUNTS",
    "MFU",
    "PRECISIONS",
    "SETTINGS",
    "EstimateError",
    "Gpu",
    "MemoryEstimate",
    "ModelBytes",
    "Precision",
    "Setting",
    "ShapeRun",
    "StepProfile",
    "Throughput",
    "Workload",
    "combine",
    "estimate_flops",
    "estimate_memory",
    "find_gpu",
    "plan_recipe",
    "plan_shape",
    "profile_step",
    "read_throughput",
    "shape_batch",
    "shape_model",
    "shape_names",
    "step_seconds",
    "this_cpu",
    "training_costs",
]


def __getattr__(name: str) -> Any:
    """Import `plan_recipe` when it is asked for: it needs the whole engine, and a plan of a shape does not."""
    if name == "plan_recipe":
        from hfvla.training.estimate.recipe import plan_recipe

        return plan_recipe
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")

"""The frozen prefix that a stage's feature cache computes once: what it gives, takes and costs on the meta device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from hfvla.family import FeatureCut
from hfvla.training.estimate.kernels import GpuKernels
from hfvla.training.estimate.repeats import followed_once
from hfvla.training.estimate.tracker import EstimateError, StepTracker

__all__ = ["PrefixCost", "cache_note", "profile_prefix"]


@dataclass(frozen=True)
class PrefixCost:
    """What encoding one sample once costs.

    Attributes:
        flops_per_sample: floating-point operations.
        bytes_per_sample: bytes of the features, in the dtype that they are kept in.
        peak_bytes: the most that is alive while a batch is encoded, weights apart.
    """

    flops_per_sample: float
    bytes_per_sample: float
    peak_bytes: int


def profile_prefix(
    model: nn.Module,
    cut: FeatureCut,
    batch: Mapping[str, Any],
    batch_size: int,
    *,
    kept: torch.dtype = torch.float16,
    autocast: torch.dtype | None = None,
) -> tuple[dict[str, Any], PrefixCost]:
    """Run a model's frozen prefix on shapes and return the batch that the rest of the model trains on.

    Args:
        model: on the meta device.
        cut: where it is cut; names a `plan` function.
        batch: as the family's `plan_batch` makes it.
        batch_size: samples in it.
        kept: dtype of the kept features.
        autocast: dtype of matrix products; None = without.

    Returns:
        `tuple`: (the batch with features in place of what they replace, `PrefixCost`).

    Raises:
        EstimateError: the prefix needs computed values, or the family's `plan` leaves what the features replace.
    """
    if not cut.has("plan"):
        raise EstimateError("the family does not say how its cut is planned")
    training = [module for module in model.modules() if module.training]
    tracker = StepTracker()
    for tensor in (*model.parameters(), *model.buffers()):
        tracker.exclude(tensor)
    try:
        model.eval()
        with torch.no_grad(), followed_once(model, tracker), GpuKernels(autocast), tracker:
            cached = cut.load("plan")(model, dict(batch))
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise EstimateError(
            "the frozen prefix fails on the meta device", got=f"{type(error).__name__}: {str(error)[:200]}"
        ) from error
    finally:
        for module in training:
            module.training = True
    features = [cached[name] for name in cut.provides if isinstance(cached.get(name), Tensor)]
    left = sorted(set(cut.replaces) & set(cached))
    if left or not features:
        raise EstimateError(
            "the batch planned for the cut is not one that training would see",
            got=", ".join(left) or f"none of {', '.join(cut.provides)}",
        )
    size = sum(value.numel() * (kept.itemsize if value.is_floating_point() else value.itemsize) for value in features)
    return cached, PrefixCost(tracker.flops / batch_size, size / batch_size, tracker.peak_bytes)


def cache_note(cost: PrefixCost | None, samples: int, views: int) -> str:
    """Return what a plan says about a stage's feature cache.

    Args:
        cost: of one sample; None where the family does not say how its cut is planned.
        samples: training samples.
        views: versions kept of each.
    """
    if cost is None:
        return "the feature cache is not counted: its frozen parts run in the first epoch only"
    size, work = cost.bytes_per_sample * samples * views / 1e9, cost.flops_per_sample / 1e9
    return (
        f"feature cache: its frozen parts run once a sample ({work:.3g} GFLOP), which is in the time; at most "
        f"{max(size, 0.001):.3g} GB on disk, {cost.bytes_per_sample / 1e3:.3g} kB a sample"
    )

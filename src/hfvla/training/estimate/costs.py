"""What training something would cost: memory and time in every setting on every GPU, and the cheapest that fits."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import nn

from hfvla.training.estimate.devices import GPU_COUNTS, GPUS, MFU, Gpu
from hfvla.training.estimate.memory import SETTINGS, MemoryEstimate, Setting, combine
from hfvla.training.estimate.profile import StepProfile, default_loss, profile_step
from hfvla.training.estimate.sizes import ModelBytes, Precision
from hfvla.training.estimate.timing import Throughput, step_seconds

__all__ = ["ASSUMPTIONS", "Workload", "training_costs"]


@dataclass(frozen=True)
class Workload:
    """What is trained, on what, for how long.

    Attributes:
        model: on the meta device.
        batch: what one GPU gets at a time.
        batch_size: samples in it.
        phases: names of the parameters that train, and samples seen, phase by phase; parts only join.
        precision: dtypes.
        optim: name as in `TrainingArguments.optim`.
        accumulation: batches an optimizer step.
        max_steps: optimizer steps, where they are set; else they follow from the samples.
        four_bit: names of the weights held in four bits.
        loss: picks the scalar to minimise from the output.
        once_flops: floating-point operations done once before the steps: filling a feature cache.
        once_peak: the most that is alive meanwhile, weights apart, in bytes.
        extra_gradients: copies of the gradients that balancing the loss terms keeps.
        beside: weights that the losses hold beside the model, e.g. of the model that a stage began with.
        reported_gradients: scalars of the gradients that a gradient report keeps, of all loss terms together.
        gpus: GPUs to plan for.
        as_written: setting that the recipe asks for, and whether with gradient checkpointing.
        cpu: the machine's own CPU, or None.
        brief: follow the step as the recipe is written alone, and every setting only where that fits no GPU.
    """

    model: nn.Module
    batch: Mapping[str, Any]
    batch_size: int
    phases: Sequence[tuple[Collection[str], float]]
    precision: Precision
    optim: str = "adamw_torch_fused"
    accumulation: int = 1
    max_steps: int | None = None
    four_bit: Collection[str] = ()
    loss: Any = default_loss
    once_flops: float = 0.0
    once_peak: int = 0
    extra_gradients: int = 0
    beside: int = 0
    reported_gradients: int = 0
    gpus: Sequence[Gpu] = field(default=GPUS)
    as_written: tuple[str, bool] = ("plain", False)
    cpu: Gpu | None = None
    brief: bool = False

    @property
    def trained(self) -> Collection[str]:
        """Names of all parameters that ever train."""
        return self.phases[-1][0]

    @property
    def held_bytes(self) -> int:
        """Bytes of what losses, balancing and reporting hold beside weights and ordinary gradients, in float32."""
        wanted = set(self.trained)
        trained = sum(value.numel() for name, value in self.model.named_parameters() if name in wanted)
        return (self.extra_gradients * trained + self.reported_gradients + self.beside) * torch.float32.itemsize


def _profile(work: Workload, zero: bool, checkpointing: bool, trained: Collection[str] | None = None) -> StepProfile:
    return profile_step(
        work.model,
        work.batch,
        trainable=work.trained if trained is None else trained,
        dtype=work.precision.zero if zero else work.precision.dtype,
        autocast=None if zero else work.precision.autocast,
        checkpointing=checkpointing,
        loss=work.loss,
    )


def _size(work: Workload, zero: bool) -> ModelBytes:
    return ModelBytes.of(
        work.model,
        work.trained,
        optim=work.optim,
        dtype=work.precision.zero if zero else work.precision.dtype,
        four_bit=work.four_bit,
        float32_optimizer=zero,
    )


def training_costs(work: Workload, throughput: Throughput | None = None) -> dict[str, Any]:
    """Return memory and time of every setting, GPU and number of GPUs.

    Args:
        work: what is trained.
        throughput: measured speeds; default: the data sheets' peak at the stated utilisation.

    Returns:
        `dict`: "flops_per_sample", "saved_bytes", "settings" (one a setting, number of GPUs and checkpointing),
            "cheapest" (one a GPU and number of GPUs, and the best of all first; empty where nothing fits),
            "as_written" (the recipe's own setting, wherever it fits), "cpu" (the same here, where it fits, or None).

    Raises:
        EstimateError: the step cannot be followed on the meta device.
    """
    throughput = throughput or Throughput({})
    supported = bool(getattr(work.model, "supports_gradient_checkpointing", False))
    switches = (False, True) if supported else (False,)
    if work.brief:
        wanted = (work.as_written[0], work.as_written[1] and supported)
        found = _costs([one for one in SETTINGS if one.name == wanted[0]], (wanted[1],), work, throughput)
        if found["as_written"]:
            return found
    return _costs(SETTINGS, switches, work, throughput)


def _costs(
    wanted: Sequence[Setting], switches: Sequence[bool], work: Workload, throughput: Throughput
) -> dict[str, Any]:
    """Return the costs of some settings, with and without checkpointing."""
    kinds = sorted({setting.zero > 0 for setting in wanted})
    profiles = {(zero, switch): _profile(work, zero, switch) for zero in kinds for switch in switches}
    sizes = {zero: _size(work, zero) for zero in kinds}
    last = profiles[kinds[0], switches[0]]
    flops = _mean_flops(work, last, kinds[0], switches[0])
    settings, options, held_bytes, cpu = [], [], work.held_bytes, None
    for setting in wanted:
        for gpus in GPU_COUNTS:
            for switch in switches:
                zero = setting.zero > 0
                profile, size = profiles[zero, switch], sizes[zero]
                memory = combine(profile, size, setting, gpus, work.accumulation, held_bytes, work.once_peak)
                settings.append(memory_row(memory, work.gpus))
                # Earlier phases train less: their backward passes are shorter.
                share = flops / last.flops
                options += _options(work, memory, setting, size, profile, share, throughput, work.gpus)
                if work.cpu is not None and gpus == 1 and (memory.setting, switch) == ("plain", work.as_written[1]):
                    here = _options(work, memory, setting, size, profile, share, throughput, [work.cpu])
                    cpu = here[0] if here else None
    saved = {switch: profiles[kinds[0], switch].activation_bytes for switch in switches}
    return {
        "batch_size": work.batch_size,
        "flops_per_sample": flops / work.batch_size,
        "activation_bytes": {"plain": saved.get(False), "checkpointing": saved.get(True)},
        "mfu": throughput.mfu,
        "settings": settings,
        "cheapest": _cheapest(options),
        "as_written": [row for row in options if (row["setting"], row["checkpointing"]) == work.as_written],
        "cpu": cpu,
    }


def _mean_flops(work: Workload, last: StepProfile, zero: bool, checkpointing: bool) -> float:
    """Return floating-point operations of a batch, averaged over the phases by the samples that each sees."""
    total = sum(samples for _, samples in work.phases)
    if len(work.phases) == 1 or not total:
        return float(last.flops)
    each = [_profile(work, zero, checkpointing, trained).flops for trained, _ in work.phases[:-1]] + [last.flops]
    return sum(count * samples for count, (_, samples) in zip(each, work.phases, strict=True)) / total


def memory_row(memory: MemoryEstimate, gpus: Sequence[Gpu]) -> dict[str, Any]:
    """Return an estimate as a row of plain values; bytes by part, total, and which GPUs it fits."""
    return {**asdict(memory), "total": memory.total, "fits": {gpu.name: memory.fits(gpu) for gpu in gpus}}


def _options(
    work: Workload,
    memory: MemoryEstimate,
    setting: Setting,
    size: ModelBytes,
    profile: StepProfile,
    share: float,
    throughput: Throughput,
    gpus: Sequence[Gpu],
) -> list[dict[str, Any]]:
    """Return the GPUs that an estimate fits and that multiply in its precision, with time and relative price."""
    samples = sum(count for _, count in work.phases)
    half = work.precision.zero.itemsize < torch.float32.itemsize
    if memory.gpus == 1 and setting.zero and not setting.offload_optimizer:
        return []  # nothing to share it with
    rows = []
    for gpu in gpus:
        if not memory.fits(gpu) or (work.precision.zero == torch.bfloat16 and not gpu.bf16):
            continue
        batch_seconds = share * throughput.batch_seconds(profile, gpu, half)
        seconds = step_seconds(batch_seconds, size, setting, gpu, memory.gpus, work.accumulation)
        per_step = work.batch_size * memory.gpus * work.accumulation
        steps = work.max_steps or math.ceil(samples / per_step)
        once = throughput.arithmetic_seconds(work.once_flops, gpu, half) / memory.gpus
        hours = (steps * seconds + once) / 3600
        rows.append(
            {
                "gpu": gpu.name,
                "gpus": memory.gpus,
                "setting": memory.setting,
                "checkpointing": memory.checkpointing,
                "total": memory.total,
                "step_seconds": seconds,
                "samples_per_second": per_step / seconds,
                "steps": steps,
                "hours": hours,
                "price_per_sample": gpu.price * memory.gpus * seconds / per_step,
                "measured": half and gpu.name in throughput.measured_tflops,
            }
        )
    return rows


def _cheapest(options: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the cheapest option of each GPU and number of GPUs, ordered by price; ties go to fewer GPUs."""
    best: dict[tuple[str, int], dict[str, Any]] = {}
    for option in options:
        key = option["gpu"], option["gpus"]
        if key not in best or option["price_per_sample"] < best[key]["price_per_sample"]:
            best[key] = option
    return sorted(best.values(), key=lambda option: (round(option["price_per_sample"], 9), option["gpus"]))


ASSUMPTIONS = (
    f"a batch takes the longest of its FLOPs at {MFU:.0%} of the peak, its memory traffic, and 8 us an operation; "
    "communication does not overlap, and data loading keeps up",
    "price of a GPU-hour relative to an A40: " + ", ".join(f"{gpu.name} {gpu.price:g}" for gpu in GPUS),
    "memory adds 0.6 GB context, 0.4 GB NCCL with several GPUs and 3 % fragmentation",
)

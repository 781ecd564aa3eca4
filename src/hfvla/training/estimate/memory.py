"""Peak memory of a training step on each GPU: weights, gradients, optimizer, activations, buffers and overhead."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from hfvla.errors import HfvlaError, did_you_mean
from hfvla.training.estimate.devices import Gpu
from hfvla.training.estimate.profile import StepProfile, default_loss, profile_step
from hfvla.training.estimate.sizes import ModelBytes, find_precision

__all__ = ["SETTINGS", "MemoryEstimate", "Setting", "combine", "estimate_memory"]

_CONTEXT_BYTES = 600 << 20  # CUDA context, cuBLAS and cuDNN workspaces
_NCCL_BYTES = 400 << 20  # communication buffers, with more than one GPU
_FRAGMENTATION = 0.03  # of what the allocator serves: gaps it cannot use
_BUCKET = 50_000_000  # elements of a ZeRO communication bucket, as the engine sets them
_LIVE_PARAMETERS = 500_000_000  # elements that ZeRO-3 keeps gathered at most, as recipes/deepspeed/zero3.json says
_MASTER_BYTES = 4


@dataclass(frozen=True)
class Setting:
    """A way to spread a model over GPUs and the host.

    Attributes:
        name: as options and JSON say it.
        zero: ZeRO stage; 0 = one whole copy a GPU (DDP with several).
        offload_optimizer: optimizer state and float32 weights in the host's memory.
        offload_parameters: weights there too (ZeRO-3).
    """

    name: str
    zero: int
    offload_optimizer: bool = False
    offload_parameters: bool = False


SETTINGS = (
    Setting("plain", 0),
    Setting("zero1", 1),
    Setting("zero2", 2),
    Setting("zero3", 3),
    Setting("zero1+optimizer", 1, True),
    Setting("zero2+optimizer", 2, True),
    Setting("zero3+optimizer", 3, True),
    Setting("zero3+optimizer+parameters", 3, True, True),
)


@dataclass(frozen=True)
class MemoryEstimate:
    """Peak memory of one GPU, in bytes.

    Gradients appear while activations go, so the peak is not the sum of the two.

    Attributes:
        setting: how the model is spread.
        gpus: GPUs.
        checkpointing: with gradient checkpointing.
        weights: weights and buffers on this GPU.
        gradients: gradients kept on this GPU, DDP's buckets included.
        optimizer: optimizer state and float32 weights on this GPU.
        activations: the most that a step holds besides weights and gradients.
        buffers: communication buckets and weights gathered for the moment (ZeRO).
        peak: the most that is allocated at any moment, as `torch.cuda.max_memory_allocated` counts.
        overhead: CUDA context, workspaces, NCCL and fragmentation on top of it.
        host: bytes in the host's memory for this GPU.
    """

    setting: str
    gpus: int
    checkpointing: bool
    weights: int
    gradients: int
    optimizer: int
    activations: int
    buffers: int
    peak: int
    overhead: int
    host: int

    @property
    def total(self) -> int:
        """Bytes that the GPU must have."""
        return self.peak + self.overhead

    def fits(self, gpu: Gpu) -> bool:
        """Tell whether a GPU has the memory."""
        return self.total <= gpu.memory_bytes


def combine(
    profile: StepProfile,
    size: ModelBytes,
    setting: Setting,
    gpus: int = 1,
    accumulation: int = 1,
    held: int = 0,
    once: int = 0,
) -> MemoryEstimate:
    """Return the memory of one GPU from what a step and a model need.

    Args:
        profile: the step; under ZeRO of the model in ZeRO's dtype.
        size: the model, in the same dtype.
        setting: how it is spread.
        gpus: GPUs.
        accumulation: batches an optimizer step; with more than one, gradients stay while the next batch runs.
        held: bytes of gradients kept besides the ordinary ones, where loss terms are balanced by them.
        once: bytes alive besides the weights while a feature cache is filled, before the first step.
    """
    parts = _plain(size, gpus) if setting.zero == 0 else _zero(size, setting, gpus)
    weights, gradients, optimizer, buffers, step, host = parts
    grown = profile.backward_bytes  # gradients appear while the backward pass goes
    if setting.zero == 0 and gpus > 1:
        grown += size.gradients  # the buckets exist from the start
    if accumulation > 1 or setting.zero:
        grown = gradients + profile.activation_bytes
    gradients, grown = gradients + held, grown + held
    peak = weights + max(optimizer + buffers + max(grown, gradients + step), once)
    overhead = _CONTEXT_BYTES + (_NCCL_BYTES if gpus > 1 else 0) + int(_FRAGMENTATION * peak)
    return MemoryEstimate(
        setting=setting.name,
        gpus=gpus,
        checkpointing=profile.checkpointing,
        weights=weights,
        gradients=gradients,
        optimizer=optimizer,
        activations=profile.activation_bytes,
        buffers=buffers,
        peak=peak,
        overhead=overhead,
        host=host,
    )


def _plain(size: ModelBytes, gpus: int) -> tuple[int, int, int, int, int, int]:
    """Return weights, gradients, optimizer, buffers, bytes for the moment of the step, and bytes on the host."""
    buckets = size.gradients if gpus > 1 else 0  # DDP copies every gradient into its buckets
    return size.weights, size.gradients + buckets, size.optimizer.state, 0, size.optimizer.step, 0


def _zero(size: ModelBytes, setting: Setting, gpus: int) -> tuple[int, int, int, int, int, int]:
    """As `_plain`, with DeepSpeed's partitions; `size` is in the dtype that ZeRO computes in."""
    plain = size.weights - size.quantized - size.buffers
    width = size.gradients // size.trainable if size.trainable else 2
    master = _MASTER_BYTES * size.trainable + size.optimizer.state
    bucket = 2 * width * min(_BUCKET, size.trainable)  # two of them: one fills while the other travels
    weights, gradients, buffers = size.weights, size.gradients, bucket
    if setting.zero >= 2:
        gradients = 0 if setting.offload_optimizer else gradients // gpus
    if setting.zero == 3:
        kept = 0 if setting.offload_parameters else plain // gpus
        weights = kept + size.quantized + size.buffers
        buffers += width * min(_LIVE_PARAMETERS, size.parameters) if gpus > 1 or setting.offload_parameters else 0
    # The step works on float32 gradients of this GPU's share.
    step = _MASTER_BYTES * size.trainable // gpus
    if not setting.offload_optimizer:
        return weights, gradients, master // gpus, buffers, step, 0
    host = (master + _MASTER_BYTES * size.trainable) // gpus + (plain // gpus if setting.offload_parameters else 0)
    return weights, gradients, 0, buffers, 0, host


def estimate_memory(
    model: nn.Module,
    batch: Mapping[str, Any],
    *,
    trainable: Collection[str] | None = None,
    precision: str = "bf16-mixed",
    setting: str = "plain",
    gpus: int = 1,
    checkpointing: bool = False,
    optim: str = "adamw_torch_fused",
    accumulation: int = 1,
    loss: Callable[[Any], Tensor | None] = default_loss,
) -> MemoryEstimate:
    """Return the peak memory of a training step on each GPU, without a GPU.

    Args:
        model: on the meta device.
        batch: what one GPU gets at a time; integers with real values on the CPU, floats of any device.
        trainable: names of the parameters that train; default: those that require gradients.
        precision: a name of `PRECISIONS`.
        setting: a name of `SETTINGS`.
        gpus: GPUs.
        checkpointing: with gradient checkpointing.
        optim: name as in `TrainingArguments.optim`.
        accumulation: `gradient_accumulation_steps`.
        loss: picks the scalar to minimise from the output.

    Raises:
        EstimateError: the step cannot be followed; see `profile_step`.
        HfvlaError: unknown precision or setting.
    """
    chosen = {known.name: known for known in SETTINGS}
    if setting not in chosen:
        raise HfvlaError(f"no setting '{setting}'. {did_you_mean(setting, chosen)}")
    wanted = find_precision(precision)
    zero = chosen[setting].zero > 0
    dtype = wanted.zero if zero else wanted.dtype
    profile = profile_step(
        model,
        batch,
        trainable=trainable,
        dtype=dtype,
        autocast=None if zero else wanted.autocast,
        checkpointing=checkpointing,
        loss=loss,
    )
    size = ModelBytes.of(model, trainable, optim=optim, dtype=dtype, float32_optimizer=zero)
    return combine(profile, size, chosen[setting], gpus, accumulation)

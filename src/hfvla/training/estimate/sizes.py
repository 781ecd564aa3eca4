"""What a model weighs in the dtypes of a run: weights, gradients and optimizer state, in bytes."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from hfvla.errors import HfvlaError, did_you_mean
from hfvla.family import as_names
from hfvla.training.estimate.optimizers import OptimizerBytes, optimizer_bytes

__all__ = ["PRECISIONS", "ModelBytes", "Precision", "find_precision"]


@dataclass(frozen=True)
class Precision:
    """Dtypes of a run.

    Attributes:
        dtype: of all weights; None = as the model has them.
        autocast: of matrix products in the plain setting; None = as the weights.
        zero: of weights and gradients under ZeRO, which keeps float32 copies of what trains by itself.
    """

    dtype: torch.dtype | None
    autocast: torch.dtype | None
    zero: torch.dtype


PRECISIONS: Mapping[str, Precision] = {
    "float32": Precision(None, None, torch.float32),
    "bf16-mixed": Precision(None, torch.bfloat16, torch.bfloat16),
    "fp16-mixed": Precision(None, torch.float16, torch.float16),
    "bf16": Precision(torch.bfloat16, None, torch.bfloat16),
}
"""`bf16: true` of the Trainer is "bf16-mixed": weights stay as loaded, matrix products run in bf16."""


def find_precision(name: str) -> Precision:
    """Return a precision by name.

    Raises:
        HfvlaError: unknown; the message suggests the nearest.
    """
    if name not in PRECISIONS:
        raise HfvlaError(f"no precision '{name}'. {did_you_mean(name, PRECISIONS)}")
    return PRECISIONS[name]


@dataclass(frozen=True)
class ModelBytes:
    """What a model weighs.

    Attributes:
        parameters: scalars, those held in four bits apart.
        trainable: scalars that train.
        weights: bytes of parameters and buffers as they are, four-bit ones included.
        quantized: bytes of the four-bit ones.
        buffers: bytes of buffers.
        gradients: bytes of the gradients, in the dtype of their parameters.
        optimizer: what the optimizer needs.
    """

    parameters: int
    trainable: int
    weights: int
    quantized: int
    buffers: int
    gradients: int
    optimizer: OptimizerBytes

    @classmethod
    def of(
        cls,
        model: nn.Module,
        trainable: Collection[str] | None = None,
        *,
        optim: str = "adamw_torch_fused",
        dtype: torch.dtype | None = None,
        four_bit: Collection[str] = (),
        float32_optimizer: bool = False,
    ) -> ModelBytes:
        """Weigh a model.

        Args:
            model: may be on the meta device.
            trainable: names of the parameters that train; default: those that require gradients.
            optim: name as in `TrainingArguments.optim`.
            dtype: weigh floating-point weights in this dtype; default: as they are.
            four_bit: names of weights that are held in four bits (QLoRA).
            float32_optimizer: the optimizer works on float32 copies (ZeRO), whatever the dtype of the weights.
        """
        parameters = dict(model.named_parameters())
        names = (
            {n for n, p in parameters.items() if p.requires_grad} if trainable is None else set(as_names(trainable))
        )
        packed = sum(parameters[name].numel() for name in four_bit)
        # Half a byte each; one byte a block of 64 as its scale, and four bytes for 256 of those (double quantisation).
        quantized = packed // 2 + packed // 64 + 4 * packed // (64 * 256)
        whole = [p for name, p in parameters.items() if name not in set(four_bit)]
        trained = [_as_dtype(parameters[name], dtype) for name in parameters if name in names]
        buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
        return cls(
            parameters=sum(parameter.numel() for parameter in whole),
            trainable=sum(parameter.numel() for parameter in trained),
            weights=sum(_size(_as_dtype(parameter, dtype)) for parameter in whole) + buffers + quantized,
            quantized=quantized,
            buffers=buffers,
            gradients=sum(_size(parameter) for parameter in trained),
            optimizer=optimizer_bytes(
                optim, [_as_dtype(parameter, torch.float32) for parameter in trained] if float32_optimizer else trained
            ),
        )


def _as_dtype(tensor: Tensor, dtype: torch.dtype | None) -> Tensor:
    changes = dtype is not None and tensor.is_floating_point()
    return torch.empty(tensor.shape, dtype=dtype if changes else tensor.dtype, device="meta")


def _size(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()

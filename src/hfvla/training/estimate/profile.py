"""One training step followed on the meta device: bytes that live through it, and floating-point operations."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hfvla.family import as_names
from hfvla.training.estimate.kernels import GpuKernels
from hfvla.training.estimate.repeats import followed_once
from hfvla.training.estimate.tracker import EstimateError, StepTracker
from hfvla.training.stage.groups import freeze, fully_frozen_modules, stop_input_gradients
from hfvla.training.trainer.checkpointing import checkpoint_frozen_layers, evaluate_frozen

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["StepProfile", "default_loss", "estimate_flops", "profile_step"]


@dataclass(frozen=True)
class StepProfile:
    """What one forward and backward pass of one batch needs, weights and optimizer apart.

    Attributes:
        saved_bytes: alive after the forward pass: what the backward pass needs, the outputs and the batch.
        activation_bytes: the most that is alive at any moment, parameters' gradients apart.
        backward_bytes: the most that is alive at any moment, gradients included as they appear.
        forward_flops: floating-point operations of the forward pass (a multiply-add counts two).
        backward_flops: those of the backward pass, recomputation under gradient checkpointing included.
        kernels: operations of the step that a GPU would launch something for.
        traffic_bytes: bytes that they read and write, each by itself.
        checkpointing: with gradient checkpointing.
    """

    saved_bytes: int
    activation_bytes: int
    backward_bytes: int
    forward_flops: int
    backward_flops: int
    kernels: int
    traffic_bytes: int
    checkpointing: bool = False

    @property
    def flops(self) -> int:
        """Floating-point operations of the step."""
        return self.forward_flops + self.backward_flops


def default_loss(output: Any) -> Tensor | None:
    """Return what a plain loop minimises: the output's loss, else the sum of its loss terms."""
    terms = output.get("loss_terms")
    if output.get("loss") is not None:
        return output["loss"]
    return torch.stack(list(terms.values())).sum() if terms else None


def profile_step(
    model: nn.Module,
    batch: Mapping[str, Any],
    *,
    trainable: Collection[str] | None = None,
    dtype: torch.dtype | None = None,
    autocast: torch.dtype | None = None,
    checkpointing: bool = False,
    loss: Callable[[Any], Tensor | None] = default_loss,
) -> StepProfile:
    """Follow one forward and backward pass of a model on the meta device.

    The model is left as it was. Attention runs as on a GPU from Ampere on (flash where it can, else memory-efficient).

    Args:
        model: on the meta device.
        batch: arguments of `forward`; token ids and masks with real values on the CPU, pixels may be on the meta
            device.
        trainable: names of the parameters that train; default: those that require gradients now.
        dtype: run with all weights in this dtype (as DeepSpeed does); default: as they are.
        autocast: dtype of matrix products, as `bf16: true` of the Trainer; None = without.
        checkpointing: recompute each layer in the backward pass.
        loss: picks the scalar to minimise from the output.

    Raises:
        EstimateError: the forward pass needs computed values, gives no loss, or nothing trains.
    """
    if any(parameter.device.type != "meta" for parameter in model.parameters()):
        raise EstimateError("the model is not on the meta device", fix="Build it under torch.device('meta').")
    with _prepared(model, trainable, dtype, autocast, checkpointing):
        inputs = {name: _input(value, dtype) for name, value in batch.items()}
        return _follow(model, inputs, autocast, checkpointing, loss)


def _input(value: Any, dtype: torch.dtype | None) -> Any:
    """Return a batch's value: integers as they are, floats on the meta device in the weights' dtype."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return value
    return torch.empty(value.shape, dtype=dtype or value.dtype, device="meta")


def _follow(
    model: nn.Module,
    inputs: dict[str, Any],
    autocast: torch.dtype | None,
    checkpointing: bool,
    loss: Callable[[Any], Tensor | None],
) -> StepProfile:
    tracker, kernels = StepTracker(), GpuKernels(autocast)
    for tensor in (*model.parameters(), *model.buffers()):
        tracker.exclude(tensor)
    for value in inputs.values():
        if isinstance(value, Tensor):
            tracker.include(value)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    handles = [parameter.register_post_accumulate_grad_hook(tracker.mark_gradient) for parameter in trained]
    try:
        with followed_once(model, tracker), kernels, tracker:
            output = _forward(model, inputs)
            scalar = loss(output)
            if scalar is None or not scalar.requires_grad:
                raise EstimateError(
                    "the forward pass gives no loss that trains anything",
                    got=sorted(key for key in output) if hasattr(output, "keys") else type(output).__name__,
                    fix="Check the batch (labels) and what trains.",
                )
            kernels.end_forward()
            del output
            saved, forward_flops = tracker.live_bytes, tracker.flops
            scalar.backward()
    finally:
        for handle in handles:
            handle.remove()
        for parameter in trained:
            parameter.grad = None
    return StepProfile(
        saved_bytes=saved,
        activation_bytes=tracker.peak_without_gradients,
        backward_bytes=tracker.peak_bytes,
        forward_flops=forward_flops,
        backward_flops=tracker.flops - forward_flops,
        kernels=tracker.kernels,
        traffic_bytes=tracker.traffic_bytes,
        checkpointing=checkpointing,
    )


def _forward(model: nn.Module, inputs: dict[str, Any]) -> Any:
    try:
        return model(**inputs)
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        raise EstimateError(
            f"the forward pass of {type(model).__name__} fails on the meta device",
            got=f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}",
            fix="Check the batch; or measure on the device: hfvla train --dry-run.",
        ) from error


@contextlib.contextmanager
def _prepared(
    model: nn.Module,
    trainable: Collection[str] | None,
    dtype: torch.dtype | None,
    autocast: torch.dtype | None,
    checkpointing: bool,
) -> Iterator[None]:
    """Freeze, cast and set up checkpointing as asked; put everything back afterwards."""
    required = {name: parameter.requires_grad for name, parameter in model.named_parameters()}
    dtypes = {name: parameter.dtype for name, parameter in model.named_parameters()}
    training = [module for module in model.modules() if module.training]
    cached = [config for config in _configs(model) if getattr(config, "use_cache", None)]
    try:
        if trainable is not None:
            freeze(model, dict.fromkeys(as_names(trainable), ""))
        model.train()
        for module in fully_frozen_modules(model):
            module.eval()
        if dtype is not None:
            _cast(model, dict.fromkeys(dtypes, dtype))
        if checkpointing:
            # A function mode is off inside the backward pass, where layers are recomputed.
            for config in cached:  # as the models do themselves, with a warning
                config.use_cache = False
            recompute = {"context_fn": lambda: (contextlib.nullcontext(), GpuKernels(autocast, share_casts=False))}
            _switch_checkpointing(model, "enable", {"use_reentrant": False, **recompute})
            stop_input_gradients(model)
            checkpoint_frozen_layers(model)
            evaluate_frozen(fully_frozen_modules(model))
        yield
    finally:
        if checkpointing:
            _switch_checkpointing(model, "disable")
        for config in cached:
            config.use_cache = True
        _cast(model, dtypes)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(required[name])
        model.eval()
        for module in training:
            module.training = True


def _configs(model: PreTrainedModel) -> list[Any]:
    """Return the config of a model and those inside it."""
    config = getattr(model, "config", None)
    inner = [getattr(config, name, None) for name in getattr(config, "sub_configs", None) or ()]
    return [found for found in (config, *inner) if found is not None]


def _cast(model: nn.Module, dtypes: Mapping[str, torch.dtype]) -> None:
    for name, parameter in model.named_parameters():
        if parameter.dtype != dtypes[name] and parameter.is_floating_point():
            parameter.data = parameter.data.to(dtypes[name])


def _switch_checkpointing(model: nn.Module, action: str, *options: dict[str, Any]) -> None:
    """Call what transformers calls it: gradient checkpointing until 5.22, activation checkpointing since."""
    if getattr(model, "supports_gradient_checkpointing", False):
        for kind in ("activation", "gradient"):
            method = getattr(model, f"{kind}_checkpointing_{action}", None)
            if method is not None:
                return method(*options)
    raise EstimateError(f"{type(model).__name__} does not support gradient checkpointing")


def estimate_flops(
    model: nn.Module,
    batch: Mapping[str, Any],
    *,
    trainable: Collection[str] | None = None,
    checkpointing: bool = False,
    loss: Callable[[Any], Tensor | None] = default_loss,
) -> int:
    """Return floating-point operations of one training step: matrix products, convolutions and attention.

    A multiply-add counts two; causal attention counts as full. With frozen parts the backward pass is cheaper than
    twice the forward pass, and with gradient checkpointing it holds another forward pass: both are counted so.

    Args:
        model: on the meta device.
        batch: arguments of `forward`; see `profile_step`.
        trainable: names of the parameters that train; default: those that require gradients.
        checkpointing: with gradient checkpointing.
        loss: picks the scalar to minimise from the output.

    Raises:
        EstimateError: see `profile_step`.
    """
    return profile_step(model, batch, trainable=trainable, checkpointing=checkpointing, loss=loss).flops

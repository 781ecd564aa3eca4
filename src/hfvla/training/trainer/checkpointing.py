"""Gradient checkpointing of frozen layers that gradients pass through.

transformers recomputes a layer in the backward pass only in training mode. A frozen part is kept in evaluation mode:
dropout is off, and running statistics stay. So the layers of a frozen language model behind a projector that trains
would keep all that they compute. Here such a layer counts as training when it is called and as evaluating while it
computes, now and when it is recomputed. Frozen layers that no gradient reaches keep nothing, and are not recomputed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

__all__ = ["checkpoint_frozen_layers", "evaluate_frozen"]

_FUNCTION = "_gradient_checkpointing_func"


def checkpoint_frozen_layers(model: nn.Module) -> None:
    """Let layers that checkpoint know frozen ones; call it after checkpointing was switched on.

    Args:
        model: changed in place.
    """
    for layer in _checkpointed(model):
        function = getattr(layer, _FUNCTION)
        if not isinstance(function, _Recompute):
            setattr(layer, _FUNCTION, _Recompute(function))


def evaluate_frozen(modules: Iterable[nn.Module]) -> None:
    """Put frozen modules into evaluation mode; layers in them that checkpoint only while they compute.

    Args:
        modules: without a parameter that trains (`fully_frozen_modules`), of a model in training mode.
    """
    for module in modules:
        module.eval()
        for layer in _checkpointed(module):
            if isinstance(getattr(layer, _FUNCTION), _Recompute):
                layer.training = True  # of itself only: what is in it evaluates


def _checkpointed(module: nn.Module) -> Iterator[nn.Module]:
    for layer in module.modules():
        if isinstance(layer, GradientCheckpointingLayer) and layer.gradient_checkpointing:
            yield layer


class _Recompute:
    """Calls a layer through a checkpointing function; a frozen one in evaluation mode, and only if gradients pass.

    Args:
        checkpoint: `torch.utils.checkpoint.checkpoint` with its options.
    """

    def __init__(self, checkpoint: Callable[..., Any]) -> None:
        self.checkpoint = checkpoint

    def __call__(self, function: Any, *arguments: Any) -> Any:
        """Run `function`, a partial of the layer's `forward` or of its bound `__call__`, as transformers gives it."""
        layer = function.args[0] if function.args else function.func.__self__  # the second until transformers 5.22
        given = function.keywords
        if any(parameter.requires_grad for parameter in layer.parameters()):
            return self.checkpoint(function, *arguments)
        function = partial(_evaluating, layer, function)
        passes = any(map(_requires_gradient, (*arguments, *given.values())))
        return self.checkpoint(function, *arguments) if passes else function(*arguments)


def _evaluating(layer: nn.Module, function: Callable[..., Any], *arguments: Any) -> Any:
    before, layer.training = layer.training, False
    try:
        return function(*arguments)
    finally:
        layer.training = before


def _requires_gradient(value: Any) -> bool:
    if isinstance(value, tuple | list):
        return any(_requires_gradient(item) for item in value)
    return isinstance(value, Tensor) and value.requires_grad

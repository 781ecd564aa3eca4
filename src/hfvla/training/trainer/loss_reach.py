"""What the loss of a micro-batch goes backward through, where other processes wait for its gradients.

DDP looks at a model's output to learn which parameters will get a gradient, and waits for each of them. It waits for
good where the loss leaves out a part of the output (logits that no term of this batch uses), and where a batch has no
term at all.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["keep_in_step", "output_terms", "zero_loss"]

_REACH = "__reach__"
"""Name beside the loss terms of a [] zero that reaches every trained parameter, where the loss must: a model's output
class has no place for more."""


def output_terms(output: Any) -> tuple[dict[str, Tensor], Tensor | None]:
    """Return the loss terms of a model's output, and the zero that `keep_in_step` put beside them, if it did.

    The terms are its `loss_terms`, or its own `loss` as the term "loss".
    """
    terms = dict(output.get("loss_terms") or {})
    reach = terms.pop(_REACH, None)
    if not terms and output.get("loss") is not None:
        terms = {"loss": output["loss"]}
    return terms, reach


class _Zero(torch.autograd.Function):
    """0 whose gradient with respect to each parameter is 0, whatever is in the parameter."""

    @staticmethod
    def forward(ctx: Any, *parameters: Tensor) -> Tensor:
        ctx.like = [(parameter.shape, parameter.dtype) for parameter in parameters]
        return torch.zeros((), device=parameters[0].device)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, ...]:
        return tuple(gradient.new_zeros((), dtype=dtype).expand(shape) for shape, dtype in ctx.like)


def zero_loss(parameters: Sequence[nn.Parameter]) -> Tensor:
    """Return a [] zero that goes backward through all parameters."""
    return _Zero.apply(*parameters)


@contextmanager
def keep_in_step(
    model: nn.Module, wanted: Callable[[], Sequence[str]], every_missing: Callable[[], bool]
) -> Iterator[None]:
    """While training on several processes, let a model's output reach what the loss reaches, and nothing else.

    Args:
        model: not wrapped; what wraps it sees the changed output.
        wanted: tells the names of the terms that the loss is made of now.
        every_missing: tells whether to reach every trained parameter as soon as one of them is missing, since whatever
            waits for gradients cannot find out by itself which there will be; else only where all are.
    """

    def change(module: nn.Module, arguments: Any, output: Any) -> Any:
        if not (module.training and torch.is_grad_enabled() and isinstance(output, Mapping)):
            return output
        (terms, _), names = output_terms(output), wanted()
        kept = {name: term if name in names else term.detach() for name, term in terms.items()}
        found = sum(name in terms for name in names)
        if not found or (every_missing() and found < len(names)):
            kept[_REACH] = zero_loss([parameter for parameter in module.parameters() if parameter.requires_grad])
        own = "loss" if not output.get("loss_terms") and "loss" in kept else "loss_terms"
        for key, value in list(output.items()):
            output[key] = _detached(value)  # type: ignore[index]
        output[own] = kept["loss"] if own == "loss" else kept  # type: ignore[index]
        return output

    handle = model.register_forward_hook(change)
    try:
        yield
    finally:
        handle.remove()


def _detached(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, Mapping):
        return {key: _detached(item) for key, item in value.items()}
    if isinstance(value, tuple | list) and not hasattr(value, "_fields"):
        return type(value)(_detached(item) for item in value)
    return value

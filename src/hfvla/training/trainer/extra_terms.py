"""Loss terms of plug-ins: computed from a model's batch and output, and put beside its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, MutableMapping
from typing import Any

from torch import Tensor, nn

from hfvla.errors import RecipeError
from hfvla.family import resolve

__all__ = ["add_terms"]


def add_terms(model: nn.Module, functions: Mapping[str, Any], where: str) -> None:
    """Let a model's output have further loss terms whenever it has its own (or is training).

    Args:
        model: not wrapped.
        functions: `compute(model, batch, outputs) -> Tensor | None` by name of the term, or "module:function" of it.
        where: named in errors, e.g. "stage 'align'".
    """
    found: dict[str, Callable[..., Tensor | None]] = {
        name: resolve(function) if isinstance(function, str) else function for name, function in functions.items()
    }
    if not found:
        return

    def change(module: nn.Module, arguments: Any, batch: dict[str, Any], output: Any) -> Any:
        if not isinstance(output, MutableMapping) or not (module.training or output.get("loss_terms")):
            return output
        terms = dict(output.get("loss_terms") or {})
        for name, compute in found.items():
            term = compute(module, batch, output)
            if term is not None and (not isinstance(term, Tensor) or term.ndim):
                got = tuple(term.shape) if isinstance(term, Tensor) else type(term).__name__
                raise RecipeError(f"{where}: the loss term '{name}' is no scalar", got=got, expected="a tensor []")
            if term is not None:
                terms[name] = term
        output["loss_terms"] = terms
        return output

    model.register_forward_hook(change, with_kwargs=True)

"""Layers that repeat are followed once: a tower of 32 frozen blocks costs the plan as much as one of each kind.

Only layers through which no gradient passes are taken together: those leave nothing behind but their output, so what
one of them adds to the counters, and the peak on its way, is what an equal one adds.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from hfvla.training.estimate.tracker import Layout, StepTracker, from_layout, layout_of, rounded, tensors_in

__all__ = ["followed_once"]

_PLAIN = (bool, int, float, str, type(None))
_NUMBERS = ("layer_idx", "layer_index", "layer_id", "block_idx", "idx", "index")
"""Attributes that say where a layer stands, not what it does."""


class _Cost(NamedTuple):
    """What one call adds: operations, the peak over what was there before, and its output's layout."""

    flops: int
    kernels: int
    traffic_bytes: int
    peak_bytes: int
    peak_without_gradients: int
    output: Any


@contextmanager
def followed_once(model: nn.Module, tracker: StepTracker) -> Iterator[None]:
    """Follow, in here, only the first of equal calls of the layers in a model's lists of layers.

    Args:
        model: on the meta device.
        tracker: what follows it, and is entered inside.
    """
    known: dict[Any, _Cost | None] = {}
    kinds: dict[Any, int] = {}
    wrapped: list[nn.Module] = []
    try:
        for layer in _listed(model):
            if "forward" not in vars(layer):
                layer.forward = _Once(layer, tracker, known, kinds)
                wrapped.append(layer)
        yield
    finally:
        for layer in wrapped:
            del layer.forward


def _listed(module: nn.Module) -> Iterator[nn.Module]:
    """Yield the outermost layers that stand in a list with others of their class."""
    for child in module.children():
        kinds = [type(layer) for layer in child] if isinstance(child, nn.ModuleList) else []
        for layer in child if kinds else ():
            if kinds.count(type(layer)) > 1:
                yield layer
            else:
                yield from _listed(layer)
        if not kinds:
            yield from _listed(child)


class _Once:
    """Stands for a layer's `forward`.

    Args:
        layer: the layer.
        tracker: follows it.
        known: cost of calls by what they depend on; None where a call leaves more than its output.
        kinds: number of each kind of layer by its makeup.
    """

    def __init__(
        self, layer: nn.Module, tracker: StepTracker, known: dict[Any, _Cost | None], kinds: dict[Any, int]
    ) -> None:
        self.layer, self.tracker, self.known = layer, tracker, known
        self.forward: Callable[..., Any] = layer.forward
        self._frozen = not any(parameter.requires_grad for parameter in layer.parameters())
        self._makeup = kinds.setdefault(_makeup(layer), len(kinds))

    def __call__(self, *arguments: Any, **given: Any) -> Any:
        """Run the layer, or add what an equal call added."""
        inputs = [*arguments, *given.values()]
        passes = torch.is_grad_enabled() and not (
            self._frozen and not any(t.requires_grad for t in tensors_in(inputs))
        )
        said = None if passes else _said([*arguments, *sorted(given.items())])
        if said is None:
            return self.forward(*arguments, **given)
        key = (self._makeup, self.layer.training, torch.is_grad_enabled(), said)
        cost = self.known.get(key)
        if cost is not None:
            return self._add(cost)
        if key in self.known:
            return self.forward(*arguments, **given)
        out, self.known[key] = self._follow(arguments, given, inputs)
        return out

    def _follow(self, arguments: Any, given: Any, inputs: list[Any]) -> tuple[Any, _Cost | None]:
        """Run the layer; return its output, and its cost where that is all that the call leaves."""
        tracker = self.tracker
        before = (tracker.flops, tracker.kernels, tracker.traffic_bytes)
        live, gradients = tracker.live_bytes, tracker.gradient_bytes
        peaks = tracker.peak_bytes, tracker.peak_without_gradients
        tracker.peak_bytes, tracker.peak_without_gradients = live, live - gradients
        out = self.forward(*arguments, **given)
        peak, peak_without = tracker.peak_bytes - live, tracker.peak_without_gradients - live + gradients
        tracker.peak_bytes = max(peaks[0], tracker.peak_bytes)
        tracker.peak_without_gradients = max(peaks[1], tracker.peak_without_gradients)
        if not _is_plain(out, inputs) or tracker.live_bytes - live != sum(rounded(t) for t in tensors_in([out])):
            return out, None
        counts = (tracker.flops - before[0], tracker.kernels - before[1], tracker.traffic_bytes - before[2])
        return out, _Cost(*counts, peak, peak_without, layout_of(out))

    def _add(self, cost: _Cost) -> Any:
        tracker = self.tracker
        tracker.flops += cost.flops
        tracker.kernels += cost.kernels
        tracker.traffic_bytes += cost.traffic_bytes
        tracker.peak_bytes = max(tracker.peak_bytes, tracker.live_bytes + cost.peak_bytes)
        without = tracker.live_bytes - tracker.gradient_bytes + cost.peak_without_gradients
        tracker.peak_without_gradients = max(tracker.peak_without_gradients, without)
        return from_layout(cost.output)  # made inside the tracker, which remembers it


def _is_plain(out: Any, inputs: list[Any]) -> bool:
    """Tell whether an output is made of new tensors without a gradient, each with memory of its own and no more."""
    whole = out if isinstance(out, tuple) else (out,)
    tensors = [value for value in whole if value is not None]
    if not tensors or not all(isinstance(value, Tensor) for value in tensors):
        return False
    storages = [value.untyped_storage()._cdata for value in tensors]
    taken = {value.untyped_storage()._cdata for value in tensors_in(inputs)}
    return (
        len({*storages}) == len(storages)
        and not taken & {*storages}
        and not any(value.requires_grad for value in tensors)
        and all(value.device.type == "meta" and value.is_contiguous() for value in tensors)
        and all(value.is_floating_point() for value in tensors)  # integers would have numbers
        and all(value.untyped_storage().nbytes() == value.numel() * value.element_size() for value in tensors)
    )


def _makeup(layer: nn.Module) -> Any:
    """Return what a layer is made of: classes, sizes and plain settings of everything in it."""
    parts: list[Any] = []
    for name, module in layer.named_modules():
        settings = {key: value for key, value in vars(module).items() if key not in _NUMBERS and key != "training"}
        plain = [(key, value) for key, value in settings.items() if _is_setting(value)]
        parts.append((name, type(module), tuple(sorted(plain, key=lambda item: item[0]))))
    held = [(name, tensor.shape, tensor.dtype) for name, tensor in (*layer.named_parameters(), *layer.named_buffers())]
    return tuple(parts), tuple(held)


def _is_setting(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(isinstance(one, _PLAIN) for one in value))


def _said(values: list[Any]) -> Any:
    """Return what a call depends on: shapes of what has no numbers, the numbers of what has; None: nobody knows."""
    parts: list[Any] = []
    for value in values:
        if isinstance(value, Tensor):
            shape = (Layout(value.shape, value.stride(), value.dtype), value.requires_grad)
            numbers = None if value.device.type == "meta" else _digest(value)
            if value.device.type != "meta" and numbers is None:
                return None
            parts.append((shape, numbers))
        elif isinstance(value, list | tuple):
            inner = _said(list(value))
            if inner is None:
                return None
            parts.append(inner)
        elif isinstance(value, _PLAIN):
            parts.append((type(value), value))
        else:
            return None
    return tuple(parts)


def _digest(tensor: Tensor) -> bytes | None:
    try:
        content = tensor.detach().contiguous().numpy().tobytes()
    except (TypeError, RuntimeError):  # a type that NumPy has not
        return None
    return hashlib.blake2b(content, digest_size=16).digest()

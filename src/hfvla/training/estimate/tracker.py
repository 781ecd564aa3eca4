"""Runs a training step without its numbers: floating-point tensors have shapes only, integers keep their values.

A batch's token ids and masks stay real, because models branch on them; all that is computed from weights lives on the
meta device and costs nothing. What would lie in memory is followed storage by storage, and matrix work is counted.
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from hfvla.errors import HfvlaError

__all__ = ["EstimateError", "Layout", "StepTracker", "from_layout", "layout_of", "rounded", "tensors_in"]

_ALIGNMENT = 512  # the CUDA allocator hands out multiples of it
_META = torch.device("meta")
_ATEN = torch.ops.aten
_CONVERSIONS = {_ATEN._to_copy, _ATEN.to, _ATEN.clone, _ATEN.lift_fresh}
_INDEXED = {_ATEN.index, _ATEN.index_put, _ATEN.index_put_, _ATEN._unsafe_index, _ATEN._index_put_impl_}
_LIKE = {_ATEN.zeros_like, _ATEN.ones_like, _ATEN.full_like, _ATEN.new_zeros, _ATEN.new_ones, _ATEN.new_full}
_INTEGER_DEFAULT = {_ATEN.arange, _ATEN.full}
_READS_VALUES = {_ATEN._local_scalar_dense, _ATEN.nonzero, _ATEN.equal, _ATEN.is_nonzero, _ATEN._unique2}


class EstimateError(HfvlaError):
    """The step cannot be followed without running it."""


def tensors_in(values: Any) -> Iterator[Tensor]:
    """Yield the tensors in values and in the lists and tuples among them."""
    for value in values:
        if isinstance(value, Tensor):
            yield value
        elif isinstance(value, list | tuple):
            yield from tensors_in(value)


def _replace(value: Any, change: Callable[[Tensor], Any]) -> Any:
    if isinstance(value, Tensor):
        return change(value)
    if isinstance(value, list | tuple):
        return type(value)(_replace(part, change) for part in value)
    return value


def _is_integer(dtype: torch.dtype | None) -> bool:
    return dtype is not None and not dtype.is_floating_point and not dtype.is_complex


class StepTracker(TorchDispatchMode):
    """Follows live bytes and floating-point operations of everything that runs inside it.

    Attributes:
        live_bytes: bytes of the storages that exist now, without those given to `exclude`.
        peak_bytes: the most that `live_bytes` has been.
        gradient_bytes: the part of `live_bytes` that `mark_gradient` named.
        peak_without_gradients: the most that `live_bytes - gradient_bytes` has been.
        flops: floating-point operations of matrix products, convolutions and attention so far.
        kernels: operations so far that a GPU would launch something for.
        traffic_bytes: bytes that they read and write.
    """

    # Layout of the result, FLOPs and bytes moved, by operation and layout of its inputs: torch's own ways are slow.
    _results: ClassVar[dict[Any, tuple[Any, int, int]]] = {}

    def __init__(self) -> None:
        super().__init__()
        self.live_bytes = self.peak_bytes = self.gradient_bytes = self.peak_without_gradients = 0
        self.flops = self.kernels = self.traffic_bytes = 0
        self._known: dict[int, tuple[int, Any]] = {}
        self._gradients: set[int] = set()

    def include(self, tensor: Tensor) -> None:
        """Count a tensor's storage: a batch, which lies in memory before the step."""
        self._remember(tensor)

    def exclude(self, tensor: Tensor) -> None:
        """Do not count a tensor's storage: a weight, counted elsewhere."""
        self._remember(tensor, counted=False)

    def mark_gradient(self, parameter: Tensor) -> None:
        """Count the storage of `parameter.grad` as a gradient from now on."""
        if parameter.grad is None:
            return
        self._remember(parameter.grad)
        key = parameter.grad.untyped_storage()._cdata
        if key not in self._gradients:
            self._gradients.add(key)
            self.gradient_bytes += self._known[key][0]

    def _remember(self, tensor: Tensor, counted: bool = True) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._known:
            return
        size = rounded(tensor) if counted else 0
        self._known[key] = size, weakref.ref(storage, lambda _: self._forget(key))
        self.live_bytes += size
        self.peak_bytes = max(self.peak_bytes, self.live_bytes)
        self.peak_without_gradients = max(self.peak_without_gradients, self.live_bytes - self.gradient_bytes)

    def _forget(self, key: int) -> None:
        size = self._known.pop(key)[0]
        self.live_bytes -= size
        if key in self._gradients:
            self._gradients.discard(key)
            self.gradient_bytes -= size

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Run one operation on shapes, or for real where every input is; then count it."""
        kwargs = kwargs or {}
        out = self._run(func, args, kwargs)
        for tensor in tensors_in(out if isinstance(out, list | tuple) else (out,)):
            self._remember(tensor)
        return out

    def _run(self, func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        packet = func._overloadpacket
        devices = {tensor.device.type for tensor in tensors_in((*args, *kwargs.values()))}
        if kwargs.get("device") == _META and self._stays_real(packet, devices, args, kwargs):
            kwargs = {**kwargs, "device": torch.device("cpu")}
        elif packet in _LIKE and _is_integer(kwargs.get("dtype")):
            size = args[0].shape if packet in (_ATEN.zeros_like, _ATEN.ones_like, _ATEN.full_like) else args[1]
            fill = args[-1] if packet in (_ATEN.full_like, _ATEN.new_full) else int("ones" in str(packet))
            return torch.full(tuple(size), fill, dtype=kwargs["dtype"])
        if "meta" not in devices:
            return func(*args, **kwargs)
        if packet in _READS_VALUES:
            raise EstimateError(
                "the forward pass depends on a computed value, which does not exist without running it",
                got=str(packet),
                fix="Measure on the device: hfvla train --dry-run.",
            )
        return self._on_shapes(func, args, kwargs, mixed=len(devices) > 1)

    @staticmethod
    def _stays_real(packet: Any, devices: set[str], args: Any, kwargs: dict[str, Any]) -> bool:
        """Tell whether a tensor asked for on the meta device can have values: integers, and copies of real tensors."""
        if devices:
            return packet in _CONVERSIONS and devices == {"cpu"}
        if kwargs.get("dtype") is not None:
            return _is_integer(kwargs["dtype"])
        return packet in _INTEGER_DEFAULT and not any(isinstance(arg, float) for arg in args)

    def _on_shapes(self, func: Any, args: Any, kwargs: dict[str, Any], mixed: bool) -> Any:
        packet = func._overloadpacket
        if packet in _INDEXED:  # a mask becomes the indices it selects: their number is known
            indices: list[Any] = []
            for index in args[1]:
                masked = index is not None and index.dtype == torch.bool and index.device.type == "cpu"
                indices += index.nonzero(as_tuple=True) if masked else [index]
            args = (args[0], indices, *args[2:])
        if packet is _ATEN.masked_select and args[1].device.type == "cpu":
            shape = torch.broadcast_shapes(args[0].shape, args[1].shape)
            return args[0].new_empty(int(args[1].expand(shape).sum()))
        target = args[0] if args and isinstance(args[0], Tensor) and args[0].device.type == "cpu" else None
        if mixed:
            args = _replace(tuple(args), self._as_shape)
            kwargs = {key: _replace(part, self._as_shape) for key, part in kwargs.items()}
        if not _is_fresh(func):
            out = func(*args, **kwargs)
            in_place = func._schema.name.endswith("_") and not func._schema.name.endswith("__")
            if in_place:
                self._launch(_traffic(args))
            return target if in_place and target is not None else out
        key = (func, *_signature(args), *_signature(kwargs.items()))
        if key not in self._results:
            out, count = func(*args, **kwargs), flop_registry.get(packet)
            flops = count(*args, **kwargs, out_val=out) if count else 0
            self._results[key] = layout_of(out), flops, _traffic((*args, out))
        layout, flops, traffic = self._results[key]
        self.flops += flops
        self._launch(traffic)
        return from_layout(layout)

    def _launch(self, traffic_bytes: int) -> None:
        self.kernels += 1
        self.traffic_bytes += traffic_bytes

    @staticmethod
    def _as_shape(tensor: Tensor) -> Tensor:
        if tensor.device.type == "meta" or tensor.dim() == 0:
            return tensor
        return torch.empty_strided(tensor.size(), tensor.stride(), dtype=tensor.dtype, device=_META)


@functools.cache
def _is_fresh(func: Any) -> bool:
    """Tell whether an operation returns new tensors only: no view, nothing in place."""
    schema = func._schema
    return all(part.alias_info is None for part in (*schema.arguments, *schema.returns))


def _signature(values: Iterable[Any]) -> Iterator[Any]:
    """Yield what the layout of an operation's result can depend on."""
    for value in values:
        if isinstance(value, Tensor):
            yield value.shape, value.stride(), value.dtype, value.device.type
        elif isinstance(value, list | tuple):
            yield tuple(_signature(value))
        else:
            yield type(value), value


def _traffic(values: Any) -> int:
    """Return bytes of the elements of all tensors among the values."""
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors_in(values))


class Layout(NamedTuple):
    """What a tensor without numbers is."""

    size: torch.Size
    stride: tuple[int, ...]
    dtype: torch.dtype


def rounded(tensor: Tensor) -> int:
    """Return the bytes that a tensor's storage takes of the allocator."""
    return -(-tensor.untyped_storage().nbytes() // _ALIGNMENT) * _ALIGNMENT


def layout_of(value: Any) -> Any:
    """Return the layouts of the tensors in an operation's result."""
    if isinstance(value, Tensor):
        return Layout(value.shape, value.stride(), value.dtype)
    return [layout_of(part) for part in value] if isinstance(value, list | tuple) else value


def from_layout(layout: Any) -> Any:
    """Return a result of these layouts on the meta device."""
    if isinstance(layout, Layout):
        return torch.empty_strided(layout.size, layout.stride, dtype=layout.dtype, device=_META)
    return tuple(from_layout(part) for part in layout) if isinstance(layout, list) else layout

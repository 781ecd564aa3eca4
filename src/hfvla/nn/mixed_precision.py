"""Models whose parts are of different types: what trains is float32, what is frozen may be bfloat16.

Under autocast such a model runs as it is: products cast their inputs. Elsewhere (evaluation, prediction, training
without `bf16: true`) a layer would meet an input of another type and fail; hooks make each layer compute in its own
type and answer in its caller's, as peft's adapters do.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["accept_mixed_types", "cast_together", "float32_parts", "is_mixed", "lowest_type"]

_HALF = (torch.bfloat16, torch.float16)
_CALLER = "_hfvla_caller_type"


def _own_floats(module: nn.Module) -> list[nn.Parameter]:
    """Return the floating-point parameters that a layer multiplies by itself; those inside attention are its own."""
    found = list(module.parameters(recurse=isinstance(module, nn.MultiheadAttention)))
    return [parameter for parameter in found if parameter.is_floating_point()]


def is_mixed(model: nn.Module) -> bool:
    """Tell whether a model's floating-point parameters are of several types."""
    return len({parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()}) > 1


def lowest_type(model: nn.Module) -> torch.dtype:
    """Return the type of the fewest bits among a model's floating-point parameters (the first such, if several)."""
    types = [parameter.dtype for parameter in model.parameters() if parameter.is_floating_point()]
    return min(types, key=lambda dtype: dtype.itemsize, default=torch.float32)


def cast_together(model: nn.Module, names: Collection[str], dtype: torch.dtype = torch.float32) -> list[str]:
    """Give parameters a type, and with them whatever the same layers multiply by, so that no layer is mixed in itself.

    Args:
        model: changed in place; may be on the meta device. Layers of other types than floats (four bits) stay.
        names: of the parameters.
        dtype: the type.

    Returns:
        `list[str]`: names of the parameters that changed their type.
    """
    wanted = set(names)
    own = {id(parameter) for name, parameter in model.named_parameters() if name in wanted}
    chosen: set[int] = set()
    for module in model.modules():
        members = _own_floats(module)
        if any(id(parameter) in own for parameter in members):
            chosen |= {id(parameter) for parameter in members}
            for buffer in module.buffers(recurse=False):  # running statistics
                if buffer.is_floating_point():
                    buffer.data = buffer.data.to(dtype)
    changed = []
    for name, parameter in model.named_parameters():
        if id(parameter) in chosen and parameter.dtype != dtype:
            parameter.data = parameter.data.to(dtype)
            changed.append(name)
    return changed


def float32_parts(types: dict[str, torch.dtype]) -> list[str]:
    """Return the shortest list of modules and parameters that are float32 where others are of half precision.

    Args:
        types: type by parameter name.

    Returns:
        `list[str]`: dotted names, none inside another; empty where all is of one type.
    """
    halves = {name for name, dtype in types.items() if dtype in _HALF}
    if not halves:
        return []
    mixed = {".".join(name.split(".")[:end]) for name in halves for end in range(1, name.count(".") + 2)}
    found: dict[str, None] = {}
    for name in (name for name, dtype in types.items() if dtype == torch.float32):
        parts = name.split(".")
        prefixes = (".".join(parts[:end]) for end in range(1, len(parts) + 1))
        found[next(prefix for prefix in prefixes if prefix not in mixed)] = None
    return list(found)


def accept_mixed_types(model: nn.Module) -> None:
    """Let a model whose parts are of different types run outside autocast; of one type, it is left as it is."""
    if not is_mixed(model):
        return
    for module in _layers(model):
        own = list(module.parameters(recurse=False))  # four-bit weights are whole numbers, and see to types themselves
        if own and all(map(torch.is_floating_point, own)) and _cast_inputs not in module._forward_pre_hooks.values():
            module.register_forward_pre_hook(_cast_inputs, with_kwargs=True)
            module.register_forward_hook(_cast_output)


def _layers(model: nn.Module) -> Iterator[nn.Module]:
    """Yield the modules that compute with parameters of their own and hold no other such module."""
    for module in model.modules():
        whole = isinstance(module, nn.MultiheadAttention)
        below = [] if whole else [part for part in module.modules() if part is not module]
        if not any(list(part.parameters(recurse=False)) for part in below):
            yield module


def _cast_inputs(module: nn.Module, arguments: tuple[Any, ...], named: dict[str, Any]) -> Any:
    """Cast what a layer is given to the type of its weights, and note the type that its caller works in."""
    callers: list[Tensor] = []

    def visit(value: Tensor) -> Tensor:
        callers.append(value)
        return value.to(dtype)

    setattr(module, _CALLER, None)
    weight = next(own for own in module._parameters.values() if own is not None)
    if weight.is_meta or torch.is_autocast_enabled(weight.device.type):
        return None  # on the meta device a plan casts, as a GPU's autocast would
    dtype = weight.dtype
    changed = _mapped(arguments, visit), {name: _mapped(value, visit) for name, value in named.items()}
    if not any(value.dtype != dtype for value in callers):
        return None
    setattr(module, _CALLER, callers[0].dtype)
    return changed


def _cast_output(module: nn.Module, arguments: Any, output: Any) -> Any:
    caller = getattr(module, _CALLER, None)
    return output if caller is None else _mapped(output, lambda value: value.to(caller))


def _mapped(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Apply a change to the floating-point tensors of an argument, or of a tuple or list of them."""
    if isinstance(value, Tensor):
        return change(value) if value.is_floating_point() else value
    if type(value) in (tuple, list):
        return type(value)(_mapped(item, change) for item in value)
    return value

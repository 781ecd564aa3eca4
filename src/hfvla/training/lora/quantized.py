"""QLoRA: the layers under a stage's adapters held in four bits while it trains (Dettmers et al. 2023)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hfvla.errors import MissingExtraError, RecipeError

__all__ = ["dequantized", "four_bit_weights", "is_quantized", "quantize"]


def _bitsandbytes() -> Any:
    """Return the package, where it and a GPU are there.

    Raises:
        RecipeError: no CUDA device.
        MissingExtraError: not installed.
    """
    if not torch.cuda.is_available():
        raise RecipeError(
            "lora.qlora needs a CUDA device: its four-bit kernels are made for one",
            got="no CUDA device",
            fix="Set qlora: false to train a plain LoRA here, or run on a GPU.",
        )
    try:
        import bitsandbytes
    except ImportError:
        raise MissingExtraError("bitsandbytes", "qlora", "lora.qlora") from None
    return bitsandbytes


def quantize(model: nn.Module, targets: Sequence[str]) -> None:
    """Replace linear layers by four-bit ones (NF4, double quantisation); they are quantised on their way to the GPU.

    Args:
        model: the model, changed in place.
        targets: names of its layers.

    Raises:
        RecipeError: no CUDA device; a layer that is not a plain linear one.
        MissingExtraError: bitsandbytes is not installed.
    """
    bitsandbytes = _bitsandbytes()
    others = [name for name in targets if type(model.get_submodule(name)) is not nn.Linear]
    if others:
        kind = type(model.get_submodule(others[0])).__name__
        raise RecipeError(
            f"lora.qlora: '{others[0]}' cannot be held in four bits",
            got=kind,
            expected="Linear layers only",
            fix="Narrow lora.target, or set qlora: false.",
        )
    for name in targets:
        old = model.get_submodule(name)
        dtype = old.weight.dtype if old.weight.dtype != torch.float32 else torch.bfloat16
        new = bitsandbytes.nn.Linear4bit(
            old.in_features, old.out_features, old.bias is not None, compute_dtype=dtype, quant_type="nf4"
        )
        new.weight = bitsandbytes.nn.Params4bit(
            old.weight.data, requires_grad=False, quant_type="nf4", compress_statistics=True
        )
        new.bias = old.bias
        model.set_submodule(name, new)


def _is_four_bit(module: nn.Module) -> bool:
    return type(module).__name__ == "Linear4bit"  # told by name, so that bitsandbytes need not be there


def is_quantized(model: nn.Module) -> bool:
    """Tell whether a model has four-bit layers; they compute in half precision."""
    return any(_is_four_bit(module) for module in model.modules())


def four_bit_weights(model: nn.Module) -> list[str]:
    """Return the names of a model's weights that are held in four bits."""
    return [f"{name}.weight" for name, module in model.named_modules() if _is_four_bit(module)]


def dequantized(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict in which four-bit weights are back in full: the values that the adapters trained against.

    Args:
        model: the model that the state dict is of, unwrapped.
        state: its state dict; a model without four-bit layers gets it back as it is.
    """
    packed = {f"{name}.weight": module for name, module in model.named_modules() if _is_four_bit(module)}
    if not packed:
        return state
    from bitsandbytes.functional import dequantize_4bit

    result = {
        name: value for name, value in state.items() if not any(name.startswith(f"{weight}.") for weight in packed)
    }
    for name, module in packed.items():
        if module.weight.quant_state is not None:  # else it never reached a GPU, and is still whole
            result[name] = dequantize_4bit(module.weight.data, module.weight.quant_state).to("cpu")
    return result

"""Parameter names of a model with LoRA adapters in it, told apart from those of the model itself.

peft puts a wrapper in the place of each adapted layer: `head.weight` becomes `head.base_layer.weight`, and beside it
lie `head.lora_A.<adapter>.weight` and the like. Group patterns and hand-overs speak of the plain names.
"""

from __future__ import annotations

from torch import nn

from hfvla.errors import RecipeError
from hfvla.recipe.lora_checks import LORA_GROUP

__all__ = [
    "LORA_GROUP",
    "TRAINED_ADAPTER",
    "adapter_of",
    "adapter_parameters",
    "below_name",
    "lora_parameters",
    "plain_name",
    "plain_parameters",
]

TRAINED_ADAPTER = "default"
"""peft name of the adapter that a stage trains; those kept frozen below it are below_1, below_2, ..., oldest first."""

_PARTS = frozenset({"lora_A", "lora_B", "lora_embedding_A", "lora_embedding_B", "lora_magnitude_vector"})


def below_name(number: int) -> str:
    """Return the peft name of the `number`-th adapter (1 = the oldest) that is kept frozen below the trained one."""
    return f"below_{number}"


def adapter_of(name: str) -> str | None:
    """Return the adapter that a tensor belongs to, or None for a tensor of the model itself."""
    parts = name.split(".")
    return next((after for part, after in zip(parts, parts[1:], strict=False) if part in _PARTS), None)


def plain_name(name: str) -> str:
    """Return a tensor's name without LoRA: head.base_layer.weight is head.weight."""
    return name.replace(".base_layer.", ".")


def plain_parameters(model: nn.Module) -> dict[str, str]:
    """Return the plain name of each parameter of the model itself by its present name; adapters are left out."""
    return {name: plain_name(name) for name, _ in model.named_parameters() if adapter_of(name) is None}


def adapter_parameters(model: nn.Module) -> list[str]:
    """Return the names of all adapter tensors, trained or frozen."""
    return [name for name, _ in model.named_parameters() if adapter_of(name) is not None]


def lora_parameters(model: nn.Module, expression: str = LORA_GROUP) -> list[str]:
    """Return what the group `lora` stands for: the tensors of the adapter that trains.

    Raises:
        RecipeError: the model has no adapter, or the group is asked for layers.
    """
    if expression != LORA_GROUP:
        raise RecipeError("group 'lora' has no layers to count", got=expression, expected=f"'{LORA_GROUP}'")
    found = [name for name in adapter_parameters(model) if adapter_of(name) == TRAINED_ADAPTER]
    if not found:
        raise RecipeError("no parameter group 'lora': the stage has no `lora:`", fix="Give the stage a `lora:`.")
    return found

"""LoRA as a plan entry: peft adapters injected into the layers that a recipe names by group or regex.

The adapters go into the model itself (`peft.inject_adapter_in_model`): the model keeps its class, its `forward` and
its loss terms, and the Trainer treats it like any other, so its checkpoints hold every tensor by its present name.
transformers' own `add_adapter` would make `save_pretrained` write the adapters only, and lose the heads beside them.
"""

from __future__ import annotations

import copy
import difflib
import re
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from hfvla.errors import RecipeError
from hfvla.family import ParameterGroup
from hfvla.nn.mixed_precision import cast_together
from hfvla.recipe.patterns import matching_names
from hfvla.recipe.stage_schema import Lora
from hfvla.training.lora.patterns import slow_pattern
from hfvla.training.stage.groups import (
    TRAINED_ADAPTER,
    adapter_of,
    adapter_parameters,
    expand_group,
    lora_parameters,
    plain_name,
)

__all__ = [
    "adapters_in",
    "count_lora_parameters",
    "inject",
    "inject_lora",
    "lora_config",
    "lora_targets",
]

_REGEX = "re:"
_NEAREST = 5


def lora_targets(model: nn.Module, groups: Mapping[str, ParameterGroup], lora: Lora) -> list[str]:
    """Return the names of the modules that get an adapter, in model order.

    Linear layers, GPT-2's Conv1D and Conv2d without channel groups take one. Embeddings, an output layer, layers that
    share their weight with another module, and the projections inside `nn.MultiheadAttention` (which reads their
    weights without calling them, so that an adapter would never act) take none.

    Args:
        model: the model; may be on the meta device, and may have adapters in it already.
        groups: parameter groups by name.
        lora: what the recipe says.

    Raises:
        RecipeError: an entry of `target` that is no group and no regex, or that matches no such module; the nearest
            module names are listed.
    """
    layers = _adaptable(model)
    chosen: set[str] = set()
    for entry in [lora.target] if isinstance(lora.target, str) else lora.target:
        if entry.startswith(_REGEX):
            found = _matching(entry.removeprefix(_REGEX), layers)
        else:
            members = {plain_name(name) for name in expand_group(model, groups, entry)}
            found = {name for name in layers if f"{name}.weight" in members}
        if not found:
            names = [name for name, _ in model.named_modules() if name] if entry.startswith(_REGEX) else []
            raise RecipeError(
                f"lora.target: '{entry}' matches no layer that can take an adapter",
                expected=f"layers like {', '.join(_nearest(entry, list(layers))) or 'a linear layer; there is none'}",
                fix=_why_not(entry, names, layers),
            )
        chosen |= found
    return [name for name in layers if name in chosen]


def _matching(pattern: str, names: Sequence[str] | Mapping[str, Any]) -> set[str]:
    slow = slow_pattern(pattern)
    if slow is not None and not slow.startswith("not a regular"):
        raise RecipeError(f"lora.target: matching this could take for ever ({slow})", got=pattern[:200])
    try:
        return matching_names(pattern, names)
    except RecipeError as error:
        raise RecipeError(f"lora.target: {error}") from None


def _why_not(entry: str, modules: Sequence[str], layers: Mapping[str, nn.Module]) -> str:
    if not entry.startswith(_REGEX):
        return "Name a group that has linear layers, or `re:` and a regex of module names."
    others = sorted(name for name in _matching(entry.removeprefix(_REGEX), modules) if name not in layers)
    if others:
        return f"It matches '{others[0]}', which is not a linear layer that takes one."
    return "The regex must match a whole module name; start it with `.*` to match the end of one."


def _nearest(entry: str, names: Sequence[str]) -> list[str]:
    """Return the nearest kinds of module names; layers of one kind differ by their number only and count once."""
    kinds = {re.sub(r"\b\d+\b", "N", name): name for name in reversed(names)}
    wanted = re.sub(r"\b\d+\b", "N", re.sub(r"\\|[][^$()|?*+{}]", "", entry.removeprefix(_REGEX)).strip("."))

    def likeness(kind: str) -> float:
        ends = [kind, kind.rsplit(".", 1)[-1], ".".join(kind.split(".")[-2:])]
        return max(difflib.SequenceMatcher(None, wanted, end).ratio() for end in ends)

    return [kinds[kind] for kind in sorted(kinds, key=likeness, reverse=True)[:_NEAREST]]


def _adaptable(model: nn.Module) -> dict[str, nn.Module]:
    """Return the layers that can take an adapter, by their plain name."""
    from transformers.pytorch_utils import Conv1D

    shared = Counter(
        id(module.weight) for module in model.modules() if isinstance(getattr(module, "weight", None), nn.Parameter)
    )
    output = model.get_output_embeddings() if hasattr(model, "get_output_embeddings") else None
    attention = {f"{name}." for name, module in model.named_modules() if isinstance(module, nn.MultiheadAttention)}
    found: dict[str, nn.Module] = {}
    for name, module in model.named_modules():
        linear = isinstance(module, nn.Linear | Conv1D) or (isinstance(module, nn.Conv2d) and module.groups == 1)
        if not name or not linear or module is output or adapter_of(f"{name}.weight") is not None:
            continue
        wrapper = name.endswith(".base_layer")  # peft's layer shows the weight of the layer in it as its own
        if shared[id(module.weight)] > (2 if wrapper else 1) or any(name.startswith(part) for part in attention):
            continue
        found[name.removesuffix(".base_layer")] = module
    return found


def lora_config(lora: Lora, targets: Sequence[str], base: str | None = None) -> Any:
    """Return peft's `LoraConfig`.

    Args:
        lora: what the recipe says.
        targets: module names. They become one regex: peft would take each of a list for the end of a name, and
            "blocks.1" would also hit "vision.blocks.1".
        base: checkpoint the adapter belongs to, for people who share it.
    """
    from peft import LoraConfig

    return LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        use_dora=lora.dora,
        use_rslora=lora.rslora,
        target_modules="|".join(re.escape(name) for name in targets),
        base_model_name_or_path=base,
    )


def inject(model: nn.Module, config: Any, adapter: str = TRAINED_ADAPTER) -> None:
    """Put an adapter into a model, in float32, beside those already there; all of them act, added up.

    Args:
        model: the model, changed in place.
        config: peft's `LoraConfig`.
        adapter: its peft name.
    """
    from peft import inject_adapter_in_model
    from peft.tuners.lora import LoraLayer

    trained = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    with warnings.catch_warnings():  # GPT-2's Conv1D holds its weight transposed; peft sees it and tells us each time
        warnings.filterwarnings("ignore", message="fan_in_fan_out is set to")
        warnings.filterwarnings("ignore", message="Already found a `peft_config` attribute")  # stacked on purpose
        inject_adapter_in_model(config, model, adapter)
    adapters = adapters_in(model)
    for module in model.modules():
        if isinstance(module, LoraLayer):
            module.set_adapter([name for name in adapters if name in module.lora_A])
    # In bfloat16 most steps of an adapter would be too small to change it.
    cast_together(model, [name for name in adapter_parameters(model) if adapter_of(name) == adapter])
    # peft freezes the model around its adapters; what trains is for `freeze` to say, from the recipe.
    plain = {plain_name(name) for name in trained}
    for name, parameter in model.named_parameters():
        of = adapter_of(name)
        parameter.requires_grad_(of == TRAINED_ADAPTER if of else plain_name(name) in plain)


def inject_lora(model: nn.Module, groups: Mapping[str, ParameterGroup], lora: Lora, base: str | None = None) -> int:
    """Give a model the adapters that a stage trains; they start as zero, so that its outputs stay what they were.

    Args:
        model: the model, changed in place; may be on the meta device.
        groups: parameter groups by name.
        lora: what the recipe says.
        base: checkpoint the adapter belongs to.

    Returns:
        `int`: layers that got an adapter.

    Raises:
        RecipeError: see `lora_targets`; DoRA on top of other adapters or with QLoRA; QLoRA without a GPU.
        MissingExtraError: QLoRA without bitsandbytes.
    """
    targets = lora_targets(model, groups, lora)
    if lora.dora and adapters_in(model):
        raise RecipeError(
            "lora.dora cannot be stacked on another adapter: it rescales the whole weight, and they do not add up",
            fix="Use handover.lora: merge, or dora: false.",
        )
    if lora.qlora and lora.dora:
        raise RecipeError(
            "lora.dora and lora.qlora do not go together: DoRA needs the norms of the whole weights",
            fix="Switch one of them off.",
        )
    if lora.qlora:
        from hfvla.training.lora.quantized import quantize

        quantize(model, targets)
    inject(model, lora_config(lora, targets, base))
    return len(targets)


def adapters_in(model: nn.Module) -> list[str]:
    """Return the names of a model's adapters: those kept frozen first, the oldest first; then the trained one."""
    found = {of for of in map(adapter_of, adapter_parameters(model)) if of is not None}
    return sorted(found, key=lambda name: (name == TRAINED_ADAPTER, len(name), name))


def count_lora_parameters(model: nn.Module, groups: Mapping[str, ParameterGroup], lora: Lora) -> int:
    """Return the parameters of the adapters that a stage would train, without giving them to the model.

    Args:
        model: the model without adapters; best on the meta device, as it is copied.
        groups: parameter groups by name.
        lora: what the recipe says.

    Raises:
        RecipeError: see `lora_targets`.
    """
    probe = copy.deepcopy(model).to("meta")
    with torch.device("meta"):
        inject(probe, lora_config(lora, lora_targets(model, groups, lora)))
    parameters = dict(probe.named_parameters())
    return sum(parameters[name].numel() for name in lora_parameters(probe))

"""What is what in an image-text-to-text model of transformers, found by its structure.

| group | found as |
|---|---|
| language | what `get_decoder()` returns, with the output layer and everything else that reads or writes tokens |
| embeddings | `get_input_embeddings()`, and the output layer where it has a weight of its own; part of `language` |
| vision | what `get_encoder("image")` returns, without parts of it that map into the language model |
| projector | what is left: everything between the two |

`model.options.groups` of a recipe says it by patterns where that fails, or where further names are wanted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from torch import nn

from hfvla.errors import RecipeError
from hfvla.family import ParameterGroup, as_names

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["accepts", "describe_parts", "find_groups", "inner_projectors", "vision_tower"]

PARTS = ("vision", "projector", "language", "embeddings")

# Inside a vision tower: the part that already speaks the language model's width (Qwen-VL, GLM-4V, Ernie-VL).
_INTO_LANGUAGE = re.compile(r"^(?:.*_)?(?:merger|mergers|merger_list|projector|connector|downsample|resampler)$")
_NEAR_OUTPUT = ("lm_head", "language_projection", "output_projection")


def accepts(model_type: str) -> bool:
    """Tell whether a model type is one of `AutoModelForImageTextToText` with one decoder that writes the answer."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

    return model_type in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES


def find_groups(model: PreTrainedModel, options: Mapping[str, Any] | None = None) -> dict[str, ParameterGroup]:
    """Return the parameter groups of a model by name, each with the modules that were taken for it.

    Args:
        model: may be on the meta device, and may have adapters.
        options: `model.options` of the recipe; `groups` in it come before what is found.

    Raises:
        RecipeError: no language model is found, or a pattern of the recipe matches nothing.
    """
    given = {name: as_names(patterns) for name, patterns in ((options or {}).get("groups") or {}).items()}
    names = list(dict.fromkeys(_plain(name) for name, _ in model.named_parameters() if not _is_adapter(name)))
    for group, patterns in given.items():
        for pattern in patterns:
            if not any(fnmatchcase(name, pattern) for name in names):
                raise RecipeError(f"model.options.groups.{group}: matches no parameter", got=pattern, fix=_look(names))
    owned, tokens = _owners(model, names, given), _embedding_names(model)
    groups = {}
    for part in PARTS:
        members = [name for name in names if owned[name] == part]
        if part == "embeddings":
            members = [name for name in names if name in tokens] if part not in given else members
        if part in given:
            patterns = given[part]
        elif members:
            inside = [name for name in names if owned[name] in (part, "embeddings" if part == "language" else part)]
            patterns = tuple(_prefixes(members if part != "language" else inside, names))
        elif part != "language":
            continue  # a model without a tower, say; a stage that names it is told which groups there are
        else:
            raise RecipeError(
                f"{type(model).__name__}: no {part} is found by the structure of the model",
                expected=f"model.options.groups.{part} with patterns of parameter names",
                fix=_look(names),
            )
        layers = _layers(model, patterns) if part in ("vision", "language") else None
        groups[part] = ParameterGroup(tuple(patterns), layers=layers, description=_described(model, patterns))
    for name, patterns in given.items():
        if name not in groups:
            groups[name] = ParameterGroup(
                tuple(patterns), layers=_layers(model, patterns), description="patterns of the recipe"
            )
    return groups


def describe_parts(model: PreTrainedModel, groups: Mapping[str, ParameterGroup]) -> list[dict[str, Any]]:
    """Return what was taken for what: group, patterns, layers, tensors and parameters, one row a group."""
    rows = []
    parameters = {_plain(name): value for name, value in model.named_parameters() if not _is_adapter(name)}
    for name, group in groups.items():
        found = [value for key, value in parameters.items() if any(fnmatchcase(key, p) for p in group.patterns)]
        layers = group.layers_of(model)
        rows.append(
            {
                "group": name,
                "taken": ", ".join(group.patterns),
                "layers": f"{layers} ({len(model.get_submodule(layers))})" if layers else "",
                "tensors": len(found),
                "parameters": sum(value.numel() for value in found),
            }
        )
    return rows


def _owners(model: PreTrainedModel, names: Sequence[str], given: Mapping[str, tuple[str, ...]]) -> dict[str, str]:
    """Return the part of each parameter; what the recipe's patterns name is theirs."""
    places = {id(module): name for name, module in model.named_modules()}
    decoder, tower = _decoder(model), vision_tower(model)
    language = places.get(id(decoder), "")
    vision = places.get(id(tower), "")
    embeddings = _embedding_names(model)
    into = [f"{vision}.{name}" for name in inner_projectors(model)] if vision else []
    owned = {}
    for name in names:
        by_recipe = [part for part, patterns in given.items() if any(fnmatchcase(name, p) for p in patterns)]
        if by_recipe and by_recipe[0] in PARTS:
            owned[name] = by_recipe[0]
        elif name in embeddings:
            owned[name] = "embeddings"
        elif _below(name, into):
            owned[name] = "projector"
        elif vision and _below(name, [vision]):
            owned[name] = "vision"
        elif (language and _below(name, [language])) or any(part in _NEAR_OUTPUT for part in name.split(".")):
            owned[name] = "language"
        else:
            owned[name] = "projector"
    return owned


def _decoder(model: PreTrainedModel) -> Any:
    found = model.get_decoder() if hasattr(model, "get_decoder") else model
    if found is None or found is model or found is getattr(model, "model", None):
        for name in ("language_model", "text_model", "decoder"):
            inner = getattr(getattr(model, "model", model), name, None) or getattr(model, name, None)
            if isinstance(inner, nn.Module):
                return inner
    return found


def vision_tower(model: PreTrainedModel) -> Any:
    """Return the module that sees, with a projector inside where it has one; the model itself where none is found."""
    found = model.get_encoder(modality="image") if hasattr(model, "get_encoder") else model
    return found if isinstance(found, nn.Module) and found is not getattr(model, "model", None) else model


def inner_projectors(model: PreTrainedModel) -> list[str]:
    """Return the children of the vision tower that map into the language model, in their order."""
    tower = vision_tower(model)
    return [] if tower is model else [name for name, _ in tower.named_children() if _INTO_LANGUAGE.match(name)]


def _embedding_names(model: PreTrainedModel) -> set[str]:
    """Return the names of the token embedding's and the output layer's parameters."""
    wanted = {
        id(layer) for layer in (model.get_input_embeddings(), model.get_output_embeddings()) if layer is not None
    }
    found = set()
    for name, module in model.named_modules():
        if id(module) in wanted:
            found |= {_plain(f"{name}.{key}") for key, _ in module.named_parameters() if not _is_adapter(key)}
    return found & {_plain(name) for name, _ in model.named_parameters()}  # a tied weight has one name


def _below(name: str, modules: Sequence[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _prefixes(members: Sequence[str], names: Sequence[str]) -> list[str]:
    """Return the fewest patterns `module.*` and names that cover the members and nothing else."""
    chosen = set(members)
    mixed = {
        "".join(f"{part}." for part in name.split(".")[:end])
        for name in names
        if name not in chosen
        for end in range(1, name.count(".") + 1)
    }  # prefixes below which something else lies
    patterns: dict[str, None] = {}
    for name in members:
        parts = name.split(".")
        prefixes = ("".join(f"{part}." for part in parts[:end]) for end in range(1, len(parts)))
        whole = next((prefix for prefix in prefixes if prefix not in mixed), None)
        patterns[name if whole is None else f"{whole}*"] = None
    return list(patterns)


def _layers(model: PreTrainedModel, patterns: Sequence[str]) -> str | None:
    """Return the name of the largest `ModuleList` all of whose parameters the patterns cover."""
    best, size = None, 0
    for name, module in model.named_modules():
        if isinstance(module, nn.ModuleList) and len(module):
            inside = [f"{name}.{_plain(key)}" for key, _ in module.named_parameters() if not _is_adapter(key)]
            if inside and all(any(fnmatchcase(key, p) for p in patterns) for key in inside):
                count = sum(parameter.numel() for parameter in module.parameters())
                if count > size:
                    best, size = name, count
    return best


def _described(model: PreTrainedModel, patterns: Sequence[str]) -> str:
    modules = dict(model.named_modules())
    named = [(p.removesuffix(".*"), modules.get(p.removesuffix(".*"))) for p in patterns]
    return ", ".join(f"{name} ({type(module).__name__})" if module is not None else name for name, module in named)


def _look(names: Sequence[str]) -> str:
    tops = list(dict.fromkeys(".".join(name.split(".")[:2]) for name in names))
    return f"Its parameters lie below {', '.join(tops[:8])}."


def _plain(name: str) -> str:
    return name.replace(".base_layer.", ".")


def _is_adapter(name: str) -> bool:
    return ".lora_" in name or name.startswith("lora_")

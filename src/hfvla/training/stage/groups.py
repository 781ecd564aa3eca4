"""Which parameters a stage trains: names in `train:` to tensors, freezing, and the table that shows it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase

import torch
from torch import nn

from hfvla.errors import RecipeError, did_you_mean
from hfvla.family import ParameterGroup, as_names, parse_group
from hfvla.recipe.lora_checks import LORA_GROUP

__all__ = [
    "GroupRow",
    "LORA_GROUP",
    "TRAINED_ADAPTER",
    "adapter_of",
    "adapter_parameters",
    "assign_parameters",
    "assign_phases",
    "below_name",
    "expand_group",
    "freeze",
    "fully_frozen_modules",
    "lora_parameters",
    "plain_name",
    "plain_parameters",
    "stop_input_gradients",
    "table_dicts",
    "trainable_table",
]


@dataclass(frozen=True)
class GroupRow:
    """One line of the table printed before a stage.

    Attributes:
        group: parameter group, or "(other)" for parameters in no group.
        tensors: tensors in it.
        parameters: scalars in it.
        trainable: scalars of it that train.
        share: trainable / parameters.
        learning_rate: highest learning rate used in it, 0.0 when frozen.
        dtype: dtypes of its tensors; of what trains first, where what is frozen beside it has others.
        decayed: scalars of it that train with weight decay.
        phase: phase of the stage that the line is about; 0 is the stage's own `train`.
    """

    group: str
    tensors: int
    parameters: int
    trainable: int
    share: float
    learning_rate: float
    dtype: str
    decayed: int = 0
    phase: int = 0


def expand_group(model: nn.Module, groups: Mapping[str, ParameterGroup], expression: str) -> list[str]:
    """Return the parameter names that an entry of `train:` stands for, in model order.

    Args:
        model: the model.
        groups: parameter groups by name.
        expression: "heads", "language.last(2)", "language.first(1)", or "lora" for the adapters that train. A weight
            with an adapter on it stays in its group; the adapter does not join it.

    Raises:
        RecipeError: unknown group, a group without layers in `.last(n)`, more layers than there are, or no parameter.
    """
    name, end, count = parse_group(expression)
    if name == LORA_GROUP and name not in groups:
        return lora_parameters(model, expression)
    if name not in groups:
        raise RecipeError(f"no parameter group '{name}'. {did_you_mean(name, groups)}")
    group = groups[name]
    patterns: Sequence[str] = group.patterns
    if end is not None:
        patterns = _layer_patterns(model, name, group, end, count)
    plain = plain_parameters(model).items()
    found = [key for key, name in plain if any(fnmatchcase(name, pattern) for pattern in patterns)]
    if not found:
        raise RecipeError(
            f"'{expression}' matches no parameter of {type(model).__name__}",
            expected=f"parameters named {', '.join(patterns)}",
            fix=_named_alike(patterns, [name for _, name in plain]),
        )
    return found


def _named_alike(patterns: Sequence[str], names: Sequence[str]) -> str:
    """Return what the model has in place of a pattern: the part of its name that still fits, and what follows it."""
    wanted = patterns[0].split(".")
    parts = [name.split(".") for name in names]
    depth = 0
    while depth < len(wanted) and any(part[: depth + 1] == wanted[: depth + 1] for part in parts):
        depth += 1
    following = sorted({part[depth] for part in parts if part[:depth] == wanted[:depth] and len(part) > depth})
    # Names of another version of transformers: the part is there, and lies elsewhere.
    elsewhere = sorted({".".join(part[: part.index(wanted[depth]) + 1]) for part in parts if wanted[depth] in part})
    hint = f" '{wanted[depth]}' is at {', '.join(elsewhere)}." if elsewhere else ""
    if not elsewhere and (near := did_you_mean(wanted[depth], following)).startswith("Did"):
        hint = f" {near}"
    return f"The model has {'.'.join([*wanted[:depth], '...'])}: {', '.join(following[:12])}.{hint}"


def _layer_patterns(model: nn.Module, name: str, group: ParameterGroup, end: str, count: int) -> list[str]:
    layers = group.layers_of(model)
    if layers is None:
        raise RecipeError(f"group '{name}' has no layers to count", got=f"{name}.{end}({count})", expected=f"'{name}'")
    depth = len(model.get_submodule(layers))
    if count > depth:
        raise RecipeError(
            f"group '{name}' has {depth} layers", got=f"{name}.{end}({count})", expected=f"at most {depth}"
        )
    indices = range(depth - count, depth) if end == "last" else range(count)
    return [f"{layers}.{index}.*" for index in indices]


def _check_not_whole(model: nn.Module, groups: Mapping[str, ParameterGroup], expression: str, count: int) -> None:
    """Refuse an entry that stands for the whole model where its group does not say that it may."""
    name, end, _ = parse_group(expression)
    total = sum(1 for key, _ in model.named_parameters() if adapter_of(key) is None)
    if name in groups and end is None and count == total and not groups[name].whole_model:
        raise RecipeError(
            f"group '{name}' holds every parameter of {type(model).__name__}: all of it would train",
            got=f"patterns {', '.join(groups[name].patterns)}",
            fix="Narrow its patterns, or say ParameterGroup(..., whole_model=True).",
        )


def assign_parameters(
    model: nn.Module, groups: Mapping[str, ParameterGroup], expressions: str | Sequence[str]
) -> dict[str, str]:
    """Return, for each parameter that trains, the entry of `train:` it belongs to.

    Where entries overlap ("language" and "language.last(2)"), the one with fewer parameters has it.

    Raises:
        RecipeError: see `expand_group`; also an entry whose parameters all belong to narrower entries, and a group
            that holds the whole model without `ParameterGroup.whole_model`.
    """
    expressions = as_names(expressions)
    members = {expression: expand_group(model, groups, expression) for expression in expressions}
    for expression, found in members.items():
        _check_not_whole(model, groups, expression, len(found))
    assigned: dict[str, str] = {}
    for expression in sorted(expressions, key=lambda entry: -len(members[entry])):
        assigned.update(dict.fromkeys(members[expression], expression))
    empty = [expression for expression in expressions if expression not in assigned.values()]
    if empty:
        raise RecipeError(
            f"'{empty[0]}' trains nothing of its own: other entries of `train` cover it", got=list(expressions)
        )
    return assigned


def assign_phases(
    model: nn.Module, groups: Mapping[str, ParameterGroup], phases: Sequence[Sequence[str]], where: str
) -> dict[str, str]:
    """Return, for each parameter that ever trains in a stage, the entry that it joins with.

    A parameter joins with the first phase that names it; a later, wider entry takes only what does not train yet.

    Args:
        model: the model.
        groups: parameter groups by name.
        phases: entries that join in each phase, the stage's own `train` first.
        where: named in errors, e.g. "stage 'align'".

    Raises:
        RecipeError: see `assign_parameters`; also an entry of a phase whose parameters all train already.
    """
    assigned = assign_parameters(model, groups, phases[0])
    for number, entries in enumerate(phases[1:]):
        found = assign_parameters(model, groups, entries) if entries else {}
        joining = {name: entry for name, entry in found.items() if name not in assigned}
        for entry in entries:
            if entry not in joining.values():
                already = {assigned[name] for name in expand_group(model, groups, entry) if name in assigned}
                raise RecipeError(
                    f"'{entry}' trains already",
                    where=f"{where}, phases[{number}]",
                    got=f"its parameters joined with {', '.join(sorted(already))}",
                    fix="Take it out of `add`, or out of what trains before.",
                )
        assigned.update(joining)
    return assigned


def freeze(model: nn.Module, trained: Mapping[str, str]) -> None:
    """Let exactly the named parameters require gradients."""
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in trained)


def fully_frozen_modules(model: nn.Module) -> list[nn.Module]:
    """Return the topmost modules that have parameters, none of which trains.

    They run in eval mode while the rest trains: no dropout, and no drift of batch-norm statistics.
    """
    found: list[nn.Module] = []

    def visit(module: nn.Module) -> None:
        parameters = list(module.parameters())
        if parameters and not any(parameter.requires_grad for parameter in parameters):
            found.append(module)
            return
        for child in module.children():
            visit(child)

    visit(model)
    return found


def trainable_table(
    model: nn.Module,
    groups: Mapping[str, ParameterGroup],
    trained: Mapping[str, str],
    learning_rates: Mapping[str, float],
    phase: int = 0,
    decayed: Collection[str] = (),
    engine: torch.dtype | None = None,
) -> list[GroupRow]:
    """Return one row a parameter group, each parameter counted once (in its narrowest group), and a total.

    Args:
        model: the model; may be on the meta device.
        groups: parameter groups by name.
        trained: entry of `train:` by parameter name.
        learning_rates: learning rate by entry of `train:`.
        phase: phase of the stage that the rows are about.
        decayed: names of the parameters that weight decay acts on.
        engine: the half type that DeepSpeed casts all to, beside float32 master weights of what trains.
    """
    parameters, plain = dict(model.named_parameters()), plain_parameters(model).items()
    members = {
        name: [key for key, short in plain if any(fnmatchcase(short, pattern) for pattern in group.patterns)]
        for name, group in groups.items()
    }
    members.setdefault(LORA_GROUP, adapter_parameters(model))
    owner: dict[str, str] = {}
    for name in sorted(members, key=lambda entry: -len(members[entry])):
        owner.update(dict.fromkeys(members[name], name))
    names = [*members, *(["(other)"] if len(owner) < len(parameters) else [])]
    by_group: dict[str, list[str]] = {name: [] for name in names}
    for key in parameters:
        by_group[owner.get(key, "(other)")].append(key)
    by_group["total"] = list(parameters)
    shrinks = set(decayed)
    rows = [_row(name, keys, parameters, trained, learning_rates, shrinks) for name, keys in by_group.items() if keys]
    types = [_types([(parameters[key], key in trained) for key in keys], engine) for keys in by_group.values() if keys]
    return [replace(row, phase=phase, dtype=dtype) for row, dtype in zip(rows, types, strict=True)]


def _types(parameters: Sequence[tuple[nn.Parameter, bool]], engine: torch.dtype | None) -> str:
    """Return the dtypes of parameters and whether each trains, for the table."""

    def named(training: bool) -> str:
        types = {parameter.dtype for parameter, trains in parameters if trains == training}
        types = {engine} if types and engine is not None else types
        return ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in types))

    trains, frozen = named(True), named(False)
    if trains and engine is not None:
        return f"{trains}, float32 master weights"
    return f"{trains}; frozen {frozen}" if trains and frozen and trains != frozen else trains or frozen


def _row(
    name: str,
    keys: Sequence[str],
    parameters: Mapping[str, nn.Parameter],
    trained: Mapping[str, str],
    learning_rates: Mapping[str, float],
    decayed: Collection[str],
) -> GroupRow:
    count = sum(parameters[key].numel() for key in keys)
    active = [key for key in keys if key in trained]
    trainable = sum(parameters[key].numel() for key in active)
    return GroupRow(
        group=name,
        tensors=len(keys),
        parameters=count,
        trainable=trainable,
        share=trainable / count if count else 0.0,
        learning_rate=max((learning_rates[trained[key]] for key in active), default=0.0),
        dtype="",
        decayed=sum(parameters[key].numel() for key in active if key in decayed),
    )


def table_dicts(rows: Sequence[GroupRow]) -> list[dict]:
    """Return the rows as plain dicts, for JSON."""
    return [asdict(row) for row in rows]


def stop_input_gradients(model: nn.Module) -> None:
    """Let input embeddings be frozen again, which transformers makes require gradients for checkpointing.

    It does so for the sake of `use_reentrant: true`. Otherwise nothing needs it, and a frozen tower, which runs in
    evaluation mode and is therefore not recomputed, would keep the activations of all its layers for a backward pass
    whose result nobody reads.
    """
    if getattr(model, "_require_grads_hooks", None):
        model.disable_input_require_grads()


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

"""Checks of `model.config` and of a stage's `model`: keys and values of the family's config, its backbone included.

transformers takes any key into any config. So keys are held against the fields of the real classes here, and nested
mappings against what the family's config class says of them:

- `nested_keys`: by field, the keys of a plain mapping with their defaults, or a function that returns them for it;
- `sub_config_types`: by field, the model types that a config inside may have.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
import math
import re
import typing
from collections.abc import Iterator, Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict, PydanticUserError, TypeAdapter, ValidationError

from hfvla.errors import did_you_mean
from hfvla.family import FamilySpec, resolve
from hfvla.recipe.document import Problem, Steps, as_mapping
from hfvla.recipe.scalars import shortened
from hfvla.recipe.sizes import size_problems
from hfvla.recipe.words import plain_problems, shown, validate_strictly

__all__ = ["change_problems", "config_problems"]

_ROPE = ("rope_theta", "rope_scaling", "partial_rotary_factor")  # older names, which transformers moves
_LAYERS = re.compile(r"(?:^|_)(?:layers?|depths?|blocks?|stages|experts)$")
_COUNTS = re.compile(r"(?:^|_)(?:layers?|depths?|blocks?|heads?|width|widths|dim|size|embd)$")
_MOST_LAYERS, _MOST, _MOST_ITEMS = 1_000, 10_000_000, 10_000
_FEW_TYPES = 20  # whose classes may all be tried where the type is not known
_UNBOUND = re.compile(r"(?:^|_)(?:ids?|seed|token)$")
_MOST_UNBOUND = 2**32


def config_problems(tree: Mapping[str, Any], families: Mapping[str, FamilySpec]) -> Iterator[Problem]:
    """Yield what is wrong about a recipe's `model.config`, `model.options` and the stages' `model`.

    Args:
        tree: mappings, lists and scalars, as read from YAML.
        families: known families by name.
    """
    family, model = tree.get("family"), as_mapping(tree.get("model"))
    spec = families.get(family) if isinstance(family, str) else None
    if spec is None:
        return
    if spec.model_options is not None and as_mapping(model.get("options")):
        yield from _option_problems(model["options"], resolve(spec.model_options), ("model", "options"))
    stages = tree["stages"] if isinstance(tree.get("stages"), list) else []
    places: list[tuple[Steps, dict[str, Any]]] = [(("model", "config"), as_mapping(model.get("config")))]
    places += [(("stages", n, "model"), as_mapping(as_mapping(stage).get("model"))) for n, stage in enumerate(stages)]
    places = [(steps, written) for steps, written in places if written]
    if not places or spec.plain:  # of many classes: `change_problems` and `build_config` know which
        return
    kind = spec.load("config")
    base: Mapping[str, Any] | None = {}
    if model.get("pretrained") or as_mapping(model.get("options")).get("backbone"):
        base = None  # its types are known when it is read: `change_problems`
    for steps, written in places:
        yield from _class_problems(kind, written, base, steps, spec)
        base = None if base is None else {**base, **written}


def _option_problems(options: Mapping[str, Any], kind: type[BaseModel], base: Steps) -> Iterator[Problem]:
    try:
        validate_strictly(kind, options)
    except ValidationError as error:
        yield from plain_problems(error, kind, base)
    else:
        yield from size_problems(dict(options), base)


def change_problems(config: Any, changes: Mapping[str, Any], spec: FamilySpec | None = None) -> list[Problem]:
    """Return what is wrong about changes of a config that is there, the types of its parts known.

    Args:
        config: the config that is changed.
        changes: as written in a recipe.
        spec: the family; for the names of its losses.
    """
    return list(_class_problems(type(config), changes, config.to_dict(), (), spec))


def _class_problems(
    kind: Any, written: Mapping[str, Any], base: Mapping[str, Any] | None, steps: Steps, spec: FamilySpec | None
) -> Iterator[Problem]:
    """Yield what is wrong about values for a config class; `base` holds what they change, None where it is unknown."""
    known, aliases = _known_keys(kind), _aliases(kind)
    parts, nested = kind.sub_configs_defaults, getattr(kind, "nested_keys", {})
    for key, value in written.items():
        here = (*steps, key)
        if key == "model_type" and value == kind.model_type:
            continue
        if key not in known:
            yield Problem(here, f"{kind.__name__} has no '{key}'. {did_you_mean(str(key), known)}")
        elif aliases.get(key) in written:
            yield Problem(here, f"'{key}' and '{aliases[key]}' are the same; keep one")
        elif key in parts:
            yield from _part_problems(kind, key, value, None if base is None else base.get(key), here)
        elif key in nested or key == "loss_weights":
            losses = dict.fromkeys(spec.losses, 1.0) if spec else None
            defaults = losses if key == "loss_weights" else nested[key]
            old = {"kind": None} if base is None else as_mapping(base.get(key))
            yield from _nested_problems(key, value, defaults, old, here) if defaults is not None else ()
        else:
            field = aliases.get(key, key)
            found = list(_value_problems(field, value, _hint(kind, field), here))
            yield from found or _own_problems(kind, field, value, here)
            if field in ("rope_parameters", "rope_scaling"):
                yield from _rope_problems(value, here)


def _rope_problems(value: Any, steps: Steps) -> Iterator[Problem]:
    """Yield what is no number in the parameters of rotary positions, which transformers takes as any mapping.

    All are numbers or lists of numbers but the type's name; a model may have one mapping for each kind of layer.
    """
    for name, part in as_mapping(value).items():
        if name in ("rope_type", "type"):
            continue
        if isinstance(part, Mapping):
            yield from _rope_problems(part, (*steps, name))
            continue
        items = list(enumerate(part)) if isinstance(part, list | tuple) else [(None, part)]
        for index, item in items:
            if item is not None and not isinstance(item, int | float):
                here = (*steps, name) if index is None else (*steps, name, index)
                yield Problem(here, f"expected a number; got {shown(item)}")


def _own_problems(kind: Any, field: str, value: Any, steps: Steps) -> Iterator[Problem]:
    """Yield what transformers' own check of a field says, e.g. that 1 is no float."""
    for check in getattr(kind, "__validators__", {}).get(field, ()):
        try:
            check(value)
        except (TypeError, ValueError) as error:
            yield Problem(steps, shortened(str(error).splitlines()[0], most=200))


def _part_problems(kind: Any, key: str, value: Any, base: Any, steps: Steps) -> Iterator[Problem]:
    """Yield what is wrong about a config inside a config, e.g. the backbone's."""
    if value is None or dataclasses.is_dataclass(value):
        return
    if not isinstance(value, Mapping):
        yield Problem(steps, f"expected a mapping; got {shown(value)}")
        return
    chosen = kind.sub_configs_defaults[key]
    if issubclass(chosen.config_class, _base_class()):
        classes = [chosen.config_class]
    else:
        types = getattr(kind, "sub_config_types", {}).get(key)
        types = list(types() if callable(types) else types or _all_types())
        default = chosen.model_type if base is not None or len(types) > _FEW_TYPES else None
        asked = value.get("model_type") or as_mapping(base).get("model_type") or default
        if asked is None and len(types) > _FEW_TYPES:
            return
        if asked is not None and asked not in types:
            hint = did_you_mean(str(asked), types)
            yield Problem((*steps, "model_type"), f"no such type of model here; got {shown(asked)}. {hint}")
            return
        classes = [_config_class(name) for name in ([asked] if asked is not None else types)]
    found = [list(_class_problems(part, value, base, steps, None)) for part in classes]
    yield from min(found, key=len)


def _nested_problems(key: str, value: Any, defaults: Any, old: Mapping[str, Any], steps: Steps) -> Iterator[Problem]:
    """Yield what is wrong about a mapping whose keys the family gives."""
    if value is None:
        return
    if not isinstance(value, Mapping):
        yield Problem(steps, f"expected a mapping; got {shown(value)}")
        return
    known = defaults({**old, **value}) if callable(defaults) else defaults
    for name, part in value.items():
        if name not in known:
            yield Problem((*steps, name), f"'{key}' has no '{name}'. {did_you_mean(str(name), known)}")
        else:
            yield from _value_problems(str(name), part, _type_of(known[name]), (*steps, name))


def _type_of(default: Any) -> Any:
    """Return the type of values that may stand for a default: None says nothing, and a list holds such items."""
    if isinstance(default, typing.get_args(int | float | str | bool)):
        return float if type(default) is float else type(default)
    if isinstance(default, list | tuple):
        return list[_type_of(default[0])] if default else list  # type: ignore[misc]
    return default if isinstance(default, type) or typing.get_origin(default) else Any


def _value_problems(name: str, value: Any, hint: Any, steps: Steps) -> Iterator[Problem]:
    """Yield what is wrong about one value: its type, and numbers that no model could have."""
    adapter = _adapter(hint)
    if adapter is not None:
        try:
            adapter.validate_python(value, strict=True)
        except ValidationError as error:
            yield from plain_problems(error, hint, steps)
            return
    yield from _size_problems(name, value, steps)


def _size_problems(name: str, value: Any, steps: Steps) -> Iterator[Problem]:
    if isinstance(value, Mapping):
        for key, part in value.items():
            yield from _size_problems(str(key), part, (*steps, key))
    elif isinstance(value, list | tuple):
        if len(value) > _MOST_ITEMS:
            yield Problem(steps, f"expected at most {_MOST_ITEMS:,} items; got {len(value):,}")
        for index, part in enumerate(value[:_MOST_ITEMS]):
            yield from _size_problems(name, part, (*steps, index))
    elif isinstance(value, float) and not math.isfinite(value):
        yield Problem(steps, f"expected a finite number; got {shown(value)}")
    elif isinstance(value, int) and not isinstance(value, bool):
        most = _MOST_UNBOUND if _UNBOUND.search(name) else _MOST_LAYERS if _LAYERS.search(name) else _MOST
        if abs(value) > most:
            yield Problem(steps, f"expected a number of at most {most:,}; got {shown(value)}")
        elif value < 0 and _COUNTS.search(name):
            yield Problem(steps, f"expected a number >= 0; got {value}")


@functools.cache
def _known_keys(kind: Any) -> tuple[str, ...]:
    """Return the keys that a recipe may write for a config class: its own fields, and older names of them."""
    arguments = inspect.signature(kind.__init__).parameters.values()  # of configs that are no plain data class
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    fields = [argument.name for argument in arguments if argument.kind in named and argument.name != "self"]
    fields += [field.name for field in dataclasses.fields(kind) if field.init and field.name not in fields]
    if hasattr(kind, "nested_keys"):  # what every config of transformers has is set by the engine, or by nobody
        common = {field.name for field in dataclasses.fields(_base_class())}
        own = set(kind.__dict__.get("__annotations__", {}))
        return tuple(name for name in fields if name in own or name not in common)
    rope = _ROPE if "rope_parameters" in fields else ()
    return (*fields, "model_type", *_aliases(kind), *rope)


def _base_class() -> Any:
    from transformers.configuration_utils import PreTrainedConfig

    return PreTrainedConfig


def _aliases(kind: Any) -> Mapping[str, str]:
    return getattr(kind, "attribute_map", None) or {}


@functools.cache
def _hint(kind: Any, key: str) -> Any:
    """Return the type of a field; of each by itself, since some of transformers' name what is not imported."""
    owner = next((part for part in kind.__mro__ if key in part.__dict__.get("__annotations__", {})), None)
    hint = owner.__dict__["__annotations__"][key] if owner is not None else Any
    if not isinstance(hint, str):
        return hint
    field = type("Field", (), {"__annotations__": {key: hint}, "__module__": owner.__module__})
    try:
        return typing.get_type_hints(field)[key]
    except (NameError, TypeError):
        return Any


@functools.lru_cache(maxsize=512)
def _adapter(hint: Any) -> TypeAdapter | None:
    """Return a checker of a field's type, or None for types that only Python code can build."""
    try:
        return TypeAdapter(hint, config=ConfigDict(arbitrary_types_allowed=False))
    except PydanticUserError:
        return None


def _all_types() -> list[str]:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return list(CONFIG_MAPPING)


def _config_class(model_type: str) -> Any:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return CONFIG_MAPPING[model_type]

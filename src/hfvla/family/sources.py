"""Data sources of a family, and what their builders return."""

from __future__ import annotations

import importlib
import importlib.util
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Source", "SourceData", "module_exists", "resolve"]


def resolve(path: str) -> Any:
    """Import and return the object named by "package.module:attribute"."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


def module_exists(module: str) -> bool:
    """Tell whether there is a module of a dotted name, without importing it."""
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # a parent that is a plain module, or is not there
        return False


@dataclass
class SourceData:
    """What a source's builder returns.

    Args:
        dataset: a map-style `datasets.Dataset` of rows; has a "group" column that must not cross a split.
        census: {"found": int, "usable": int, "rejected": {reason: {"count": int, "first": str}}}.
        rejected: why a record cannot be used, by its id; records without an id are in the census only.
    """

    dataset: Any
    census: dict[str, Any]
    rejected: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Source:
    """A data source that a recipe of this family may name.

    Args:
        options: "module:Class" of a pydantic model; unknown keys are refused.
        build: "module:function" with signature `build(options, *, seed: int) -> SourceData`.
        description: one line for `hfvla` help and the docs.
        count: "module:function" with signature `count(options) -> int | None`: rows, or nearly so many, without
            building them, for plans; None of a stream. Optional.
        families: families that a plug-in's source is for; all when empty.
        licence: of what the source reads, for the model card; "" where each copy has its own.
    """

    options: str
    build: str
    description: str = ""
    count: str | None = None
    families: tuple[str, ...] = ()
    licence: str = ""

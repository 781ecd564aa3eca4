"""The doors for code that is not part of hfvla: families, sources, loss terms, metrics and figures of other packages.

Two ways in. A package that is installed names what it offers in its entry points; each group is one of `GROUPS`:

```toml
[project.entry-points."hfvla.families"]
glow_vlm = "glow_vlm"            # a module with FAMILY, or module:ATTRIBUTE
[project.entry-points."hfvla.sources"]
lamps = "glow_vlm.lamps:SOURCE"
```

What is not installed is named by a recipe, `plugins: [my_module, terms.py]` (files relative to the recipe), or by the
variable `HFVLA_PLUGINS` for commands that read no recipe. Such a module may define `FAMILY`, and `SOURCES`, `LOSSES`,
`METRICS` and `FIGURES`, dicts by name. Naming a file runs it: only a user's own recipe can, never a checkpoint.

A plug-in that fails to load is named in one warning and left out; everything else works on.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import logging
import os
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from hfvla.errors import HfvlaError, RecipeError
from hfvla.family import FamilySpec, Source
from hfvla.metrics.catalog import Metric

__all__ = ["GROUPS", "VARIABLE", "LossFunction", "Offers", "offers", "use_plugins"]

logger = logging.getLogger(__name__)

GROUPS = ("families", "sources", "losses", "metrics", "figures")
"""Entry-point groups, each under "hfvla."."""

VARIABLE = "HFVLA_PLUGINS"
"""Environment variable with modules and files, separated by commas."""


@dataclass(frozen=True)
class LossFunction:
    """A loss term for models of other families.

    Args:
        description: one line.
        compute: "module:function" of `compute(model, batch, outputs) -> Tensor`, an unweighted scalar, the mean over
            the rows of the batch; None for a batch without such rows. Or the function itself.
        families: families that it is for; all when empty.
    """

    description: str
    compute: Any
    families: tuple[str, ...] = ()


@dataclass(eq=False)
class Offers:
    """All that plug-ins offer, by name; `broken` says why one of them does not load."""

    families: dict[str, FamilySpec] = field(default_factory=dict)
    sources: dict[str, Source] = field(default_factory=dict)
    losses: dict[str, LossFunction] = field(default_factory=dict)
    metrics: dict[str, Metric] = field(default_factory=dict)
    figures: dict[str, Any] = field(default_factory=dict)
    broken: dict[str, str] = field(default_factory=dict)


_KINDS: Mapping[str, type | None] = {
    "families": FamilySpec,
    "sources": Source,
    "losses": LossFunction,
    "metrics": Metric,
    "figures": None,
}
_named: dict[str, ModuleType] = {}  # modules and files that recipes of this process named
_found: Offers | None = None


def offers() -> Offers:
    """Return what installed packages, recipes of this process and `HFVLA_PLUGINS` offer; loaded once."""
    global _found
    if _found is None:
        _found = Offers()
        installed = entry_points()  # reads every package's metadata: once
        for group in GROUPS:
            for entry in installed.select(group=f"hfvla.{group}"):
                _take(_found, group, entry.name, f"entry point {entry.value}", _loader(entry, group))
        for name in filter(None, os.environ.get(VARIABLE, "").split(",")):
            try:
                _named.setdefault(name, _load_module(name.strip(), Path.cwd()))
            except HfvlaError as error:
                _report(_found, name, error)
        for name, module in _named.items():
            _take_module(_found, name, module)
    return _found


def use_plugins(names: Iterable[str], folder: str | Path) -> None:
    """Load the modules and files that a recipe names; twice is once.

    Args:
        names: "package.module", or a file "terms.py" relative to `folder`.
        folder: the recipe's.

    Raises:
        RecipeError: there is no such module or file, or it does not load.
    """
    global _found
    for name in names:
        key = str(_file(name, Path(folder)) or name)
        if key not in _named:
            _named[key] = _load_module(name, Path(folder))
            _found = None


def _file(name: str, folder: Path) -> Path | None:
    return (folder / Path(name).expanduser()).resolve() if name.endswith(".py") else None


def _load_module(name: str, folder: Path) -> ModuleType:
    file = _file(name, folder)
    try:
        if file is None:
            return importlib.import_module(name)
        known = f"hfvla_plugin_{file.stem}_{hashlib.sha256(str(file).encode()).hexdigest()[:8]}"
        spec = importlib.util.spec_from_file_location(known, file)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[known] = module  # its classes and functions are found by name, also in data loader workers
        spec.loader.exec_module(module)
    except Exception as error:
        fix = f"Check the path; it is looked for in {folder}." if file is not None else "Is it installed?"
        raise RecipeError(
            "a plug-in does not load", where="plugins", got=f"{name}: {type(error).__name__}: {error}", fix=fix
        ) from error
    return module


def _loader(entry: EntryPoint, group: str) -> Any:
    def load() -> Any:
        found = entry.load()
        return found.FAMILY if group == "families" and isinstance(found, ModuleType) else found

    return load


def _take_module(into: Offers, name: str, module: ModuleType) -> None:
    family = getattr(module, "FAMILY", None)
    if family is not None:
        _take(into, "families", getattr(family, "name", name), name, lambda: family)
    for group in GROUPS[1:]:
        for key, value in dict(getattr(module, group.upper(), {})).items():
            _take(into, group, key, name, lambda value=value: value)


def _take(into: Offers, group: str, name: str, where: str, load: Any) -> None:
    try:
        found = load()
        kind = _KINDS[group]
        if kind is None and not callable(found) or kind is not None and not isinstance(found, kind):
            raise TypeError(f"{type(found).__name__}, expected {'a function' if kind is None else kind.__name__}")
    except Exception as error:  # whatever a foreign package raises
        _report(into, f"{name} ({where})", error)
        return
    getattr(into, group)[found.name if isinstance(found, FamilySpec) else name] = found


def _report(into: Offers, name: str, error: Exception) -> None:
    into.broken[name] = f"{type(error).__name__}: {error}"
    logger.warning("the plug-in %s is left out: %s", name, into.broken[name])

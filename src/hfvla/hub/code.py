"""A family's code beside its weights, for people without hfvla (`trust_remote_code` of transformers).

transformers' `register_for_auto_class` copies a module and what lies in the same folder; a family's lie in rooms.
So the modules that config, model and processor import, and what those import, are written flat: `hfvla.losses.text`
becomes `hfvla_losses_text.py`, and imports say so. hfvla itself never runs such code: it has its own.
"""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Iterator, Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from hfvla import __version__
from hfvla.errors import CheckpointError
from hfvla.family import FamilySpec
from hfvla.loading import read_object
from hfvla.sealing import MANIFEST, resealed

__all__ = ["files_with_code", "write_code"]

_ENTRIES = {"config": ("config.json", "AutoConfig"), "model": ("config.json", "AutoModel"),
            "processor": ("processor_config.json", "AutoProcessor")}  # fmt: skip


def files_with_code(spec: FamilySpec, files: Mapping[str, Path], made: Path) -> dict[str, Path]:
    """Return a checkpoint's files with the family's code among them, and configs that name it.

    Args:
        spec: the family.
        files: of the checkpoint, by name.
        made: folder that is there, for what is new or changed.

    Raises:
        CheckpointError: the family has no code of its own, or code that cannot be copied; a config is missing.
    """
    maps = write_code(spec, made)
    changed = {path.name: path for path in made.glob("*.py")}
    for name, entries in maps.items():
        if name not in files:
            raise CheckpointError("code goes with a whole checkpoint", where=name, got="no such file")
        content = {**read_object(files[name]), "auto_map": entries}
        (made / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        changed[name] = made / name
    if MANIFEST in files:
        content = resealed(read_object(files[MANIFEST]), changed)
        (made / MANIFEST).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        changed[MANIFEST] = made / MANIFEST
    return {**files, **changed}


def write_code(spec: FamilySpec, folder: Path) -> dict[str, dict[str, str]]:
    """Write the modules of a family's config, model and processor, and all they import of hfvla, into one folder.

    Args:
        spec: the family.
        folder: exists.

    Returns:
        `dict`: by the name of a config file its `auto_map`: "module.Class" by Auto class.

    Raises:
        CheckpointError: the family has no code of its own, or a module has no source.
    """
    if spec.plain:
        raise CheckpointError(
            "models of this family are transformers' own: they need no code", got=spec.name, fix="Leave out `code`."
        )
    maps: dict[str, dict[str, str]] = {}
    left: list[str] = []
    for hook, (file, auto) in _ENTRIES.items():
        module, _, name = str(spec.path(hook)).partition(":")
        maps.setdefault(file, {})[auto] = f"{_flat(module, spec)}.{name}"
        left.append(module)
    own, done = ("hfvla", spec.package.partition(".")[0]), set()
    while left:
        module = left.pop()
        if module in done:
            continue
        done.add(module)
        text, needed = _rewritten(_source(module), module, spec, own)
        head = f"# Copied from hfvla {__version__} ({module}) and made flat: change it there.\n"
        (folder / f"{_flat(module, spec)}.py").write_text(head + text, encoding="utf-8")
        left += needed
    return maps


def _flat(module: str, spec: FamilySpec) -> str:
    """Return the name of a module in the flat folder; the family's own keep theirs."""
    inside = module.removeprefix(f"{spec.package}.")
    return (
        inside if inside != module and "." not in inside and inside.endswith(spec.name) else module.replace(".", "_")
    )


def _source(module: str) -> str:
    found = find_spec(module)
    if found is None or not found.origin or not found.origin.endswith(".py"):
        raise CheckpointError("this module has no source to copy", where=module, got=found and found.origin)
    return Path(found.origin).read_text(encoding="utf-8")


def _rewritten(source: str, module: str, spec: FamilySpec, own: tuple[str, ...]) -> tuple[str, list[str]]:
    """Return the text of a module with flat imports, and the modules that it imports of ours."""
    lines, needed = source.splitlines(), []
    # Lines are put in place from the end, so that the numbers of those before stay true.
    for node, inner in sorted(_imports(ast.parse(source)), key=lambda one: -one[0].lineno):
        pad = " " * node.col_offset
        if isinstance(node, ast.If):  # names for annotations, which nobody evaluates; `else` is what runs
            kept = lines[node.orelse[0].lineno - 1 : node.end_lineno] if node.orelse else []
            new = ["if True:", *(line[len(pad) :] for line in kept)] if kept else []
        elif _is_own(node, own):
            new, more = _flat_import(node, module, spec)
            needed += more
        elif inner:  # transformers wants installed what it reads outside of `try`, needed or not
            text = lines[node.lineno - 1 : node.end_lineno]
            new = ["try:", *(f"    {line[len(pad) :]}" for line in text), "except ImportError:", "    raise"]
        else:
            continue
        lines[node.lineno - 1 : node.end_lineno] = [pad + line for line in new]
    return "\n".join(lines) + "\n", needed


def _imports(tree: ast.AST, inner: bool = False) -> Iterator[tuple[Any, bool]]:
    """Yield import statements and blocks for type checkers; whether they lie in a function."""
    for node in ast.iter_child_nodes(tree):
        types = isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        if types or isinstance(node, ast.Import | ast.ImportFrom):
            yield node, inner
        elif not isinstance(node, ast.Try):
            yield from _imports(node, inner or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))
        else:
            yield from ((one, False) for one, _ in _imports(ast.Module(node.body, []), inner))


def _is_own(node: ast.Import | ast.ImportFrom, own: tuple[str, ...]) -> bool:
    if isinstance(node, ast.ImportFrom):
        return bool(node.level) or str(node.module).partition(".")[0] in own
    return any(one.name.partition(".")[0] in own for one in node.names)


def _flat_import(node: ast.Import | ast.ImportFrom, module: str, spec: FamilySpec) -> tuple[list[str], list[str]]:
    """Return lines that import the same names from flat modules, and those modules.

    Raises:
        CheckpointError: a whole package is imported by its dotted name.
    """
    if isinstance(node, ast.Import):
        raise CheckpointError("only `from ... import` can be made flat", where=f"{module}, line {node.lineno}")
    source = str(node.module)
    if node.level:
        here = module.split(".") if _is_package(module) else module.split(".")[:-1]
        source = ".".join([*here[: len(here) + 1 - node.level], *([node.module] if node.module else [])])
    lines, needed = [], []
    for one in node.names:
        under = f"{source}.{one.name}"
        if _is_package(source) and find_spec(under) is not None:
            # The first of the two lines is what transformers reads to find the file.
            lines += [f"from .{_flat(under, spec)} import __name__ as _"]
            lines += [f"from . import {_flat(under, spec)} as {one.asname or one.name}"]
            needed.append(under)
        else:
            name = one.name if one.asname is None else f"{one.name} as {one.asname}"
            lines.append(f"from .{_flat(source, spec)} import {name}")
            needed.append(source)
    return lines, needed


def _is_package(module: str) -> bool:
    found = sys.modules.get(module) or find_spec(module)
    return getattr(found, "submodule_search_locations", None) is not None or hasattr(found, "__path__")

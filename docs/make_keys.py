"""Write docs/keys.md, every key that a recipe may have with its default and meaning: `python docs/make_keys.py`.

The page is made from the classes that check the keys, so that none is missing; `tests/test_docs.py` says when this was
forgotten, or when a key has no meaning written beside it.
"""

from __future__ import annotations

import importlib
import inspect
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from hfvla.family import FamilySpec
from hfvla.nn.action_experts import ACTION_EXPERTS
from hfvla.recipe import Recipe
from hfvla.registry import available_families

PAGE = Path(__file__).resolve().parent / "keys.md"
OURS = ("ember_vlm", "internvl_retrieval", "internvl_video_qa", "sensor_vla", "chat_vlm")
"""Families of this package: a plug-in that is installed changes no page."""

HEAD = """# Every key

What a recipe may say, by section, with its default ("needed" where there is none). [Recipes](recipes.md) explains how
the sections work together, the families' pages what their keys are for; `hfvla schema` prints the same for an editor.
Keys of `args` are [TrainingArguments](https://huggingface.co/docs/transformers/main_classes/trainer), but for what the
library sets itself.

(This page is made by `python docs/make_keys.py`.)
"""
_ENTRY = re.compile(r"^    ((?:\*{0,2}\w+(?:, )?)+)(?: \(([^:]*)\))?: (.*)$")


def meanings(kind: type) -> dict[str, str]:
    """Return what the docstrings of a class and its bases say of each key ("Args:" or "Attributes:")."""
    found: dict[str, str] = {}
    for base in reversed(kind.__mro__):
        lines = inspect.cleandoc(base.__dict__.get("__doc__") or "").splitlines()
        inside, names = False, []
        for line in lines:
            if re.match(r"\S", line):
                inside, names = line in ("Args:", "Attributes:"), []
            elif inside and (entry := _ENTRY.match(line)):
                names = [name.strip() for name in entry[1].split(",")]
                found |= dict.fromkeys(names, entry[3])
            elif inside and line.strip():
                for name in names:
                    found[name] += f" {line.strip()}"
    return found


def _shown(value: Any) -> str:
    if value is PydanticUndefined:
        return "needed"
    if isinstance(value, BaseModel) or (isinstance(value, Mapping) and len(str(value)) > 40):
        return "below" if isinstance(value, BaseModel) else "see its meaning"
    if value is None:
        return "none"
    text = {True: "true", False: "false"}.get(value, str(value)) if isinstance(value, bool) else str(value)
    return f"`{text}`" if text else '`""`'


def table(rows: list[tuple[str, Any, str]]) -> str:
    """Return rows of (key, default, meaning) as a table.

    Raises:
        ValueError: a key has no meaning.
    """
    bare = [key for key, _, meaning in rows if not meaning]
    if bare:
        raise ValueError(f"no meaning is written beside {', '.join(bare)}")
    cells = []
    for key, value, meaning in rows:
        meaning = re.sub(r"see `[A-Z_]+`", "its keys stand below", meaning).replace("|", "\\|")
        spans = meaning.split("`")  # what stands between the marks is code, which Markdown leaves as it is
        spans[::2] = [span.replace("<", "&lt;") for span in spans[::2]]
        meaning = "`".join(spans)
        cells.append(f"| `{key}` | {_shown(value)} | {meaning} |")
    return "\n".join(["| key | default | meaning |", "|---|---|---|", *cells])


def fields(kind: type[BaseModel]) -> list[tuple[str, Any, str]]:
    """Return key, default and meaning of the fields of a pydantic model."""
    told = meanings(kind)
    found = []
    for name, field in kind.model_fields.items():
        default = field.get_default(call_default_factory=True)
        found.append((field.alias or name, default, field.description or told.get(name, "")))
    return found


def _sections(kind: type[BaseModel], seen: set[type]) -> Iterator[type[BaseModel]]:
    """Yield the sections inside a section, each once, in the order in which they stand."""
    inside = [part for field in kind.model_fields.values() for part in _models(field.annotation)]
    for part in inside:
        if part not in seen:
            seen.add(part)
            yield part
            yield from _sections(part, seen)


def _models(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in getattr(annotation, "__args__", ()):
        yield from _models(part)


def _config(spec: FamilySpec) -> str:
    """Return the keys of `model.config`, those of plain mappings inside it too."""
    kind = spec.load("config")
    told, rows = meanings(kind), []
    default = kind()
    for name in kind.__annotations__:
        if not name.endswith("_token_id") and name not in ("letter_token_ids", "tie_word_embeddings", "nested_keys"):
            rows.append((name, getattr(kind, name, None), told.get(name, "")))
            inside = getattr(kind, "nested_keys", {}).get(name, {})
            for key, value in ({} if callable(inside) else inside).items():
                held = getattr(default, name)
                rows.append((f"{name}.{key}", held.get(key, value) if held else value, f"part of `{name}`"))
    text = f"### `model.config`\n\n{table(rows)}\n"
    if "expert" in told:
        text += "".join(_expert(name) for name in ACTION_EXPERTS)
    return text


def _expert(name: str) -> str:
    kind, rows = ACTION_EXPERTS[name], []
    told = meanings(kind)
    for base in (base for base in kind.__mro__ if base.__module__.startswith("hfvla.")):
        for key, parameter in inspect.signature(base.__init__).parameters.items():
            known = key in ("feature_width", "action_dim", "horizon") or key in {row[0] for row in rows}
            if parameter.default is not inspect.Parameter.empty and not known and key in told:
                rows.append((key, parameter.default, told[key]))
    return f"\n`model.config.expert` of kind `{name}`:\n\n{table(rows)}\n" if rows else ""


def _class(path: str) -> type[BaseModel]:
    module, _, name = path.partition(":")
    kind: type[BaseModel] = getattr(importlib.import_module(module), name)
    return kind


def page() -> str:
    """Return the text of docs/keys.md."""
    parts = [HEAD, f"## A recipe\n\n{table(fields(Recipe))}\n"]
    for kind in _sections(Recipe, {Recipe}):
        summary = inspect.cleandoc(kind.__doc__ or "").partition("\n")[0]
        parts.append(f"### {kind.__name__}\n\n{summary}\n\n{table(fields(kind))}\n")
    families = {name: spec for name, spec in available_families().items() if name in OURS}
    sources: dict[str, tuple[list[str], list[str], str]] = {}
    for name in OURS:
        spec = families[name]
        parts.append(f"## {name}\n\n{spec.summary}\n")
        if not spec.plain:
            parts.append(_config(spec))
        if spec.model_options:
            options = _class(spec.model_options)
            parts.append(f"### `model.options`\n\n{table(fields(options))}\n")
            for kind in _sections(options, {options}):
                parts.append(f"`{kind.__name__}`:\n\n{table(fields(kind))}\n")
        for source, what in spec.sources.items():
            users, names, _ = sources.setdefault(what.options, ([], [], what.description))
            users.append(name)
            names += [source] if source not in names else []
    where = "A source stands under `data.train`, `data.eval` or a stage's `data`, beside its `source:`."
    parts.append(f"## Sources\n\n{where}\n")
    for path, (users, names, description) in sources.items():
        title = ", ".join(f"`{name}`" for name in names)
        said = f"{description} (for {', '.join(dict.fromkeys(users))})"
        parts.append(f"### {title}\n\n{said}\n\n{table(fields(_class(path)))}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), "utf-8")
    print(PAGE)

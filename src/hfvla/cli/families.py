"""The model families as plain data, for `hfvla families`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hfvla.family import FamilySpec, resolve

__all__ = ["describe_families"]


def describe_families(families: Mapping[str, FamilySpec] | None = None) -> dict[str, dict[str, Any]]:
    """Return groups, losses, sources with their options, `keep_best` metrics and the request's schema, by family.

    Args:
        families: by name; default: all of `hfvla.registry`.
    """
    if families is None:
        from hfvla.registry import available_families

        families = available_families()
    return {name: _describe(spec) for name, spec in families.items()}


def _describe(spec: FamilySpec) -> dict[str, Any]:
    groups = {name: {"layers": bool(g.layers), "description": g.description} for name, g in spec.groups.items()}
    sources = {
        name: {"description": source.description, "options": _options(source.options)}
        for name, source in spec.sources.items()
    }
    metrics = [*spec.metric_names, "loss", *(f"loss_{term}" for term in spec.losses)]
    return {
        "summary": spec.summary,
        "groups": groups,
        "losses": dict(spec.losses),
        "sources": sources,
        "keep_best": [f"eval_{metric}" for metric in metrics],
        "request": None if spec.request is None else spec.request.schema(),
    }


def _options(path: str) -> dict[str, Any]:
    """Return what a source's options model accepts: default (or None) and description by option."""
    return {
        field.alias or name: {
            "required": field.is_required(),
            "default": None if field.is_required() else field.get_default(call_default_factory=True),
            "description": field.description or "",
        }
        for name, field in resolve(path).model_fields.items()
    }

"""From the fields of a family's request to what is filled in on a page, and back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hfvla.errors import DataError
from hfvla.family import Request, RequestField

__all__ = ["form_of", "request_of"]

_LOCAL = ("folder", "output")  # named by who starts the page, not by who visits it


def shown_fields(request: Request) -> list[RequestField]:
    """Return the fields that a visitor fills in."""
    return [field for field in request.fields if field.kind not in _LOCAL]


def form_of(gradio: Any, request: Request, names: Sequence[str] = ()) -> list[Any]:
    """Return a component for each field, made where they are to stand.

    Args:
        gradio: the library.
        request: what the family can be asked.
        names: of a named field's values, e.g. the cameras.
    """
    return [part for field in shown_fields(request) for part in _components(gradio, field, request, names)]


def _components(gradio: Any, field: RequestField, request: Request, names: Sequence[str]) -> list[Any]:
    example = request.example.get(field.name)
    label = {"label": field.name.replace("_", " "), "elem_id": f"field-{field.name}"}
    hint = field.help + ("" if field.required else " (may be empty)")
    if field.kind == "picture" and field.named:
        return [
            gradio.Image(label=f"{label['label']}: {name}", type="filepath", elem_id=f"field-{field.name}-{name}")
            for name in names
        ]
    if field.kind == "picture" and field.repeated:
        return [gradio.File(**label, file_count="multiple", file_types=["image"], type="filepath")]
    if field.kind == "picture":
        return [gradio.Image(**label, type="filepath", sources=["upload", "clipboard"])]
    if field.kind == "video":
        return [gradio.Video(**label)]
    if field.kind == "switch":
        return [gradio.Checkbox(**label, info=field.help, value=bool(field.default))]
    if field.kind in ("integer", "number"):
        value = example if example is not None else field.default
        if value is None:  # an empty Number arrives as 0
            return [gradio.Textbox(**label, info=hint, value="")]
        return [gradio.Number(**label, info=hint, value=value, precision=0 if field.kind == "integer" else None)]
    if field.choices:
        return [gradio.Dropdown(**label, info=hint, choices=list(field.choices), value=field.default)]
    if field.repeated or field.kind in ("numbers", "data"):
        parted = {"numbers": ", ", "data": ""}.get(field.kind, "\n")
        hint += "; one a line" if field.repeated else "; numbers with commas" if parted else "; JSON"
        text = parted.join(map(str, example)) if isinstance(example, list | tuple) else ""
        return [gradio.Textbox(**label, info=hint, lines=2 if field.kind != "numbers" else 1, value=text)]
    return [gradio.Textbox(**label, info=hint, value=example if example is not None else field.default)]


def request_of(request: Request, values: Sequence[Any], names: Sequence[str] = ()) -> dict[str, Any]:
    """Return the checked request that the values of `form_of`'s components make.

    Raises:
        DataError: a value is missing, or cannot be used.
    """
    left, given = iter(values), {}
    for field in shown_fields(request):
        if field.kind == "picture" and field.named:
            found = {name: next(left) for name in names}
            value: Any = {name: path for name, path in found.items() if path} or None
        else:
            value = _value(field, next(left))
        if value is not None:
            given[field.name] = value
    return request.check(given)


def _value(field: RequestField, value: Any) -> Any:
    if value is None or value in ("", []):
        return None
    if field.kind == "picture" and field.repeated:
        return [str(path) for path in value]
    if field.kind in ("integer", "number"):
        try:
            return int(value) if field.kind == "integer" else float(value)
        except ValueError:
            raise DataError("not a number", where=field.name, got=value) from None
    if field.kind in ("numbers", "data"):
        import json

        text = value.strip()
        try:
            return json.loads(text if text[:1] in ("[", "{") else f"[{text}]")
        except (ValueError, RecursionError) as error:
            raise DataError("not JSON, nor numbers with commas", where=field.name, got=str(error)) from None
    if field.repeated:
        return [line.strip() for line in value.splitlines() if line.strip()]
    return value

"""What OpenAPI says of the endpoints: bodies as JSON and as forms, with examples that can be sent."""

from __future__ import annotations

import base64
import io
from functools import lru_cache
from typing import Any

from hfvla.family import Request, RequestField

__all__ = ["CHAT_BODY", "SEARCH_BODY", "answers", "ask_body", "example_of"]


@lru_cache(maxsize=1)
def _example_picture() -> str:
    """Return a picture of 8 x 8 pixels as a data URI."""
    from PIL import Image

    file = io.BytesIO()
    Image.new("RGB", (8, 8), (90, 120, 90)).save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def example_of(field: RequestField) -> Any:
    """Return a value that the field takes."""
    if field.default is not None:
        return field.default
    if field.kind == "picture":
        one: Any = _example_picture()
    elif field.kind == "video":
        one = "data:video/mp4;base64,AAAA"
    elif field.kind in ("numbers", "data"):
        return [0.0, 0.0]
    elif field.kind in ("integer", "number"):
        one = int(field.least or 1)
    else:
        one = field.choices[0] if field.choices else field.help
    if field.named:
        return {"front": one}
    return [one] * max(2, field.count[0]) if field.repeated else one


def ask_body(request: Request) -> dict[str, Any]:
    """Return the `requestBody` of a family's endpoint."""
    schema = request.schema()
    properties = {}
    for field in request.fields:
        found = dict(schema["properties"][field.name])
        if field.kind in ("picture", "video"):
            found = _as_base64(found, field.kind)
        properties[field.name] = found
    schema = {**schema, "properties": properties}
    required = [field.name for field in request.fields if field.required]
    example = getattr(request, "example", None) or {}
    shown = {field.name: example.get(field.name, example_of(field)) for field in request.fields
             if field.required or field.kind == "picture" or field.name in example}  # fmt: skip
    parts = {field.name: _as_part(properties[field.name], field) for field in request.fields}
    form = {"type": "object", "properties": parts, "required": required}
    content = {
        "application/json": {"schema": schema, "examples": {"a request": {"value": shown}}},
        "multipart/form-data": {"schema": form},
    }
    return {"requestBody": {"required": True, "content": content}}


def _as_base64(schema: dict[str, Any], kind: str) -> dict[str, Any]:
    """Return a schema whose files are base64 or data URIs, not paths."""
    if "items" in schema:
        return {**schema, "items": _as_base64(schema["items"], kind)}
    if isinstance(schema.get("additionalProperties"), dict):
        return {**schema, "additionalProperties": _as_base64(schema["additionalProperties"], kind)}
    media = "image/*" if kind == "picture" else "video/*"
    kept = {name: value for name, value in schema.items() if name != "format"}
    return {**kept, "contentEncoding": "base64", "contentMediaType": media}


def _as_part(schema: dict[str, Any], field: RequestField) -> dict[str, Any]:
    """Return a field as a part of a form: files as they are, other values as texts."""
    if field.kind not in ("picture", "video"):
        return schema
    file = {"type": "string", "format": "binary"}
    if field.named:
        return {"description": f"{field.help}; one part a name: {field.name}[NAME]", **file}
    return {"type": "array", "items": file, "description": field.help} if field.repeated else {
        "description": field.help, **file}  # fmt: skip


def answers(example: Any = None) -> dict[int | str, dict[str, Any]]:
    """Return the answers of an endpoint: one that is right, and the refusals that all have."""
    error = {"error": {"type": "DataError", "message": "image: picture cannot be read; got 'broken PNG file'",
                       "what": "picture cannot be read", "where": "image", "request_id": "5f2b"}}  # fmt: skip
    told = {"application/json": {"example": error}}
    found: dict[int | str, dict[str, Any]] = {
        400: {"description": "The body cannot be read.", "content": told},
        401: {"description": "The API key is wrong, or missing."},
        413: {"description": "Too large: bytes, pixels, letters or values."},
        422: {"description": "A field is missing, unknown or cannot be used.", "content": told},
        429: {"description": "Too much to do; `Retry-After` says in how many seconds there may be room."},
    }
    if example is not None:
        found[200] = {"description": "The answer.", "content": {"application/json": {"example": example}}}
    return found


SEARCH_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "properties": {
                        "text": {"type": "string", "minLength": 1, "description": "what is looked for"},
                        "top_k": {"type": "integer", "minimum": 1, "default": 5, "description": "pictures to list"},
                    },
                    "required": ["text"],
                    "additionalProperties": False,
                },
                "examples": {"a request": {"value": {"text": "a red car beside the tower", "top_k": 3}}},
            }
        },
    }
}

CHAT_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "description": "A chat completion as OpenAI's API has it.",
                    "properties": {
                        "model": {"type": "string"},
                        "messages": {"type": "array", "items": {"type": "object"}},
                        "max_tokens": {"type": "integer", "minimum": 1},
                        "temperature": {"type": "number", "minimum": 0, "maximum": 2},
                        "top_p": {"type": "number", "minimum": 0, "maximum": 1},
                        "stop": {"oneOf": [{"type": "string"}, {"type": "array", "items": {"type": "string"}}]},
                        "seed": {"type": "integer"},
                        "stream": {"type": "boolean", "default": False},
                    },
                    "required": ["messages"],
                },
                "examples": {
                    "a question about a picture": {
                        "value": {
                            "messages": [
                                {
                                    "role": "user",
                                    "content": [
                                        {
                                            "type": "image_url",
                                            "image_url": {"url": "data:image/png;base64,iVBORw0..."},
                                        },
                                        {"type": "text", "text": "What stands on the table?"},
                                    ],
                                }
                            ],
                            "max_tokens": 64,
                        }
                    }
                },
            }
        },
    }
}

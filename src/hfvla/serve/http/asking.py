"""From a body in JSON or as a form to the request that a family's `predict` takes.

Fields, kinds and checks are those of the family's `Request`. A picture or a clip comes as base64, as a data URI or as
a part of the form; a string is never taken for a path of this machine, so fields of folders and outputs do not exist
here.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Hashable, Mapping
from dataclasses import replace
from typing import Any

from hfvla.errors import DataError
from hfvla.family import Request, RequestField
from hfvla.serve.http.errors import RequestError
from hfvla.serve.http.limits import HttpLimits
from hfvla.serve.http.media import Held, Media, from_base64

__all__ = ["Asking", "lane_of", "over_http", "read_json"]

_FILES = ("picture", "video")
_LOCAL = ("folder", "output")  # kinds that name what lies on the server


def over_http(request: Request) -> Request:
    """Return the part of a family's request that a client on another machine can ask."""
    kept = {field.name for field in request.fields if field.kind not in _LOCAL}
    left = [tuple(name for name in group if name in kept) for group in request.one_of]
    single = {names[0] for names in left if len(names) == 1}
    fields = [replace(field, required=field.required or field.name in single) for field in request.fields]
    groups = tuple(names for names in left if len(names) > 1)
    return replace(request, fields=tuple(field for field in fields if field.name in kept), one_of=groups)


def lane_of(request: Request, asked: Mapping[str, Any]) -> Hashable:
    """Return what must agree for requests to be answered in one pass: the switches, which say what is computed."""
    return tuple((field.name, asked.get(field.name)) for field in request.fields if field.kind == "switch")


_DEEPEST = 64  # of lists and objects in one another


def read_json(body: bytes, limits: HttpLimits) -> dict[str, Any]:
    """Return the JSON object in a body.

    Raises:
        RequestError: not UTF-8, not JSON, no object, a key twice, or more values than are allowed.
    """
    values = body.count(b",") + body.count(b"[") + body.count(b"{")  # none of them is in base64
    if values > limits.numbers:
        raise RequestError("too many values", status=413, got=values, expected=f"at most {limits.numbers}")

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in found}) < len(found):
            raise ValueError("a key stands twice in an object")
        return dict(found)

    def constant(name: str) -> Any:
        raise ValueError(f"{name} is no number in JSON")

    try:
        content = json.loads(body.decode("utf-8"), object_pairs_hook=pairs, parse_constant=constant)
        _check_depth(content)  # Python 3.12 and later read deeper than what follows can go
    except (ValueError, RecursionError) as error:
        raise RequestError("the body is not JSON", got=str(error)[:200], expected="an object in JSON") from None
    if not isinstance(content, dict):
        raise RequestError("the body is no object", got=type(content).__name__, expected="an object in JSON")
    return content


def _check_depth(content: Any) -> None:
    """Refuse lists and objects in one another beyond what a request may need.

    Raises:
        ValueError: too deep.
    """
    level = [content]
    for _ in range(_DEEPEST):
        level = [
            part for value in level if isinstance(value, list | dict)
            for part in (value.values() if isinstance(value, dict) else value)
        ]  # fmt: skip
        if not level:
            return
    raise ValueError(f"lists and objects lie in one another, more than {_DEEPEST} deep")


class Asking:
    """Reads requests of one family.

    Args:
        request: what the family can be asked.
        limits: see there.
        media: decodes pictures.
    """

    def __init__(self, request: Request, limits: HttpLimits, media: Media) -> None:
        self.request, self._limits, self._media = over_http(request), limits, media

    async def read(self, http: Any, held: Held) -> dict[str, Any]:
        """Return the checked request in a body.

        Args:
            http: `fastapi.Request`.
            held: gets what the request holds until it is answered.

        Raises:
            RequestError: another content type, a body that cannot be read, or one that asks too much.
            DataError: a field that is unknown, missing, or of another kind.
        """
        kind = http.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind == "application/json":
            given = read_json(await http.body(), self._limits)
            self._check_letters(given, "")
            given = {name: await self._from_json(self.request.field(name), value, held)
                     for name, value in given.items()}  # fmt: skip
        elif kind == "multipart/form-data":
            given = await self._from_form(http, held)
        else:
            raise RequestError(
                "no such content type", status=415, got=kind or "none",
                expected="application/json or multipart/form-data",
            )  # fmt: skip
        return self.request.check(given)

    def _check_letters(self, value: Any, name: str) -> None:
        """Refuse long texts, wherever they stand; files are counted by their bytes."""
        if isinstance(value, str):
            if len(value) > self._limits.text_letters:
                raise RequestError(
                    "the text is too long", status=413, where=name, got=f"{len(value)} letters",
                    expected=f"at most {self._limits.text_letters}",
                )  # fmt: skip
        elif isinstance(value, Mapping):
            files = {field.name for field in self.request.fields if field.kind in _FILES} if not name else set()
            for key, part in value.items():
                self._check_letters(key, name or "a field's name")
                if key not in files:
                    self._check_letters(part, name or key)
        elif isinstance(value, list):
            for part in value:
                if isinstance(part, str | Mapping | list):
                    self._check_letters(part, name)

    async def _from_json(self, field: RequestField, value: Any, held: Held) -> Any:
        if field.kind not in _FILES or value is None:
            return value
        if field.named and isinstance(value, Mapping):
            return {name: await self._file(field, one, f"{field.name} {name}", held) for name, one in value.items()}
        if field.repeated and isinstance(value, list):
            return [await self._file(field, one, f"{field.name} {n}", held) for n, one in enumerate(value)]
        return await self._file(field, value, field.name, held)

    async def _file(self, field: RequestField, value: Any, where: str, held: Held) -> Any:
        """Return a picture, or the path of a file with the clip; other values are left for `check` to refuse."""
        if isinstance(value, str):
            value = from_base64(value, where)
        if not isinstance(value, bytes):
            raise DataError(f"not a {field.kind}", where=where, got=value, expected="base64, or a data URI")
        if field.kind == "video":
            return await self._media.clip(value, held)
        return await self._media.picture(value, where, held)

    async def _from_form(self, http: Any, held: Held) -> dict[str, Any]:
        """Return values from the parts of a form; a named field's are `field[name]`, a repeated one's stand often."""
        from starlette.exceptions import HTTPException

        logging.getLogger("python_multipart").setLevel(logging.CRITICAL)  # a broken form is told to who sent it
        sizes = {"max_files": self._limits.pictures + 1, "max_fields": 1000, "max_part_size": self._limits.body_bytes}
        parts: dict[str, list[tuple[str, Any]]] = {}
        try:
            async with http.form(**sizes) as form:
                for key, value in form.multi_items():
                    name, _, inner = key.partition("[")
                    content = value if isinstance(value, str) else await value.read()
                    parts.setdefault(name, []).append((inner.rstrip("]"), content))
        except HTTPException as error:
            raise RequestError("the form cannot be read", got=error.detail) from None
        except ValueError as error:  # the parser's own, which older Starlettes let through
            raise RequestError("the form cannot be read", got=str(error)[:200]) from None
        return {name: await self._from_parts(self.request.field(name), found, held) for name, found in parts.items()}

    async def _from_parts(self, field: RequestField, parts: list[tuple[str, Any]], held: Held) -> Any:
        if field.kind in _FILES:
            found = [(name, await self._file(field, part, f"{field.name} {name}".strip(), held))
                     for name, part in parts]  # fmt: skip
            if field.named:
                return dict(found)
            return [part for _, part in found] if field.repeated else _only(field, [part for _, part in found])
        texts = [_text(field, part) for _, part in parts]
        for text in texts:
            if field.kind not in ("numbers", "data"):
                self._check_letters(text, field.name)
        if field.kind in ("numbers", "data"):  # `parse` would also take the name of a file of this machine
            text = _only(field, texts).strip()
            wrapped = text if text[:1] in ("[", "{") else f"[{text}]"
            return read_json(b'{"v": ' + wrapped.encode() + b"}", self._limits)["v"]
        if field.named:
            return {name: text for (name, _), text in zip(parts, texts, strict=True)}
        if field.repeated and len(texts) == 1 and texts[0].lstrip().startswith("["):
            return read_json(b'{"v": ' + texts[0].encode() + b"}", self._limits)["v"]
        return self.request.parse({field.name: texts})[field.name]


def _text(field: RequestField, part: Any) -> str:
    if isinstance(part, bytes):
        raise RequestError("a file in place of a value", where=field.name, expected=field.kind)
    return part


def _only(field: RequestField, values: list[Any]) -> Any:
    if len(values) != 1:
        raise RequestError("one value", where=field.name, got=f"{len(values)} values")
    return values[0]

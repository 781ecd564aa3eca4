"""The values of a request's fields: from texts, and looked at before a model is loaded."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from hfvla.errors import DataError, did_you_mean
from hfvla.family.request_fields import RequestField
from hfvla.paths import expand_user

__all__ = ["check_value", "parse_text"]

_MOST_BYTES = 64 * 2**20  # of a file with a field's data
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")


def parse_text(field: RequestField, texts: Sequence[str]) -> Any:
    """Return the value of a field from its texts.

    Args:
        field: its description.
        texts: one, or several of a repeated or named field.

    Raises:
        DataError: a text is no such value, or there are several for a field of one.
    """
    if field.named:
        pairs = [_pair(text, field.flag) for text in texts]
        names = [name for name, _ in pairs]
        if len(set(names)) < len(names):
            raise DataError("a name stands twice", where=field.flag, got=", ".join(names))
        return {name: _one(field, text) for name, text in pairs}
    if field.repeated:
        split = [part for text in texts for part in (text.split(field.separator) if field.separator else [text])]
        return [_one(field, part.strip() if field.separator else part) for part in split]
    if len(texts) != 1:
        raise DataError("one value", where=field.flag, got=f"{len(texts)} values")
    return _one(field, texts[0])


def _pair(text: str, where: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals or not value:
        raise DataError("not a value with its name", where=where, got=text, expected="NAME=VALUE")
    return name, value


def _one(field: RequestField, text: str) -> Any:
    if field.kind in ("integer", "number"):
        try:
            return (int if field.kind == "integer" else float)(text)
        except ValueError:
            article = "an" if field.kind == "integer" else "a"
            raise DataError(f"not {article} {field.kind}", where=field.flag, got=text) from None
    if field.kind == "switch":
        if text.lower() not in (*_YES, *_NO):
            raise DataError("not a switch", where=field.flag, got=text, expected="true or false")
        return text.lower() in _YES
    if field.kind == "numbers":
        return _numbers(text, field.flag)
    if field.kind == "data":
        return _data(text, field.flag)
    return text


def _numbers(text: str, where: str) -> Any:
    if text.lstrip().startswith("[") or text.endswith((".json", ".npz")):
        return _data(text, where)
    try:
        return [float(part) for part in text.replace(",", " ").split()]
    except ValueError:
        raise DataError("not numbers", where=where, got=text, expected="e.g. 0.1,-0.2,3") from None


def _data(text: str, where: str) -> Any:
    """Return what a text says as JSON, or what is in the .json or .npz file that it names."""
    if not text.lstrip().startswith(("{", "[")):
        path = Path(expand_user(text))
        if not path.is_file() or path.stat().st_size > _MOST_BYTES:
            raise DataError(
                "neither JSON nor a file with it", where=where, got=text,
                expected=f"an object or a list, or a .json or .npz file of at most {_MOST_BYTES >> 20} MiB",
            )  # fmt: skip
        if path.suffix == ".npz":
            return _arrays(path, where)
        try:
            text = path.read_text(encoding="utf-8-sig")
        except (OSError, ValueError) as error:
            raise DataError("the file cannot be read", where=where, got=str(error)) from None
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DataError("not JSON", where=where, got=str(error)) from None


def _arrays(path: Path, where: str) -> dict[str, Any]:
    import zipfile

    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as arrays:
            if sum(info.file_size for info in arrays.zip.infolist()) > _MOST_BYTES:
                raise DataError("the arrays are too large", where=where, expected=f"{_MOST_BYTES >> 20} MiB at most")
            return {name: arrays[name].tolist() for name in arrays.files}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError("not a file of arrays", where=where, got=str(error)) from None


def check_value(field: RequestField, value: Any, where: str) -> Any:
    """Return a field's value, looked at; tuples become lists.

    Args:
        field: its description.
        value: as `RequestField` says.
        where: names the field in errors.

    Raises:
        DataError: another kind of value, a file that is not there, or a number out of its range.
    """
    if field.named:
        if not isinstance(value, Mapping):
            raise DataError("not values by name", where=where, got=value, expected="an object")
        found = {str(name): _check_one(field, one, f"{where} {name}") for name, one in value.items()}
        _check_count(field, len(found), where)
        return found
    if field.repeated:
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise DataError("not a list", where=where, got=value, expected="a list")
        _check_count(field, len(value), where)
        return [_check_one(field, one, where) for one in value]
    return _check_one(field, value, where)


def _check_count(field: RequestField, found: int, where: str) -> None:
    least, most = field.count
    if found < least or most is not None and found > most:
        upper = f"{least} or more" if most is None else f"{least} to {most}" if most > least else str(least)
        raise DataError(f"how many {field.name}", where=where, got=found, expected=upper)


def _check_one(field: RequestField, value: Any, where: str) -> Any:
    return _CHECKS[field.kind](field, value, where)


def _check_text(field: RequestField, value: Any, where: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise DataError("not a text, or an empty one", where=where, got=value, expected="words")
    if field.choices and value not in field.choices:
        raise DataError(f"no such choice. {did_you_mean(value, field.choices)}", where=where, got=value)
    return value


def _check_number(field: RequestField, value: Any, where: str) -> float:
    kinds = int if field.kind == "integer" else (int, float)
    if isinstance(value, bool) or not isinstance(value, kinds) or not math.isfinite(value):
        raise DataError(f"not {'an' if field.kind == 'integer' else 'a'} {field.kind}", where=where, got=value)
    if field.least is not None and value < field.least:
        raise DataError("the number is too small", where=where, got=value, expected=f"{field.least:g} or more")
    return value


def _check_switch(field: RequestField, value: Any, where: str) -> bool:
    if not isinstance(value, bool):
        raise DataError("not a switch", where=where, got=value, expected="true or false")
    return value


def _check_numbers(field: RequestField, value: Any, where: str) -> list[float]:
    value = value.tolist() if hasattr(value, "tolist") else value
    if not isinstance(value, list | tuple):
        raise DataError("not a list of numbers", where=where, got=value)
    for number in value:
        if isinstance(number, bool) or not isinstance(number, int | float) or not math.isfinite(number):
            raise DataError("not numbers", where=where, got=number, expected="finite numbers")
    return list(value)


def _check_file(field: RequestField, value: Any, where: str) -> Any:
    if not isinstance(value, str | os.PathLike):
        if isinstance(value, int | float | list | tuple | Mapping):
            raise DataError(f"not a {field.kind}", where=where, got=value, expected="a path")
        return value  # the picture itself: bytes, a PIL image
    path = expand_user(os.fspath(value))
    try:
        there = os.path.isdir(path) if field.kind == "folder" else field.kind == "output" or os.path.isfile(path)
    except ValueError:  # a null byte
        there = False
    if not there or not path:
        raise DataError(f"no such {field.kind}", where=where, got=path, fix="Check the path.")
    if field.suffixes and not path.lower().endswith(field.suffixes):
        raise DataError("no such format", where=where, got=path, expected=f"one of {', '.join(field.suffixes)}")
    return path


def _check_data(field: RequestField, value: Any, where: str) -> Any:
    if not isinstance(value, Mapping | list | tuple):
        raise DataError("not an object or a list", where=where, got=value)
    return value


_CHECKS: Mapping[str, Callable[[RequestField, Any, str], Any]] = {
    "text": _check_text,
    "integer": _check_number,
    "number": _check_number,
    "switch": _check_switch,
    "numbers": _check_numbers,
    "picture": _check_file,
    "video": _check_file,
    "folder": _check_file,
    "output": _check_file,
    "data": _check_data,
}

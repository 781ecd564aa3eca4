"""Pickles that hold nothing but data, read without unpickling: RefCOCO's `refs(unc).p`.

A pickle is a program, and unpickling runs it. Here its opcodes are read one by one, and those that build lists, dicts,
tuples, texts and numbers are followed; one that names a class or calls anything ends the reading.
"""

from __future__ import annotations

import pickletools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hfvla.errors import DataError

__all__ = ["read_pickled_data"]

_MARK = object()
_VALUES = frozenset(
    ("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT")
    + ("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8")
)
_CONSTANTS: dict[str, Any] = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY: dict[str, Callable[[], Any]] = {"EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_TUPLE": tuple}
_PASSED = frozenset(("PROTO", "FRAME", "STOP"))


def read_pickled_data(path: Path) -> Any:
    """Return what a pickle holds.

    Raises:
        DataError: unreadable or cut short, or anything but data in it.
    """
    stack: list[Any] = []
    memory: dict[int, Any] = {}
    try:
        with open(path, "rb") as file:
            for opcode, argument, place in pickletools.genops(file):
                if not _step(opcode.name, argument, stack, memory):
                    raise DataError(
                        "pickle that holds more than data, which is not run",
                        where=f"{path}, byte {place}",
                        got=f"{opcode.name} {argument!r}" if argument is not None else opcode.name,
                        expected="lists, dicts, texts and numbers",
                        fix="Take a release in JSON or Parquet.",
                    )
        return stack.pop()
    except OSError as error:
        raise DataError("file cannot be read", where=str(path), got=error.strerror or str(error)) from error
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise DataError("broken pickle", where=str(path), got=str(error), fix="Fetch the file anew.") from error


def _step(name: str, argument: Any, stack: list[Any], memory: dict[int, Any]) -> bool:
    """Do one opcode; return whether it is one that builds data."""
    if name in _VALUES:
        stack.append(argument)
    elif name in _CONSTANTS:
        stack.append(_CONSTANTS[name])
    elif name in _EMPTY:
        stack.append(_EMPTY[name]())
    elif name == "MARK":
        stack.append(_MARK)
    elif name in ("GET", "BINGET", "LONG_BINGET"):
        stack.append(memory[int(argument)])
    elif name in ("PUT", "BINPUT", "LONG_BINPUT"):
        memory[int(argument)] = stack[-1]
    elif name == "MEMOIZE":
        memory[len(memory)] = stack[-1]
    elif name in ("TUPLE1", "TUPLE2", "TUPLE3"):
        size = int(name[-1])
        stack[-size:] = [tuple(stack[-size:])]
    elif name == "APPEND":
        value = stack.pop()
        stack[-1].append(value)
    elif name == "SETITEM":
        value, key = stack.pop(), stack.pop()
        stack[-1][key] = value
    elif name in ("LIST", "TUPLE", "DICT", "APPENDS", "SETITEMS"):
        _gather(name, stack)
    else:
        return name in _PASSED
    return True


def _gather(name: str, stack: list[Any]) -> None:
    """Take what lies above the last mark together."""
    start = len(stack) - 1 - stack[::-1].index(_MARK)
    values = stack[start + 1 :]
    del stack[start:]
    pairs = zip(values[::2], values[1::2], strict=True) if name in ("DICT", "SETITEMS") else ()
    if name == "LIST":
        stack.append(values)
    elif name == "TUPLE":
        stack.append(tuple(values))
    elif name == "DICT":
        stack.append(dict(pairs))
    elif name == "APPENDS":
        stack[-1].extend(values)
    else:
        stack[-1].update(pairs)

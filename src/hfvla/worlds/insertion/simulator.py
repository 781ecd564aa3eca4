"""Imports the simulator, and decides which library draws its pictures."""

from __future__ import annotations

import ctypes.util
import importlib
import importlib.util
import os
from collections.abc import Callable, Mapping
from typing import Any

from hfvla.errors import HfvlaError, MissingExtraError

__all__ = ["choose_drawing", "drawing_error", "import_simulator"]

_DISABLED = "disabled"
_LIBRARIES = {"osmesa": "OSMesa", "egl": "EGL"}


def choose_drawing(
    environment: Mapping[str, str], find_library: Callable[[str], str | None] = ctypes.util.find_library
) -> str:
    """Return the value of MUJOCO_GL: what the user set, else the first library that the machine has.

    OSMesa comes first: in software it draws these small pictures faster than EGL.

    Args:
        environment: variables of the process.
        find_library: returns a library's file name, or None.
    """
    if environment.get("MUJOCO_GL"):
        return environment["MUJOCO_GL"]
    return next((value for value, library in _LIBRARIES.items() if find_library(library)), _DISABLED)


def import_simulator() -> tuple[Any, Any]:
    """Return the modules mujoco and metaworld; sets MUJOCO_GL where it is not set, which mujoco reads once.

    Raises:
        MissingExtraError: one of them is not installed.
        HfvlaError: MUJOCO_GL names a library that does not work here.
    """
    os.environ["MUJOCO_GL"] = choose_drawing(os.environ)
    for package in ("mujoco", "metaworld"):
        if importlib.util.find_spec(package) is None:
            raise MissingExtraError(package, "sim", "the insertion task")
    # OSMesa and EGL bring an LLVM of their own. Where it comes first, Triton's ends the process with a segmentation
    # fault, as soon as torch loads it (for an optimizer, say); the other way round both work.
    if importlib.util.find_spec("triton") is not None:
        importlib.import_module("triton")
    try:
        mujoco, metaworld = importlib.import_module("mujoco"), importlib.import_module("metaworld.env_dict")
    except (ImportError, AttributeError, RuntimeError, OSError) as error:
        raise drawing_error(error) from error
    return mujoco, metaworld


def drawing_error(cause: Exception | str) -> HfvlaError:
    """Return the error that says that no picture can be drawn, and what to install."""
    return HfvlaError(
        "pictures of the simulated robot cannot be drawn",
        where=f"MUJOCO_GL={os.environ.get('MUJOCO_GL', '')}",
        got=str(cause) or type(cause).__name__,
        expected="the library OSMesa or EGL",
        fix="Run make system-libs (Debian: apt install libosmesa6), then start again with MUJOCO_GL=osmesa or egl",
    )

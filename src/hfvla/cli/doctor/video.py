"""Video readers: which are installed, which really decode, and which one is used."""

from __future__ import annotations

import base64
import ctypes.util
import os
from collections.abc import Iterator

from hfvla.cli.doctor.check import Answer, Check, probe
from hfvla.cli.doctor.devices import has

__all__ = ["ORDER", "check_video", "probe_video"]

ORDER = ("av", "torchcodec", "decord")
"""Readers by module, in the order of `hfvla.data.video.backends.BACKENDS`. Without PyAV (av), which reads the table of
frames for the others too, no clip is read."""

_CHOICES = ("auto", "pyav", "torchcodec", "decord")


def probe_video() -> dict[str, Answer | None]:
    """Let each installed reader decode a clip that PyAV makes in memory; None where there was no clip to decode."""
    found: dict[str, Answer | None] = {}
    clip = b""
    if has("av"):
        made = probe("av")
        found["av"] = made
        clip = base64.b64decode(made.values.get("clip", ""))
    for name in ("decord", "torchcodec"):
        if has(name):
            found[name] = probe(name, data=clip) if clip else None
    return found


def check_video(readers: dict[str, Answer | None]) -> Iterator[Check]:
    """Say which reader is used (the first of `ORDER` that decodes), and what is wrong with the others."""
    libraries = ctypes.util.find_library("avcodec")
    usable = [name for name in ORDER if name in readers and _usable(name, readers[name], libraries)]
    if usable and usable[0] != ORDER[0]:
        found = f"{', '.join(usable)} without PyAV (av), which reads the table of frames for every reader"
        yield Check("video", "warn", found, 'pip install "hfvla[video]"')
    elif usable:
        untried = "" if readers[usable[0]] else " (not tried: PyAV makes the test clip)"
        others = f"; also {', '.join(usable[1:])}" if usable[1:] else ""
        chosen = os.environ.get("HFVLA_VIDEO_BACKEND") or "auto"
        named = f"; HFVLA_VIDEO_BACKEND={chosen} is used in its place" if chosen in _CHOICES[2:] else ""
        yield Check("video", "ok", f"{usable[0]} is used{untried}{others}{named}")
    elif readers:
        yield Check("video", "warn", f"no installed reader works: {', '.join(readers)}", 'pip install "hfvla[video]"')
    else:
        found = "no reader (decord, torchcodec, av); only recipes with video need one"
        yield Check("video", "info", found, 'pip install "hfvla[video]"')
    chosen = os.environ.get("HFVLA_VIDEO_BACKEND") or "auto"
    if chosen not in _CHOICES:
        yield Check("video", "warn", f"HFVLA_VIDEO_BACKEND={chosen} is none of {', '.join(_CHOICES)}", "unset it")
    for name, answer in readers.items():
        if answer is not None and answer.problem:
            fix = "make system-libs" if name == "torchcodec" else f"pip install --force-reinstall {name}"
            yield Check(f"video: {name}", "warn", answer.problem, f"{fix}, or uninstall it")
    if libraries:
        yield Check("FFmpeg libraries", "ok", libraries)
    elif "torchcodec" in readers:
        yield Check("FFmpeg libraries", "warn", "not found; torchcodec cannot work", "make system-libs")
    else:
        yield Check("FFmpeg libraries", "info", "not found; only torchcodec needs them", "make system-libs")


def _usable(name: str, answer: Answer | None, libraries: str | None) -> bool:
    if answer is None:
        return name != "torchcodec" or bool(libraries)
    return not answer.problem

"""What hfvla finds on this machine: versions, devices, optional packages, and how to fix what is missing."""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = ["REQUIREMENTS", "Check", "Requirement", "diagnose"]

HUB_TIMEOUT_S = 2.0
LOW_DISK_BYTES = 10e9


@dataclass(frozen=True)
class Check:
    """One finding.

    Args:
        name: what was looked at.
        status: "ok", "warn" (something optional is missing) or "fail" (hfvla cannot work).
        found: what is there.
        fix: what to do about it; "" when ok.
    """

    name: str
    status: str
    found: str
    fix: str = ""


@dataclass(frozen=True)
class Requirement:
    """A package hfvla uses.

    Args:
        package: name on the package index.
        lowest: lowest version that works.
        below: first version that is not supported; "" when open.
        reason: why not an earlier one.
        extra: extra of hfvla that installs it; "" when it is required.
    """

    package: str
    lowest: str
    below: str = ""
    reason: str = ""
    extra: str = ""


REQUIREMENTS = (
    Requirement("torch", "2.11"),
    Requirement("torchvision", "0.26"),
    Requirement("transformers", "5.17", "6"),
    Requirement("accelerate", "1.15", reason="earlier ones replay the first epoch's order after a resume"),
    Requirement("datasets", "4"),
    Requirement("peft", "0.18"),
    Requirement("timm", "1.0.20"),
    Requirement("evaluate", "0.4.6"),
    Requirement("deepspeed", "0.19", extra="deepspeed"),
)


def diagnose() -> list[Check]:
    """Look at this machine; takes some seconds, imports torch, and asks the hub for one header."""
    checks = [_python(), *(_package(requirement) for requirement in REQUIREMENTS), _image_operators()]
    checks += [
        *_devices(),
        _attention(),
        *_video(),
        _deepspeed_tools(),
        _hub(),
        *_disks(),
        _processors(),
        _rendering(),
    ]
    return checks


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3])


def _python() -> Check:
    found = platform.python_version()
    if _numbers(found) < (3, 11):
        return Check("Python", "fail", found, "hfvla needs Python 3.11 or newer: make venv PYTHON=python3.11")
    return Check("Python", "ok", found)


def _package(requirement: Requirement) -> Check:
    name = requirement.package
    wanted = f">={requirement.lowest}" + (f",<{requirement.below}" if requirement.below else "")
    target = f'"hfvla[{requirement.extra}]"' if requirement.extra else f'"{name}{wanted}"'
    fix, bad = f"pip install {target}", "warn" if requirement.extra else "fail"
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return Check(name, bad, "not installed", fix)
    low = _numbers(version) < _numbers(requirement.lowest)
    high = bool(requirement.below) and _numbers(version) >= _numbers(requirement.below)
    if low or high:
        reason = f": {requirement.reason}" if requirement.reason and low else ""
        return Check(name, bad, f"{version}, needs {wanted}{reason}", f'pip install "{name}{wanted}"')
    return Check(name, "ok", version)


def _image_operators() -> Check:
    """Run one compiled operator: a torchvision built for another torch imports well and fails here."""
    name, fix = "torchvision operators", 'reinstall both together: pip install --upgrade "torch>=2.15" torchvision'
    try:
        import torch
        from torchvision.ops import nms

        boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9]])
        kept = nms(boxes, torch.tensor([0.5, 0.9]), 0.5).tolist()
    except (ImportError, OSError, RuntimeError, AttributeError) as error:
        return Check(name, "fail", _first_line(error), fix)
    return Check(name, "ok", "nms runs") if kept == [1] else Check(name, "fail", f"nms kept {kept}, not [1]", fix)


def _first_line(error: BaseException) -> str:
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}"


def _devices() -> Iterator[Check]:
    try:
        import torch
    except (ImportError, OSError) as error:
        yield Check("GPU", "fail", _first_line(error), 'pip install "torch>=2.11"')
        return
    if not torch.cuda.is_available():
        driver = shutil.which("nvidia-smi") is not None
        found = "a driver, but torch sees no GPU" if driver else "none; training runs on the CPU"
        fix = "install a torch build for this driver (pytorch.org)" if driver else "tiny recipes need none: make demo"
        yield Check("GPU", "warn", found, fix)
        return
    for index in range(torch.cuda.device_count()):
        properties = torch.cuda.get_device_properties(index)
        bf16 = properties.major >= 8
        found = f"{properties.name}, {properties.total_memory / 1e9:.0f} GB, bf16 {'yes' if bf16 else 'no'}"
        fix = "" if bf16 else "train in fp16 or fp32: args.bf16=false"
        yield Check(f"GPU {index}", "ok" if bf16 else "warn", found, fix)


def _has(module: str) -> bool:
    return importlib.util.find_spec(module) is not None


def _attention() -> Check:
    flash = "flash_attn installed" if _has("flash_attn") else "flash_attn not installed (not needed)"
    return Check("attention", "ok", f"sdpa; {flash}") if _has("torch") else Check(
        "attention", "fail", "no torch", 'pip install "torch>=2.11"'
    )  # fmt: skip


def _video() -> Iterator[Check]:
    readers = [name for name in ("decord", "av", "torchcodec") if _has(name)]
    ffmpeg = ctypes.util.find_library("avcodec")
    usable = [name for name in readers if name != "torchcodec" or ffmpeg]
    if usable:
        others = f"; also {', '.join(usable[1:])}" if usable[1:] else ""
        yield Check("video", "ok", f"{usable[0]}{others}")
    else:
        yield Check("video", "warn", "no reader (decord, av, torchcodec)", 'pip install "hfvla[video]"')
    if ffmpeg:
        yield Check("FFmpeg libraries", "ok", ffmpeg)
    else:
        needed = (
            "not found; torchcodec cannot work" if "torchcodec" in readers else "not found; only torchcodec needs them"
        )
        yield Check("FFmpeg libraries", "warn", needed, "make system-libs")


def _deepspeed_tools() -> Check:
    tools = {"ninja": shutil.which("ninja"), "g++": shutil.which("g++")}
    missing = [name for name, path in tools.items() if not path]
    if missing:
        fix = 'pip install "hfvla[deepspeed]" brings ninja; g++ comes with the system (Debian: build-essential)'
        return Check("DeepSpeed compiler", "warn", f"missing: {', '.join(missing)}", fix)
    return Check("DeepSpeed compiler", "ok", "ninja, g++")


def _hub() -> Check:
    """Ask the hub for one header, and give up after `HUB_TIMEOUT_S`, name lookup included."""
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        return Check("hub", "ok", "switched off by HF_HUB_OFFLINE")
    endpoint = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    answers: list[str] = []

    def ask() -> None:
        try:
            request = urllib.request.Request(endpoint, method="HEAD")
            with urllib.request.urlopen(request, timeout=HUB_TIMEOUT_S):
                answers.append("")
        except urllib.error.HTTPError:
            answers.append("")  # an answer, whatever it says
        except (OSError, ValueError) as error:
            answers.append(_first_line(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT_S + 0.5)
    problem = answers[0] if answers else f"no answer in {HUB_TIMEOUT_S:g} s"
    if problem:
        fix = "work from local folders with HF_HUB_OFFLINE=1, or set HF_ENDPOINT to a mirror"
        return Check("hub", "warn", f"{endpoint} not reached ({problem})", fix)
    return Check("hub", "ok", endpoint)


def _disks() -> Iterator[Check]:
    home = os.environ.get("HF_HOME") or "~/.cache/huggingface"
    cache = os.environ.get("HF_HUB_CACHE") or os.path.join(home, "hub")
    for name, folder in (("disk here", Path.cwd()), ("disk of the hub cache", Path(cache).expanduser().absolute())):
        existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
        free = shutil.disk_usage(existing).free
        found = f"{free / 1e9:.0f} GB free in {folder}"
        if free < LOW_DISK_BYTES:
            fix = "make room: checkpoints of full recipes take gigabytes; HF_HOME moves the cache"
            yield Check(name, "warn", found, fix)
        else:
            yield Check(name, "ok", found)


def _processors() -> Check:
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS")
    found = f"{usable} usable; OMP_NUM_THREADS {threads or 'not set'}"
    if threads and threads.isdigit() and int(threads) > usable:
        return Check("CPU cores", "warn", found, f"more threads than cores is slow: export OMP_NUM_THREADS={usable}")
    return Check("CPU cores", "ok", found)


def _rendering() -> Check:
    libraries = [name for name in ("OSMesa", "EGL") if ctypes.util.find_library(name)]
    if not libraries:
        return Check("rendering", "warn", "neither OSMesa nor EGL", "make system-libs (only simulated robots need it)")
    return Check("rendering", "ok", ", ".join(libraries))

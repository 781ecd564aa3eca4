"""Hub, disks, shared memory and rendering."""

from __future__ import annotations

import ctypes.util
import os
import shutil
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from hfvla.cli.doctor.check import Check, first_line

__all__ = ["check_disks", "check_hub", "check_rendering", "check_shared_memory"]

HUB_TIMEOUT_S = 2.0
LOW_DISK_BYTES = 10e9
LOW_SHARED_BYTES = 1e9


def check_hub() -> Check:
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
            answers.append(first_line(error))

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    thread.join(HUB_TIMEOUT_S + 0.5)
    problem = answers[0] if answers else f"no answer in {HUB_TIMEOUT_S:g} s"
    if problem:
        fix = "work from local folders with HF_HUB_OFFLINE=1, or set HF_ENDPOINT to a mirror"
        return Check("hub", "warn", f"{endpoint} not reached ({problem})", fix)
    return Check("hub", "ok", endpoint)


def check_disks() -> Iterator[Check]:
    """Look for room where runs are written and where the hub's files are kept."""
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


def check_shared_memory(folder: str = "/dev/shm") -> Iterator[Check]:
    """Look for room that data loader workers and gloo share; containers give 64 MB by default."""
    if not os.path.isdir(folder):
        return
    total = shutil.disk_usage(folder).total
    found = f"{total / 1e9:.1f} GB in {folder}"
    if total < LOW_SHARED_BYTES:
        fix = "workers may die with a bus error: docker run --shm-size=8g, or args.dataloader_num_workers=0"
        yield Check("shared memory", "warn", found, fix)
    else:
        yield Check("shared memory", "ok", found)


def check_rendering() -> Check:
    """Look for a library that simulated robots can be drawn with."""
    libraries = [name for name in ("OSMesa", "EGL") if ctypes.util.find_library(name)]
    if not libraries:
        return Check("rendering", "info", "neither OSMesa nor EGL", "make system-libs (only simulated robots need it)")
    return Check("rendering", "ok", ", ".join(libraries))

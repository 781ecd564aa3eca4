"""run.json and the small JSON files of a stage: written to a temporary name, then renamed."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["environment", "read_json", "write_json"]

_PACKAGES = (
    "hfvla",
    "torch",
    "transformers",
    "accelerate",
    "datasets",
    "peft",
    "timm",
    "deepspeed",
    "tokenizers",
    "safetensors",
)


def write_json(path: Path, content: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    temporary.write_text(json.dumps(content, indent=2, default=str) + "\n", encoding="utf-8")
    temporary.replace(path)


def read_json(path: Path) -> Any | None:
    """Return the file's content, or None where there is no such file."""
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None


def environment() -> dict[str, Any]:
    """Return versions, hardware, command line and, in a git checkout, the commit."""
    import torch

    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    return {
        "versions": versions,
        "hardware": {"cpu": platform.machine(), "cores": os.cpu_count(), "gpus": gpus},
        "commit": _commit(),
        "command": sys.argv,
    }


def _commit() -> str | None:
    """Return the commit of the checkout that this package runs from, with "+changes" if it is dirty."""
    git = shutil.which("git")
    if git is None:
        return None
    folder = str(Path(__file__).parent)
    head = subprocess.run([git, "-C", folder, "rev-parse", "HEAD"], capture_output=True, text=True, check=False)
    if head.returncode:
        return None
    dirty = subprocess.run([git, "-C", folder, "status", "--porcelain"], capture_output=True, text=True, check=False)
    return head.stdout.strip() + ("+changes" if dirty.stdout.strip() else "")

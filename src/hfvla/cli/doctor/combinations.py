"""Combinations that install well and then do not work, or work differently from what they say."""

from __future__ import annotations

import importlib.metadata
import os
import re
from collections.abc import Iterator
from pathlib import Path

import yaml

from hfvla.cli.doctor.check import Check
from hfvla.cli.doctor.versions import numbers

__all__ = ["check_accelerate_config", "check_pairs", "check_resume", "check_trackers"]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def check_pairs() -> Iterator[Check]:
    """Compare torch with what the installed torchvision was published for."""
    torch, vision = _version("torch"), _version("torchvision")
    if not torch or not vision:
        return
    fix = 'reinstall both together: pip install --upgrade "torch>=2.15" torchvision'
    problems = []
    for line in importlib.metadata.requires("torchvision") or []:
        match = re.match(r"torch\s*\(?\s*(==|>=)\s*([\d.]+)", line)
        if match and (match[1] == "==" and numbers(match[2])[:2] != numbers(torch)[:2]):
            problems.append(f"torchvision {vision} was built for torch {match[2]}")
        elif match and match[1] == ">=" and numbers(torch) < numbers(match[2]):
            problems.append(f"torchvision {vision} needs torch >= {match[2]}")
    if numbers(torch) == (2, 13, 0):
        problems.append("torch 2.13.0 does not fit the index's torchvision (operator torchvision::nms does not exist)")
    found = f"torch {torch}, torchvision {vision}"
    if problems:
        yield Check("torch with torchvision", "warn", f"{found}: {'; '.join(problems)}", fix)
    else:
        yield Check("torch with torchvision", "ok", found)


def check_accelerate_config() -> Check:
    """Read Accelerate's default configuration: on a CPU it may start one process where it says two."""
    home = Path(os.environ.get("HF_HOME") or "~/.cache/huggingface").expanduser()
    files = [home / "accelerate" / f"default_config.{suffix}" for suffix in ("yaml", "json")]
    file = next((path for path in files if path.is_file()), None)
    known = "`accelerate launch --cpu --num_processes 2` starts ONE process"
    fix = "several processes on a CPU: torchrun --nproc_per_node 2 recipes/train.py RECIPE"
    if file is None:
        return Check("accelerate launch", "info", f"no default configuration; {known}", fix)
    settings = yaml.safe_load(file.read_text(encoding="utf-8")) or {}
    kind, processes = str(settings.get("distributed_type", "NO")), settings.get("num_processes", 1)
    if settings.get("use_cpu") and processes > 1 and kind in {"NO", "MULTI_CPU"}:
        found = f"{file} asks for {processes} processes on the CPU as {kind}, and gets ONE"
        return Check("accelerate launch", "warn", found, fix)
    return Check("accelerate launch", "ok", f"{file}: {kind}, {processes} process{'es' if processes != 1 else ''}")


def check_resume() -> Check:
    """Tell the setting that exact resume does not survive."""
    found = "exact; args.dataloader_persistent_workers: true is refused (workers would keep the first epoch)"
    return Check("resume", "info", found, "leave it out: false is the default")


def check_trackers() -> Iterator[Check]:
    """Say where a run's numbers go, and whether that needs a network."""
    if _version("tensorboard"):
        yield Check("tracking", "ok", "TensorBoard: tensorboard --logdir <output_dir>/logs")
    else:
        found = "no TensorBoard; numbers go to log_history.json only"
        yield Check("tracking", "info", found, 'pip install "hfvla[track]"')
    if _version("wandb") and not os.environ.get("WANDB_API_KEY") and not os.environ.get("WANDB_MODE"):
        found = "no WANDB_API_KEY and no WANDB_MODE: runs with report_to: wandb are kept offline"
        yield Check(
            "Weights & Biases", "info", found, "wandb login, or later: wandb sync <output_dir>/logs/<stage>/wandb/*"
        )

"""What benchmarks share: words of the command line, the machine in a result, and where the result goes."""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
from collections.abc import Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

__all__ = ["arguments", "cores", "cpu_name", "quartiles", "versions", "write_result"]


def arguments(script: str, description: str | None) -> argparse.ArgumentParser:
    """Return a parser that knows `--output`: results/<script>.json beside the script, unless it is given.

    Args:
        script: `__file__` of the benchmark.
        description: its docstring.
    """
    path = Path(script)
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output", type=Path, default=path.parent / "results" / f"{path.stem}.json")
    return parser


def write_result(path: Path, result: Mapping[str, Any]) -> None:
    """Write a result as JSON; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")


def cpu_name() -> str:
    """Return the processor's name as the system tells it."""
    file = Path("/proc/cpuinfo")
    lines = file.read_text().splitlines() if file.is_file() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())


def cores() -> int:
    """Return the cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def versions(*packages: str) -> dict[str, str]:
    """Return the version of each package, "not installed" where it is not."""
    found = {}
    for name in packages:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def quartiles(values: Sequence[float]) -> dict[str, Any]:
    """Return the median and the quartiles around it."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": round(median, 4), "quartiles": [round(low, 4), round(high, 4)]}

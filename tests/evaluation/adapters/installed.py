"""Other people's packages in environments of their own, which see this checkout as if it were installed there."""

import configparser
import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]


def python_of(variable: str, package: str) -> str:
    """The interpreter that a variable names, or skip."""
    python = os.environ.get(variable)
    if not python:
        pytest.skip(f"{variable} names no interpreter of an environment with {package}")
    return python


def run(python: str, arguments: list[str], folder: Path, **more: str) -> subprocess.CompletedProcess:
    """Run it with this checkout on its path, entry points included, as setup.cfg declares them."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    info = folder / "site" / "hfvla-0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: hfvla\nVersion: 0\n")
    groups = (f"[{group}]\n{names.strip()}\n" for group, names in setup["options.entry_points"].items())
    (info / "entry_points.txt").write_text("\n".join(groups))
    environment = {
        **os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(folder / "site")]), "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(folder / "home"), "OMP_NUM_THREADS": "1", **more,
    }  # fmt: skip
    command = [python, *arguments]
    done = subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=1800, check=False
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    print(done.stdout[-4000:] + done.stderr[-4000:])  # shown where the test fails
    return done

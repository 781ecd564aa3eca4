"""Python and the packages, against the versions that hfvla supports."""

from __future__ import annotations

import importlib.metadata
import platform
import re
from collections.abc import Iterator
from dataclasses import dataclass

from hfvla.cli.doctor.check import Check

__all__ = ["REQUIREMENTS", "Requirement", "check_extras", "check_package", "check_packages", "check_python", "numbers"]


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

    @property
    def wanted(self) -> str:
        """The range as pip writes it."""
        return f">={self.lowest}" + (f",<{self.below}" if self.below else "")


REQUIREMENTS = (
    Requirement("torch", "2.11"),
    Requirement("torchvision", "0.26"),
    Requirement("transformers", "5.20", "5.25", reason="the engine follows the Trainer of these versions"),
    Requirement("datasets", "4"),
    Requirement("accelerate", "1.15", reason="earlier ones replay the first epoch's order after a resume"),
    Requirement("peft", "0.18"),
    Requirement("timm", "1.0.20"),
    Requirement("evaluate", "0.4.6"),
    Requirement("safetensors", "0.5"),
    Requirement("huggingface_hub", "1"),
    Requirement("tokenizers", "0.22"),
    Requirement("pydantic", "2.8"),
    Requirement("pyyaml", "6"),
    Requirement("typer", "0.15"),
    Requirement("rich", "13.7"),
    Requirement("jinja2", "3.1.5"),
    Requirement("matplotlib", "3.9"),
    Requirement("scikit-learn", "1.5"),
    Requirement("scipy", "1.13"),
    Requirement("numpy", "2.0"),
    Requirement("pillow", "10.3"),
    Requirement("wrapt", "1.16"),
    Requirement("regex", "2023"),
    Requirement("deepspeed", "0.19", extra="deepspeed"),
    Requirement("ninja", "1.11", extra="deepspeed"),
    Requirement("decord", "0.6", extra="video"),
    Requirement("av", "14", extra="video"),
    Requirement("bitsandbytes", "0.45", extra="qlora"),
    Requirement("fastapi", "0.115.8", extra="serve"),
    Requirement("starlette", "0.44", extra="serve"),
    Requirement("uvicorn", "0.30", extra="serve"),
    Requirement("python-multipart", "0.0.18", extra="serve"),
    Requirement("prometheus_client", "0.20", extra="serve"),
    Requirement("websockets", "15", extra="serve"),
    Requirement("msgpack", "1.1", extra="serve"),
    Requirement("gradio", "6", reason="its components are those of version 6", extra="demo"),
    Requirement("onnx", "1.17", extra="export"),
    Requirement("onnxscript", "0.3", extra="export"),
    Requirement("onnxruntime", "1.24", extra="export"),
    Requirement("openvino", "2025", extra="export"),
    Requirement("torchao", "0.15", extra="export"),
    Requirement("faiss-cpu", "1.9", extra="index"),
    Requirement("diffusers", "0.36", extra="actions"),
    Requirement("h5py", "3.10", extra="actions"),
    Requirement("num2words", "0.5", extra="actions"),
    Requirement("sacrebleu", "2.4", extra="scoring"),
    Requirement("rouge-score", "0.1.2", extra="scoring"),
    Requirement("tensorboard", "2.18", extra="track"),
    Requirement("wandb", "0.18", extra="track"),
    Requirement("trackio", "0.2", extra="track"),
    Requirement("codecarbon", "2.8", extra="track"),
    Requirement("metaworld", "3", extra="sim"),
    Requirement("mujoco", "3.3", extra="sim"),
    Requirement("packaging", "24", extra="sim"),
)


def numbers(version: str) -> tuple[int, ...]:
    """Return (5, 17, 0) for "5.17.0+local"."""
    found = [int(part) for part in re.findall(r"\d+", version.split("+")[0])[:3]]
    return tuple(found + [0] * (3 - len(found)))


def check_python() -> Check:
    """Compare the interpreter with the lowest supported one."""
    found = platform.python_version()
    if numbers(found) < (3, 11, 0):
        return Check("Python", "fail", found, "hfvla needs Python 3.11 or newer: make venv PYTHON=python3.11")
    return Check("Python", "ok", found)


def check_package(requirement: Requirement) -> Check:
    """Compare one package with its range; a missing extra is no problem, a wrong version of one is a warning."""
    name, wanted = requirement.package, requirement.wanted
    try:
        version = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        target = f'"hfvla[{requirement.extra}]"' if requirement.extra else f'"{name}{wanted}"'
        return Check(name, "info" if requirement.extra else "fail", "not installed", f"pip install {target}")
    low = numbers(version) < numbers(requirement.lowest)
    high = bool(requirement.below) and numbers(version) >= numbers(requirement.below)
    if low or high:
        reason = f": {requirement.reason}" if requirement.reason else ""
        bad = "warn" if requirement.extra else "fail"
        return Check(name, bad, f"{version}, needs {wanted}{reason}", f'pip install "{name}{wanted}"')
    return Check(name, "ok", version)


def check_packages() -> Iterator[Check]:
    """Compare every required package."""
    for requirement in REQUIREMENTS:
        if not requirement.extra:
            yield check_package(requirement)


def check_extras() -> Iterator[Check]:
    """Return one line an extra: what of it is there, what is missing or too old."""
    for extra in dict.fromkeys(requirement.extra for requirement in REQUIREMENTS if requirement.extra):
        members = [requirement for requirement in REQUIREMENTS if requirement.extra == extra]
        found = [(requirement, check_package(requirement)) for requirement in members]
        there = [f"{requirement.package} {check.found}" for requirement, check in found if check.status != "info"]
        missing = [requirement.package for requirement, check in found if check.status == "info"]
        parts = [", ".join(there), f"not installed: {', '.join(missing)}" if missing else ""]
        wrong = [check for _, check in found if check.status == "warn"]
        status = "warn" if wrong else "info" if missing else "ok"
        fix = wrong[0].fix if wrong else f'when you need it: pip install "hfvla[{extra}]"' if missing else ""
        yield Check(f"extra {extra}", status, "; ".join(filter(None, parts)), fix)

"""GPU, driver, attention kernels, DeepSpeed's operators and processor cores."""

from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from hfvla.cli.doctor.check import Answer, Check

__all__ = [
    "check_attention",
    "check_compiler",
    "check_cores",
    "check_deepspeed",
    "check_gpu",
    "check_operators",
    "check_torch",
    "driver_version",
    "has",
]

_REINSTALL = 'reinstall both together: pip install --upgrade "torch>=2.15" torchvision'


def has(module: str) -> bool:
    """Tell whether a module can be found, without importing it."""
    return importlib.util.find_spec(module) is not None


def driver_version() -> str:
    """Return the NVIDIA driver's version, "" where there is no driver."""
    tool = shutil.which("nvidia-smi")
    if tool is None:
        return ""
    command = [tool, "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    return done.stdout.split("\n")[0].strip() if done.returncode == 0 else ""


def check_torch(torch: Answer) -> Iterator[Check]:
    """Say whether torch can be imported at all, and whether it shares arrays with numpy."""
    if torch.problem:
        status = "warn" if torch.problem.startswith("no answer") else "fail"
        yield Check("torch import", status, torch.problem, 'pip install --force-reinstall "torch>=2.11" torchvision')
        return
    build = torch.values["cuda"]
    yield Check("torch import", "ok", f"built for {f'CUDA {build}' if build else 'the CPU'}")
    if torch.values["numpy"]:
        fix = "torch and numpy were built for each other's wrong version: pip install --upgrade torch numpy"
        yield Check("torch with numpy", "fail", torch.values["numpy"], fix)


def check_operators(operators: Answer) -> Check:
    """Say whether torchvision's compiled operators fit this torch."""
    name = "torchvision operators"
    if operators.problem:
        status = "warn" if operators.problem.startswith("no answer") else "fail"
        return Check(name, status, operators.problem, _REINSTALL)
    kept = operators.values["kept"]
    if kept != [1]:
        return Check(name, "fail", f"nms kept {kept}, not [1]", _REINSTALL)
    return Check(name, "ok", "nms runs")


def check_gpu(torch: Answer, driver: str) -> Iterator[Check]:
    """Say which GPUs torch sees: name, memory, driver, bf16."""
    if torch.problem:
        yield Check("GPU", "warn", "not known, torch does not import", "repair torch first")
        return
    gpus = torch.values["gpus"]
    if not gpus:
        found = f"driver {driver}, but torch sees no GPU" if driver else "none; training runs on the CPU"
        fix = (
            f"torch is built for {torch.values['cuda'] or 'the CPU'}: install a build for this driver (pytorch.org), "
            "and look at CUDA_VISIBLE_DEVICES"
            if driver
            else "tiny recipes need none: make demo"
        )
        yield Check("GPU", "warn" if driver else "info", found, fix)
    for index, card in enumerate(gpus):
        bf16 = f"bf16 {'yes' if card['bf16'] else 'no'}"
        found = f"{card['name']}, {card['bytes'] / 1e9:.0f} GB, {bf16}, driver {driver or 'unknown'}"
        fix = "" if card["bf16"] else "train in fp16 or fp32: args.bf16=false"
        yield Check(f"GPU {index}", "ok" if card["bf16"] else "warn", found, fix)


def check_attention(torch: Answer, packages: dict[str, Answer]) -> Iterator[Check]:
    """Say which kernels `scaled_dot_product_attention` has here, and which packages with kernels work.

    Args:
        torch: the torch probe.
        packages: import probe of each such package that is installed.
    """
    if torch.problem:
        yield Check("attention", "warn", "not known, torch does not import", "repair torch first")
        return
    device = "GPU" if torch.values["gpus"] else "CPU"
    kernels = ", ".join(torch.values["kernels"]) or "none"
    absent = [name for name in ("flash_attn", "xformers") if name not in packages]
    tail = f"; not installed (not needed): {', '.join(absent)}" if absent else ""
    if torch.values["kernels"]:
        yield Check("attention", "ok", f"SDPA on the {device}: {kernels}{tail}")
    else:
        yield Check("attention", "fail", f"no SDPA kernel runs on the {device}", _REINSTALL)
    for name, answer in packages.items():
        if answer.problem:
            fix = f"it was built for another torch: pip install --force-reinstall --no-build-isolation {name}"
            yield Check(name, "warn", answer.problem, f"{fix}, or uninstall it")
        else:
            yield Check(name, "ok", answer.values["version"])


def check_deepspeed(deepspeed: Answer | None, torch: Answer) -> Iterator[Check]:
    """Say which DeepSpeed operators there are, and whether processes can talk to each other.

    Args:
        deepspeed: its probe; None where it is not installed.
        torch: the torch probe.
    """
    if not torch.problem:
        backends = [name for name in ("gloo", "nccl") if torch.values[name]]
        if backends:
            yield Check("process groups", "ok", ", ".join(backends))
        else:
            fix = "several processes cannot train together; install torch from pytorch.org"
            yield Check("process groups", "warn", "torch has neither gloo nor nccl", fix)
    if deepspeed is None:
        yield Check("DeepSpeed ops", "info", "DeepSpeed is not installed", 'for ZeRO: pip install "hfvla[deepspeed]"')
        return
    if deepspeed.problem:
        fix = 'pip install --force-reinstall "deepspeed>=0.19"; a build with CUDA needs CUDA_HOME'
        yield Check("DeepSpeed ops", "warn", deepspeed.problem, fix)
        return
    values = deepspeed.values
    parts = [f"built: {', '.join(values['installed']) or 'none'}", f"can build: {', '.join(values['compatible'])}"]
    if values["incompatible"]:
        parts.append(f"cannot build: {', '.join(values['incompatible'])}")
    gpu = bool(not torch.problem and torch.values["gpus"])
    nvcc = shutil.which("nvcc") or (Path(os.environ.get("CUDA_HOME", "/usr/local/cuda")) / "bin" / "nvcc").is_file()
    if gpu and not nvcc:
        fix = "install the CUDA toolkit and set CUDA_HOME, or train with `optim: adamw_torch` (needs none of them)"
        yield Check("DeepSpeed ops", "warn", "; ".join([*parts, "no nvcc"]), fix)
    else:
        parts.append("nvcc found" if nvcc else "no nvcc, and the CPU with gloo needs none")
        yield Check("DeepSpeed ops", "ok", "; ".join(parts))


def check_compiler() -> Check:
    """Look for what DeepSpeed's operators and torch.compile are built with."""
    tools = {"ninja": shutil.which("ninja"), "g++": shutil.which("g++")}
    missing = [name for name, path in tools.items() if not path]
    if missing:
        fix = 'pip install "hfvla[deepspeed]" brings ninja; g++ comes with the system (Debian: build-essential)'
        return Check("compiler", "warn", f"missing: {', '.join(missing)}", fix)
    return Check("compiler", "ok", "ninja, g++")


def check_cores() -> Check:
    """Compare the threads that are asked for with the cores that may be used."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    threads = os.environ.get("OMP_NUM_THREADS")
    found = f"{usable} usable; OMP_NUM_THREADS {threads or 'not set'}"
    if threads and threads.isdigit() and int(threads) > usable:
        return Check("CPU cores", "warn", found, f"more threads than cores is slow: export OMP_NUM_THREADS={usable}")
    return Check("CPU cores", "ok", found)

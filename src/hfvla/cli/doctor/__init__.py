"""What hfvla finds on this machine: versions, devices, optional packages, and how to fix what is missing."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from hfvla.cli.doctor.check import Check, guarded, probe
from hfvla.cli.doctor.combinations import check_accelerate_config, check_pairs, check_resume, check_trackers
from hfvla.cli.doctor.devices import (
    check_attention,
    check_compiler,
    check_cores,
    check_deepspeed,
    check_gpu,
    check_operators,
    check_torch,
    driver_version,
    has,
)
from hfvla.cli.doctor.system import check_disks, check_hub, check_rendering, check_shared_memory
from hfvla.cli.doctor.versions import REQUIREMENTS, Requirement, check_extras, check_packages, check_python
from hfvla.cli.doctor.video import check_video, probe_video

__all__ = ["REQUIREMENTS", "Check", "Requirement", "diagnose"]


def diagnose() -> list[Check]:
    """Look at this machine in a few seconds; what may crash is imported in processes of its own, side by side."""
    with ThreadPoolExecutor(max_workers=4) as pool:
        hub = pool.submit(check_hub)
        torch = pool.submit(probe, "torch_build")
        operators = pool.submit(probe, "image_operators")
        video = pool.submit(probe_video)
        deepspeed = pool.submit(probe, "deepspeed") if has("deepspeed") else None
        kernels = {name: pool.submit(probe, "package", name) for name in ("flash_attn", "xformers") if has(name)}
        packages = {name: answer.result() for name, answer in kernels.items()}
        looks: dict[str, Callable[[], Check | Iterable[Check]]] = {
            "Python": check_python,
            "packages": check_packages,
            "extras": check_extras,
            "torch with torchvision": check_pairs,
            "torch import": lambda: check_torch(torch.result()),
            "torchvision operators": lambda: check_operators(operators.result()),
            "GPU": lambda: check_gpu(torch.result(), driver_version()),
            "attention": lambda: check_attention(torch.result(), packages),
            "video": lambda: check_video(video.result()),
            "DeepSpeed ops": lambda: check_deepspeed(deepspeed.result() if deepspeed else None, torch.result()),
            "compiler": check_compiler,
            "hub": hub.result,
            "disks": check_disks,
            "shared memory": check_shared_memory,
            "CPU cores": check_cores,
            "rendering": check_rendering,
            "accelerate launch": check_accelerate_config,
            "resume": check_resume,
            "tracking": check_trackers,
        }
        return [check for name, look in looks.items() for check in guarded(name, look)]

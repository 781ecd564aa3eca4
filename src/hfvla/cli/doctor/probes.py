"""Looks that import what may crash; `check.probe` runs this file in a process of its own: `python probes.py NAME`.

Nothing of hfvla is imported here. The answer is one line of JSON after a mark, because packages print on import.
"""

from __future__ import annotations

import base64
import importlib
import io
import json
import sys
import warnings
from typing import Any

FRAMES = 4
LEVELS = tuple(60 * index for index in range(FRAMES))  # grey value of each frame of the test clip
TOLERANCE = 6


def torch_build() -> dict:
    """Return what torch was built for, the GPUs it sees, and which attention kernels run."""
    import torch

    cuda = torch.cuda.is_available()
    cards = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count() if cuda else 0)]
    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda,
        "gpus": [{"name": card.name, "bytes": card.total_memory, "bf16": card.major >= 8} for card in cards],
        "kernels": _attention_kernels("cuda" if cuda else "cpu"),
        "numpy": _numpy_bridge(),
        "gloo": torch.distributed.is_available() and torch.distributed.is_gloo_available(),
        "nccl": torch.distributed.is_available() and torch.distributed.is_nccl_available(),
    }


def _attention_kernels(device: str) -> list:
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    found = []
    dtype = torch.float16 if device == "cuda" else torch.float32
    query = torch.randn(1, 2, 16, 32, device=device, dtype=dtype)
    for name in ("FLASH_ATTENTION", "CUDNN_ATTENTION", "EFFICIENT_ATTENTION", "MATH"):
        backend = getattr(SDPBackend, name, None)
        if backend is None:
            continue
        try:
            with warnings.catch_warnings(), sdpa_kernel([backend]):
                warnings.simplefilter("ignore")
                torch.nn.functional.scaled_dot_product_attention(query, query, query)
        except RuntimeError:  # "No viable backend": this kernel is not for this device
            continue
        found.append(name.removesuffix("_ATTENTION").lower())
    return found


def _numpy_bridge() -> str:
    import numpy
    import torch

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            torch.from_numpy(numpy.zeros(1)).numpy()
        except RuntimeError as error:  # torch built for another numpy
            return str(error).splitlines()[0]
    return ""


def image_operators() -> dict:
    """Run one compiled operator: a torchvision built for another torch imports well and fails here."""
    import torch
    from torchvision.ops import nms

    boxes = torch.tensor([[0.0, 0.0, 2.0, 2.0], [0.0, 0.0, 2.0, 1.9]])
    return {"kept": nms(boxes, torch.tensor([0.5, 0.9]), 0.5).tolist()}


def package(name: str) -> dict:
    """Import a package."""
    return {"version": str(getattr(importlib.import_module(name), "__version__", "unknown"))}


def _answer(levels: list) -> dict:
    right = len(levels) == FRAMES and all(abs(a - b) <= TOLERANCE for a, b in zip(levels, LEVELS, strict=True))
    return {"frames": len(levels)} if right else {"problem": f"decodes the test clip wrongly: {levels}"}


def av() -> dict:
    """Make the test clip (H.264, four grey frames), decode it, and return it for the other readers."""
    import av
    import numpy as np

    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES)
        stream.width, stream.height, stream.pix_fmt = 32, 32, "yuv420p"
        for level in LEVELS:
            frame = av.VideoFrame.from_ndarray(np.full((32, 32, 3), level, np.uint8), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    clip = buffer.getvalue()
    with av.open(io.BytesIO(clip), "r") as reader:
        levels = [int(frame.to_ndarray(format="rgb24").mean()) for frame in reader.decode(video=0)]
    return {**_answer(levels), "clip": base64.b64encode(clip).decode()}


def decord() -> dict:
    """Decode the clip on stdin."""
    import decord

    reader = decord.VideoReader(io.BytesIO(sys.stdin.buffer.read()))
    return _answer([int(reader[index].asnumpy().mean()) for index in range(len(reader))])


def torchcodec() -> dict:
    """Decode the clip on stdin; needs FFmpeg's libraries of the system."""
    from torchcodec.decoders import VideoDecoder

    reader: Any = VideoDecoder(sys.stdin.buffer.read())
    return _answer([int(reader[index].float().mean()) for index in range(len(reader))])


def deepspeed() -> dict:
    """Return DeepSpeed's operators: those built with it, and those that this machine can build."""
    import deepspeed
    from deepspeed.git_version_info import installed_ops
    from deepspeed.ops.op_builder.all_ops import ALL_OPS

    compatible = {name: bool(builder.is_compatible(verbose=False)) for name, builder in ALL_OPS.items()}
    names = {name: able for name, able in compatible.items() if not name.endswith("not_implemented")}
    return {
        "version": deepspeed.__version__,
        "installed": sorted(name for name, there in installed_ops.items() if there),
        "compatible": sorted(name for name, able in names.items() if able),
        "incompatible": sorted(name for name, able in names.items() if not able),
    }


PROBES = {look.__name__: look for look in (torch_build, image_operators, package, av, decord, torchcodec, deepspeed)}


def main() -> None:
    """Run one probe and print its answer; an error is an answer too."""
    try:
        answer = PROBES[sys.argv[1]](*sys.argv[2:])
    except Exception as error:
        lines = str(error).splitlines() or ["no message"]
        answer = {"problem": f"{type(error).__name__}: {lines[0]}"}
    sys.stdout.write(f"\nhfvla-probe:{json.dumps(answer)}\n")


if __name__ == "__main__":
    main()

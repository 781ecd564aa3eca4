"""Starts the processes of a recipe with `ddp_timeout: 2`; the second one then is busy, and the first waits for it."""

import time
from types import SimpleNamespace

import torch.distributed as dist

from hfvla.training.run.arguments import start_processes


def main() -> None:
    machine = {"data": SimpleNamespace(video_backend="auto"), "model": SimpleNamespace(attention=None)}
    settings = {"args": {"use_cpu": True}, "stages": ["one"], "stage_args": lambda stage: {"ddp_timeout": 2}}
    recipe = SimpleNamespace(**settings, **machine)
    state = start_processes(recipe)
    dist.barrier()  # both are there
    if state.process_index:
        time.sleep(12)
        print("busy")
        return
    try:
        dist.barrier()
        print("waited for the other")
    except RuntimeError as error:
        print("stopped:", type(error).__name__)


if __name__ == "__main__":
    main()

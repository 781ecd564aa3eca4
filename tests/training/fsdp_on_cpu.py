"""Lets FSDP2 run on CPU processes, for tests without a GPU: PyTorch can (gloo), Accelerate does not ask it to.

Without this, Accelerate takes a launch for FSDP on a CPU as DDP, and says nothing.
As a script: `python -m torch.distributed.run --nproc_per_node 2 fsdp_on_cpu.py SCRIPT ARGUMENTS`.
"""

import runpy
import sys

from accelerate import PartialState
from accelerate.state import AcceleratorState, DistributedType

ENVIRONMENT = {
    "ACCELERATE_USE_FSDP": "true",
    "FSDP_VERSION": "2",
    "FSDP_AUTO_WRAP_POLICY": "TRANSFORMER_BASED_WRAP",
    "FSDP_RESHARD_AFTER_FORWARD": "true",
    "FSDP_STATE_DICT_TYPE": "FULL_STATE_DICT",
}
"""What `accelerate launch --config_file recipes/accelerate/fsdp2.yaml` sets."""


def allow() -> None:
    """Change Accelerate in this process."""
    initialise = AcceleratorState.__init__

    def changed(self, *args, **kwargs):
        fresh, plugin = not AcceleratorState._shared_state, kwargs.get("fsdp_plugin")
        initialise(self, *args, **kwargs)
        if fresh and plugin is not None and self.distributed_type == DistributedType.MULTI_CPU:
            self.distributed_type = PartialState._shared_state["distributed_type"] = DistributedType.FSDP
            self.fsdp_plugin = plugin

    AcceleratorState.__init__ = changed


if __name__ == "__main__":
    allow()
    sys.argv = sys.argv[1:]
    runpy.run_path(sys.argv[0], run_name="__main__")

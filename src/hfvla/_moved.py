"""Names that public modules had in 0.1: they import as before, with a DeprecationWarning, until 0.3."""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

__all__ = ["MOVED", "install", "old_names"]

_TABLE = {  # what lies deeper before the package that it lay in
    "data.agreement": "data.rows.agreement",
    "data.clocks": "data.signals.clocks",
    "data.epoch": "data.rows.epoch",
    "data.frame_loader": "data.signals.frame_loader",
    "data.group_ids": "data.rows.group_ids",
    "data.hdf5_rows": "data.sources.hdf5_rows",
    "data.mixing": "data.rows.mixing",
    "data.normalize": "data.signals.normalize",
    "data.observation": "data.signals.observation",
    "data.parquet_rows": "data.sources.parquet_rows",
    "data.rotations": "data.signals.rotations",
    "data.samples_actions": "data.samples.actions",
    "data.samples_retrieval": "data.samples.retrieval",
    "data.samples_video": "data.samples.video",
    "data.sensor_loader": "data.signals.sensor_loader",
    "data.sensors": "data.signals.sensors",
    "data.splits": "data.rows.splits",
    "data.synthetic": "worlds",
    "metrics.functions": "metrics",
    "nn.internvl_backbone": "backbones.options",
    "nn.internvl_shapes": "backbones.shapes",
    "nn.vlm_shapes": "backbones.shapes",
    "serve.contact_sheet": "data.contact_sheet",
    "serve.gallery": "data.gallery",
    "training.arguments": "training.run.arguments",
    "training.audit": "training.checkpoint.audit",
    "training.balance": "training.trainer.balance",
    "training.caching": "training.run.caching",
    "training.comparing": "training.run.comparing",
    "training.data": "training.stage.data",
    "training.dry_run": "training.run.dry_run",
    "training.freeze": "training.stage.groups",
    "training.gradcache": "training.trainer.gradcache",
    "training.group_batches": "training.trainer.group_batches",
    "training.handover": "training.checkpoint.handover",
    "training.logs.loss_log": "training.trainer.loss_log",
    "training.logs": "training.run",
    "training.lora.adapters": "training.checkpoint.adapters",
    "training.lora.handover": "training.checkpoint.lora_handover",
    "training.lora.merging": "training.checkpoint.merging",
    "training.phases": "training.stage.phases",
    "training.plan": "training.stage.plan",
    "training.record": "training.checkpoint.record",
    "training.resume": "training.checkpoint",
    "training.saving": "training.run.saving",
    "training.tables": "training.run.tables",
    "training.zero": "training.trainer.zero",
}
MOVED = {f"hfvla.{old}": f"hfvla.{new}" for old, new in _TABLE.items()}
"""New name by old one; what lies below an old package is found below the new one."""


def _warn(old: str, new: str, level: int) -> None:
    warnings.warn(f"{old} is now {new}; the old name goes in hfvla 0.3", DeprecationWarning, stacklevel=level)


class _Alias(Loader):
    def __init__(self, new: str) -> None:
        self.new = new

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(self.new)
        self.spec = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec  # the import system has just put the old name's there


class _Finder(MetaPathFinder):
    """Asked first: below an old package, others would find a second copy of a module."""

    def find_spec(self, fullname: str, path: Sequence[str] | None, target: Any = None) -> ModuleSpec | None:
        for old, new in MOVED.items():
            if fullname == old or fullname.startswith(f"{old}."):
                found = new + fullname.removeprefix(old)
                _warn(fullname, found, level=5)
                return ModuleSpec(fullname, _Alias(found), is_package=True)
        return None


def install() -> None:
    """Let the old names be imported."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def old_names(package: str, module: str) -> Callable[[str], Any]:
    """Return a module's `__getattr__`: what `package` offered when it was one module is in `module` now."""

    def get(name: str) -> Any:
        found = importlib.import_module(module)
        if name.startswith("_") or not hasattr(found, name):
            raise AttributeError(f"module '{package}' has no attribute '{name}'")
        _warn(f"{package}.{name}", f"{module}.{name}", level=3)
        return getattr(found, name)

    return get

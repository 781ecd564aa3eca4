"""What one stage takes over from another: every tensor is carried, reshaped, new or left behind, and says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from hfvla.errors import CheckpointError, did_you_mean
from hfvla.family import ParameterGroup
from hfvla.loading import weight_files
from hfvla.recipe import Handover

__all__ = ["HandoverReport", "TensorHandover", "hand_over", "load_state", "tensor_names"]

_PARTS_SHOWN = 2


@dataclass(frozen=True)
class TensorHandover:
    """What became of one tensor.

    Attributes:
        name: tensor name in the new model (in the old one if left behind).
        status: "carried", "reshaped", "new" or "left"; with LoRA also "merged" (carried, with the earlier stage's
            adapter added in), and of an adapter's tensors "continued", "stacked" or "dropped".
        parameters: scalars.
        how: for a reshaped or new tensor, what was done.
    """

    name: str
    status: str
    parameters: int
    how: str = ""


@dataclass
class HandoverReport:
    """The hand-over of one stage, by tensor and summed by module.

    Attributes:
        source: stage or checkpoint it was taken from.
        tensors: one entry a tensor.
    """

    source: str
    tensors: list[TensorHandover] = field(default_factory=list)

    def modules(self) -> list[dict[str, Any]]:
        """Return one row a module and status: module, status, tensors, parameters, how."""
        rows: dict[tuple[str, str], dict[str, Any]] = {}
        for tensor in self.tensors:
            module = ".".join(tensor.name.split(".")[:-1][:_PARTS_SHOWN]) or tensor.name
            row = rows.setdefault(
                (module, tensor.status),
                {"module": module, "status": tensor.status, "tensors": 0, "parameters": 0, "how": tensor.how},
            )
            row["tensors"] += 1
            row["parameters"] += tensor.parameters
        return list(rows.values())

    def mark(self, names: Collection[str], status: str, how: str) -> None:
        """Give the carried ones of the named tensors another status."""
        self.tensors = [
            replace(tensor, status=status, how=how) if tensor.name in names and tensor.status == "carried" else tensor
            for tensor in self.tensors
        ]

    def counts(self) -> dict[str, int]:
        """Return the number of tensors by status."""
        return dict(Counter(tensor.status for tensor in self.tensors))

    def to_dict(self) -> dict[str, Any]:
        """Return everything, for handover.json."""
        tensors = [asdict(tensor) for tensor in self.tensors]
        return {"source": self.source, "counts": self.counts(), "modules": self.modules(), "tensors": tensors}


def _matches(name: str, entries: Sequence[str], groups: Mapping[str, ParameterGroup]) -> bool:
    """True if a group name, module prefix or glob pattern in `entries` covers a tensor name."""
    for entry in entries:
        patterns = groups[entry].patterns if entry in groups else (entry, f"{entry}.*")
        if any(fnmatchcase(name, pattern) for pattern in patterns):
            return True
    return False


def _check_entries(
    rules: Handover, groups: Mapping[str, ParameterGroup], target: Sequence[str], source: Sequence[str]
) -> None:
    """Refuse entries that match no tensor: a part meant to start new would silently be carried."""
    for key, entries, names in (
        ("new", rules.new, target),
        ("reshape", rules.reshape, target),
        ("leave", rules.leave, source),
    ):
        for entry in entries:
            if not any(_matches(name, [entry], groups) for name in names):
                modules = {".".join(name.split(".")[:end]) for name in names for end in (1, 2)}
                hint = did_you_mean(entry, sorted({*groups, *modules}))
                raise CheckpointError(f"handover.{key}: '{entry}' matches no tensor. {hint}")


def hand_over(
    target: torch.nn.Module,
    source_state: Mapping[str, Tensor],
    rules: Handover,
    groups: Mapping[str, ParameterGroup],
    source: str,
) -> HandoverReport:
    """Fill a freshly initialised model from an earlier stage's weights, in place.

    Args:
        target: model with the new stage's config; its present values are what "new" means.
        source_state: state dict of the earlier stage.
        rules: what the recipe announced.
        groups: parameter groups, whose names `rules` may use.
        source: name for the report.

    Returns:
        `HandoverReport`

    Raises:
        CheckpointError: something is new, reshaped or left behind that the recipe did not announce; all is named.
    """
    _check_entries(rules, groups, [*target.state_dict()], [*source_state])
    report, problems = HandoverReport(source), []
    values = target.state_dict()
    tied = getattr(target, "all_tied_weights_keys", {})
    for name, value in values.items():
        if name in tied and name not in source_state:
            continue  # the same memory as the tensor it is tied to, and saved once
        old = source_state.get(name)
        wanted_new = _matches(name, rules.new, groups)
        if old is not None and old.shape == value.shape and not wanted_new:
            value.copy_(old)
            report.tensors.append(TensorHandover(name, "carried", value.numel()))
        elif wanted_new:
            how = "initialised" if old is None else f"initialised; was {list(old.shape)}"
            report.tensors.append(TensorHandover(name, "new", value.numel(), f"{how}, now {list(value.shape)}"))
        elif old is not None and old.dim() == value.dim() and _matches(name, rules.reshape, groups):
            overlap = tuple(slice(0, min(a, b)) for a, b in zip(old.shape, value.shape, strict=True))
            value[overlap].copy_(old[overlap])
            how = f"{list(old.shape)} to {list(value.shape)}, overlap copied"
            report.tensors.append(TensorHandover(name, "reshaped", value.numel(), how))
        elif old is None:
            problems.append(f"new: {name} {list(value.shape)}")
        else:
            problems.append(f"reshape: {name} {list(old.shape)} to {list(value.shape)}")
    for name in source_state:
        if name in values:
            continue
        if _matches(name, rules.leave, groups):
            report.tensors.append(TensorHandover(name, "left", source_state[name].numel()))
        else:
            problems.append(f"leave: {name} {list(source_state[name].shape)}")
    if problems:
        shown = "; ".join(problems[:8]) + (f"; and {len(problems) - 8} more" if len(problems) > 8 else "")
        raise CheckpointError(
            f"hand-over from '{source}': {len(problems)} tensors change in a way the recipe does not announce",
            got=shown,
            fix="List their modules or groups under handover.new, handover.reshape or handover.leave.",
        )
    return report


def load_state(folder: str | Path) -> dict[str, Tensor]:
    """Read all weights of a checkpoint folder (one file or shards), on the CPU.

    Raises:
        CheckpointError: the folder holds no safetensors weights, or damaged ones (see `hfvla.loading`).
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    state: dict[str, Tensor] = {}
    for file in weight_files(Path(folder)):
        try:
            state.update(load_file(file))
        except (OSError, ValueError, SafetensorError) as error:
            raise CheckpointError("damaged weights", where=str(file), got=str(error).splitlines()[0]) from None
    return state


def tensor_names(file: Path) -> list[str]:
    """Return the names of the tensors in a safetensors file; only its header is read.

    Raises:
        CheckpointError: the file is damaged.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(file), framework="pt") as tensors:
            return list(tensors.keys())
    except (OSError, SafetensorError) as error:
        raise CheckpointError("damaged weights", where=str(file), got=str(error)) from None

"""Checkpoints inside a stage that hold adapters and what else trains, and not the frozen weights below them.

    checkpoint-30/adapter/                  adapters and what trained beside them, without the layers they sit on
    checkpoint-30/adapter/frozen.json       a hash of every weight that is not in it, and where these came from
    checkpoint-30/config.json, optimizer.pt, engine-0.json, ...

The frozen weights are those that the stage starts from: a run that goes on makes them anew from the stage before, or
from `model.pretrained`, and compares the hash.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hfvla.errors import CheckpointError
from hfvla.training.checkpoint.adapters import (
    ADAPTER_FOLDER,
    check_adapters,
    file_name,
    read_adapters,
    read_beside,
    write_adapters,
)
from hfvla.training.checkpoint.record import read_json
from hfvla.training.stage.groups import adapter_of, plain_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["base_of", "fill_adapters", "frozen_hash", "holds_adapters_alone", "trained_beside", "write_adapters_alone"]

_FROZEN = "frozen.json"


def holds_adapters_alone(folder: str | Path) -> bool:
    """Tell whether a checkpoint lacks the weights that its adapters sit on."""
    return (Path(folder) / ADAPTER_FOLDER / _FROZEN).is_file()


def base_of(folder: str | Path) -> str | None:
    """Return what the stage of such a checkpoint started from: a folder, a hub id, or None for new weights."""
    found = read_json(Path(folder) / ADAPTER_FOLDER / _FROZEN) or {}
    base = found.get("base")
    return str(base) if base else None


def trained_beside(model: PreTrainedModel, trained: Collection[str]) -> list[str]:
    """Return the names of what is kept besides adapters: whatever else trains, and buffers, which may change."""
    state = model.state_dict()
    buffers = {name for name, _ in model.named_buffers()}
    return [name for name in state if adapter_of(name) is None and (name in trained or name in buffers)]


def frozen_hash(model: PreTrainedModel, beside: Collection[str]) -> str:
    """Return a hash of every weight that neither trains nor is an adapter, at about 1 GB a second."""
    digest, kept = hashlib.blake2b(digest_size=16), set(beside)
    for name, value in sorted(model.state_dict().items()):
        if adapter_of(name) is None and name not in kept and isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)} ".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


def write_adapters_alone(
    model: PreTrainedModel, folder: Path, trained: Collection[str], frozen: str, base: str | None = None
) -> None:
    """Write such a checkpoint, and read it back (main process).

    Args:
        model: the model with adapters, unwrapped.
        folder: where.
        trained: names of the parameters that train.
        frozen: `frozen_hash` of the model.
        base: what the stage started from.

    Raises:
        CheckpointError: what is on the disk is not what is in memory.
    """
    beside = trained_beside(model, trained)
    wanted = {n: value.detach().cpu() for n, value in model.state_dict().items() if adapter_of(n) or n in set(beside)}
    folder.mkdir(parents=True, exist_ok=True)
    write_adapters(model, wanted, folder, beside, base, with_base=False)
    model.config.save_pretrained(folder)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(folder)
    facts = {"hash": frozen, "base": base}
    (folder / ADAPTER_FOLDER / _FROZEN).write_text(json.dumps(facts) + "\n", encoding="utf-8")
    check_adapters(folder, {name: value for name, value in wanted.items() if adapter_of(name)})
    found = read_beside(folder)
    wrong = [name for name in beside if not _same(found.get(plain_name(name)), wanted[name])]
    if wrong:
        raise CheckpointError("what was saved is not what was trained", where=str(folder), got=wrong[:4])


def _same(found: Tensor | None, wanted: Tensor) -> bool:
    return found is not None and found.dtype == wanted.dtype and torch.equal(found, wanted)


def fill_adapters(model: PreTrainedModel, folder: str | Path, trained: Collection[str], check: bool = True) -> None:
    """Fill a model from such a checkpoint, to the bit; in place. Its frozen weights stay as they are.

    Args:
        model: the model as its stage starts, unwrapped.
        folder: the checkpoint.
        trained: names of the parameters that train.
        check: compare the frozen weights with those that the checkpoint was written beside.

    Raises:
        CheckpointError: other frozen weights, or a tensor that is missing, unexpected or of another shape.
    """
    saved, beside = read_adapters(folder), read_beside(folder)
    if check:
        facts = read_json(Path(folder) / ADAPTER_FOLDER / _FROZEN) or {}
        if facts.get("hash") != frozen_hash(model, trained_beside(model, trained)):
            raise CheckpointError(
                "the frozen weights below these adapters are not those that they were trained on", where=str(folder),
                got="another hash", expected="the weights that the stage began with",
                fix="Put the stage before (or model.pretrained) back as it was, or begin this stage anew.",
            )  # fmt: skip
    adapters = saved.adapters if saved is not None else {}
    values = model.state_dict()
    found = _by_name(values, adapters, beside)
    expected = [name for name in values if adapter_of(name) is not None]
    expected += trained_beside(model, trained)
    problems = [f"missing: {name}" for name in expected if name not in found]
    problems += [f"another shape: {n}" for n, value in found.items() if value.shape != values[n].shape]
    count = sum(len(tensors) for _, tensors in adapters.values()) + len(beside)
    if problems or len(found) != count:
        raise CheckpointError(
            "this checkpoint does not fit the model that goes on from it", where=str(folder),
            got="; ".join(problems[:4]) or f"{count - len(found)} tensors without a place",
            expected=f"{len(expected)} tensors",
        )  # fmt: skip
    with torch.no_grad():
        for name, value in found.items():
            values[name].copy_(value)


def _by_name(
    values: Mapping[str, Tensor], adapters: Mapping[str, Any], beside: Mapping[str, Tensor]
) -> dict[str, Tensor]:
    """Return the saved tensors by their names in memory."""
    found = {}
    for name in values:
        of = adapter_of(name)
        if of is None and plain_name(name) in beside:
            found[name] = beside[plain_name(name)]
        elif of is not None and of in adapters and file_name(name, of) in adapters[of][1]:
            found[name] = adapters[of][1][file_name(name, of)]
    return found

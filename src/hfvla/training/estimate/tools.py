"""What plans of recipes and of shapes share: adapters on meta models, tables of parts and phases, checkpoint bytes."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from hfvla.family import ParameterGroup
from hfvla.recipe import Lora, Recipe
from hfvla.training.estimate.devices import MFU, Gpu
from hfvla.training.lora.injection import inject_lora, lora_targets
from hfvla.training.stage.groups import adapter_of, table_dicts, trainable_table

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["add_adapters", "checkpoint_bytes", "device_statements", "disk_bytes", "part_rows", "phase_row"]

_ADAM_MOMENTS = 2
_KEPT = 2  # checkpoints of a stage, where the recipe does not say it


def add_adapters(model: PreTrainedModel, groups: Mapping[str, ParameterGroup], lora: Lora | None) -> list[str]:
    """Give a model on the meta device the adapters of a stage.

    Returns:
        `list[str]`: names of the weights held in four bits (QLoRA; else none). They are in bf16 afterwards, in which
            they are multiplied.

    Raises:
        RecipeError: the target matches nothing.
    """
    if lora is None:
        return []
    targets = lora_targets(model, groups, lora) if lora.qlora else []
    with torch.device("meta"):
        inject_lora(model, groups, lora.model_copy(update={"qlora": False}))
    names = [f"{target}.base_layer.weight" for target in targets]
    for name in names:
        parameter = model.get_parameter(name)
        parameter.data = parameter.data.to(torch.bfloat16)
    return names


def part_rows(model: nn.Module, table: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    """Return parameters by part of the model: part, tensors, parameters."""
    parameters = dict(model.named_parameters())
    rows = []
    for part, patterns in table.items():
        names = [name for name in parameters if any(fnmatchcase(name, pattern) for pattern in patterns)]
        rows.append({"part": part, "tensors": len(names), "parameters": sum(parameters[n].numel() for n in names)})
    return rows


def phase_row(
    model: nn.Module,
    groups: Mapping[str, ParameterGroup],
    trained: Mapping[str, str],
    rates: Mapping[str, float],
    facts: Mapping[str, Any],
) -> dict[str, Any]:
    """Return one phase of a plan: what joins, the table of groups, and what trains in all.

    Args:
        model: the model.
        groups: parameter groups by name.
        trained: entry by name of each parameter that trains in the phase.
        rates: learning rate by entry.
        facts: more of the phase: "phase", "add", "begins", "step", "losses".
    """
    rows = table_dicts(trainable_table(model, groups, trained, rates))
    return {**facts, "groups": rows[:-1], "total": rows[-1], "trainable_parameters": rows[-1]["trainable"]}


def checkpoint_bytes(model: nn.Module, trained: Collection[str], alone: bool = False) -> dict[str, int]:
    """Return bytes of the saved model, of adapters beside it, and of a checkpoint to resume from.

    Shared tensors count once. With LoRA a stage saves the merged model, and beside it the adapter, the weights below
    it and what else trained; `alone` leaves what is frozen out of the checkpoints to resume from.
    """
    size = {name: tensor.numel() * tensor.element_size() for name, tensor in model.named_parameters()}
    saved = set(model.state_dict())  # without buffers that are made anew
    buffers = sum(tensor.numel() * tensor.element_size() for name, tensor in model.named_buffers() if name in saved)
    adapters = {name for name in size if adapter_of(name)}
    weights = sum(size[name] for name in size if name not in adapters) + buffers
    moments = _ADAM_MOMENTS * sum(size[name] for name in trained)
    kept = sum(size[name] for name in size if name in adapters or name in trained) + buffers
    beside = {name for name in size if name in adapters or name in trained or ".base_layer." in name}
    return {
        "checkpoint_bytes": weights,
        "adapter_bytes": sum(size[name] for name in beside) + buffers if adapters else 0,
        "resume_bytes": (kept if alone and adapters else weights + sum(size[name] for name in adapters)) + moments,
    }


def disk_bytes(recipe: Recipe, stages: Sequence[Mapping[str, Any]]) -> dict[str, int]:
    """Return the bytes of a finished run, and the most that lie on the disk while it trains.

    While a stage trains, its checkpoints to resume from are there too: `save_total_limit`, and one being written.
    """
    done = most = 0
    for stage, planned in zip(recipe.stages, stages, strict=True):
        limit = recipe.stage_args(stage).get("save_total_limit")
        saved = max(math.ceil(planned.get("epochs") or 1), 1)  # one an epoch
        kept = int(limit or (saved if stage.keep_checkpoints == "all" else _KEPT))
        stay = {"none": 0, "last": min(kept, 2 if stage.keep_best else 1), "all": kept}[stage.keep_checkpoints]
        own = planned["checkpoint_bytes"] + planned["adapter_bytes"]
        most = max(most, done + own + (kept + 1) * planned["resume_bytes"])
        done += own + stay * planned["resume_bytes"]
    done += stages[-1]["checkpoint_bytes"]  # `final/`
    return {"finished": done, "most": max(most, done)}


def device_statements(gpus: Sequence[Gpu], cpu: Gpu | None) -> list[str]:
    """Return what is assumed of devices whose speed nobody wrote down, a sentence each."""
    found = [f"{gpu.name} computes like {gpu.like}" for gpu in gpus if gpu.like]
    if cpu is not None:
        found.append(f"this CPU reaches {MFU:.0%} of {cpu.peak_tflops * 1000:,.0f} GFLOP/s, measured just now")
    return found

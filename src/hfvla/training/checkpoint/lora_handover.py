"""What becomes of an earlier stage's LoRA: merged, trained on, kept frozen below a new one, or dropped."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from hfvla.errors import CheckpointError, RecipeError
from hfvla.family import ParameterGroup
from hfvla.recipe import Stage
from hfvla.recipe.stage_schema import Lora
from hfvla.training.checkpoint.adapters import SavedAdapters, put_adapter, read_adapters
from hfvla.training.checkpoint.handover import HandoverReport, TensorHandover
from hfvla.training.lora.injection import inject_lora, lora_config, lora_targets
from hfvla.training.stage.groups import TRAINED_ADAPTER, adapter_of, below_name

__all__ = ["adapters_are_of", "changed_adapter", "earlier_adapters", "place_adapters"]

_STAGE = "_hfvla_adapters_of"
_COMPARED = {"r": "r", "lora_alpha": "alpha", "use_dora": "dora", "use_rslora": "rslora", "target_modules": "target"}


def earlier_adapters(stage: Stage, folder: str | Path, state: dict[str, Tensor]) -> SavedAdapters | None:
    """Return the adapters of the stage that is taken over from, and put the base weights that they sat on in place.

    Merged weights stay as they are under `handover.lora: merge`; otherwise `state` gets the weights without adapters.

    Args:
        stage: the stage that takes over.
        folder: checkpoint of the earlier stage.
        state: its weights, changed in place.

    Raises:
        CheckpointError: adapters are asked for that the earlier stage did not leave, or that are damaged.
    """
    saved, mode = read_adapters(folder), stage.handover.lora
    if mode == "merge":
        return saved
    if saved is None or not saved.base:
        raise CheckpointError(
            f"stage '{stage.name}': handover.lora is '{mode}', and the earlier checkpoint has no LoRA to take over",
            where=str(folder),
            expected="a stage's folder with adapter/base.safetensors",
            fix="Take over from a stage that has `lora:`, or leave handover.lora out.",
        )
    state.update(saved.base)
    return saved


def place_adapters(
    model: nn.Module,
    groups: Mapping[str, ParameterGroup],
    stage: Stage,
    saved: SavedAdapters | None,
    report: HandoverReport,
    base: str | None = None,
) -> None:
    """Put old and new adapters into a model whose weights were handed over, and report what became of each.

    Args:
        model: the stage's model, changed in place.
        groups: parameter groups by name.
        stage: the stage.
        saved: `earlier_adapters`, or None.
        report: report of the hand-over, to which the adapters are added.
        base: checkpoint that the run started from, written into the adapter's config.

    Raises:
        CheckpointError: an earlier adapter does not fit the model.
        RecipeError: see `inject_lora`; `continue` with another rank, scale or target; `stack` with DoRA.
        MissingExtraError: QLoRA without bitsandbytes.
    """
    mode = stage.handover.lora if saved is not None else "merge"
    if saved is not None:
        if mode == "merge":
            report.mark(saved.base, "merged", f"LoRA of '{report.source}' added into the weight")
        elif mode == "none":
            _list(report, saved, "dropped", f"LoRA of '{report.source}'")
        elif mode == "continue":
            _continue(model, groups, stage, saved, report)
        else:
            _stack(model, stage, saved, report)
    if stage.lora is not None and mode != "continue":
        layers = inject_lora(model, groups, stage.lora, base)
        how = f"LoRA r={stage.lora.r} on {layers} layers, zero at the start"
        for name, parameter in model.named_parameters():
            if adapter_of(name) == TRAINED_ADAPTER:
                report.tensors.append(TensorHandover(name, "new", parameter.numel(), how))
    setattr(model, _STAGE, stage)


def adapters_are_of(model: nn.Module) -> Stage | None:
    """Return the stage that a model's adapters were placed for, or None where they are not the engine's."""
    return getattr(model, _STAGE, None)


def _list(report: HandoverReport, saved: SavedAdapters, status: str, how: str) -> None:
    for _, tensors in saved.adapters.values():
        for name, value in tensors.items():
            report.tensors.append(TensorHandover(name.removeprefix("base_model.model."), status, value.numel(), how))


def _put(
    model: nn.Module, saved: SavedAdapters, old: str, new: str, status: str, report: HandoverReport, **kw: Any
) -> None:
    config, tensors = saved.adapters[old]
    put_adapter(model, config, tensors, new, **kw)
    for name, value in model.named_parameters():
        if adapter_of(name) == new:
            report.tensors.append(TensorHandover(name, status, value.numel(), f"LoRA of '{report.source}'"))


def changed_adapter(old: Any, lora: Lora, targets: Sequence[str]) -> list[str]:
    """Return what a stage's `lora` says otherwise than an adapter's config; dropout may differ."""
    new = lora_config(lora, targets)
    return [key for name, key in _COMPARED.items() if getattr(old, name) != getattr(new, name)]


def _continue(
    model: nn.Module,
    groups: Mapping[str, ParameterGroup],
    stage: Stage,
    saved: SavedAdapters,
    report: HandoverReport,
) -> None:
    if stage.lora is None:
        raise RecipeError(
            f"stage '{stage.name}': handover.lora 'continue' needs the stage's own `lora:`, the same one"
        )
    targets = lora_targets(model, groups, stage.lora)
    changed = changed_adapter(saved.adapters[TRAINED_ADAPTER][0], stage.lora, targets)
    if changed:
        raise RecipeError(
            f"stage '{stage.name}': handover.lora 'continue' trains the same adapter on, and `lora` says another one",
            got=f"{', '.join(changed)} changed since '{report.source}'",
            fix="Write the same `lora:` (dropout may differ), or use merge or stack.",
        )
    if stage.lora.qlora:
        from hfvla.training.lora.quantized import quantize

        quantize(model, targets)
    for adapter in saved.adapters:
        trains = adapter == TRAINED_ADAPTER
        dropout = stage.lora.dropout if trains else 0.0
        _put(model, saved, adapter, adapter, "continued" if trains else "stacked", report, dropout=dropout)


def _stack(model: nn.Module, stage: Stage, saved: SavedAdapters, report: HandoverReport) -> None:
    if stage.lora is None:
        raise RecipeError(f"stage '{stage.name}': handover.lora 'stack' needs `lora:`, the adapter that goes on top")
    if any(config.use_dora for config, _ in saved.adapters.values()) or stage.lora.dora:
        raise RecipeError(
            f"stage '{stage.name}': DoRA adapters do not stack: each rescales the whole weight, so they do not add up",
            fix="Use handover.lora: merge, or dora: false.",
        )
    if stage.lora.qlora:
        raise RecipeError(
            f"stage '{stage.name}': handover.lora 'stack' and qlora do not go together",
            fix="Use handover.lora: merge, or qlora: false.",
        )
    # Frozen adapters act as they did when they were evaluated: without dropout, also while the new one trains.
    for number, adapter in enumerate(saved.adapters, start=1):
        _put(model, saved, adapter, below_name(number), "stacked", report, dropout=0.0)

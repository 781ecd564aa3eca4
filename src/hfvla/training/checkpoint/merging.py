"""A trained checkpoint and its adapters as one plain checkpoint: what `hfvla merge` writes."""

from __future__ import annotations

import copy
import logging
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hfvla.errors import CheckpointError, did_you_mean
from hfvla.outputs import claim_new_folder
from hfvla.sealing import seal_folder
from hfvla.training.checkpoint.adapter_checkpoints import base_of, holds_adapters_alone
from hfvla.training.checkpoint.adapters import load_adapter, read_adapters
from hfvla.training.checkpoint.files import TEMPORARY
from hfvla.training.checkpoint.handover import tensor_names
from hfvla.training.checkpoint.record import saving
from hfvla.training.checkpoint.writing import save_by_names
from hfvla.training.stage.groups import adapter_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["DTYPES", "merge_checkpoint"]

logger = logging.getLogger(__name__)

DTYPES: dict[str, torch.dtype] = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
"""Types that weights may be written in."""

_ROUNDINGS = 8  # how many times the type's own rounding a merged weight may be away
_RECIPE = "recipe.json"


def merge_checkpoint(
    checkpoint: str | Path, output: str | Path, *, base: str | Path | None = None, dtype: str | None = None
) -> dict[str, Any]:
    """Write a checkpoint without adapters beside it, that computes the same.

    A stage's folder holds merged weights already; its adapters are merged again from the base weights beside them, and
    the two must agree. With `base`, the adapters of `checkpoint` are merged into that checkpoint's weights.

    Args:
        checkpoint: a stage's folder, `<out>/final`, or (with `base`) a folder that holds `adapter/`.
        output: folder to write; must not hold files.
        base: checkpoint that the adapters were trained on, for adapters that came without their model; a checkpoint
            inside a stage that holds adapters alone names its own.
        dtype: type of the written weights, see `DTYPES`; default: as they are.

    Returns:
        `dict`: output, family, adapters (names), adapter_parameters, parameters, dtype, largest_difference (of a
        weight, between the saved merged one and the one merged here; None where there was nothing to compare).

    Raises:
        CheckpointError: nothing to merge, adapters that do not fit or do not agree with the merged weights, an unknown
            type, or `output` holds files.
    """
    from hfvla.registry import load_checkpoint

    folder, target = Path(checkpoint), Path(output)
    if dtype is not None and dtype not in DTYPES:
        raise CheckpointError("no such type of weights", got=dtype, fix=did_you_mean(dtype, DTYPES))
    claim_new_folder(target, error=CheckpointError)
    saved = read_adapters(folder)
    if saved is None:
        _refuse_unmerged(folder)
        raise CheckpointError(
            "there are no adapters to merge",
            where=str(folder),
            expected="adapter/adapter_config.json in it",
            fix="A checkpoint without them is merged already: copy its folder.",
        )
    base = _base_beneath(folder) if base is None else base
    if base is None:
        spec, model, processor = load_checkpoint(folder)
        difference = _difference(model, folder, saved.base) if saved.base else None
    else:
        spec, model, processor = load_checkpoint(base)
        model, difference = _adapted(model, folder, base), None
    if dtype is not None:
        model = model.to(DTYPES[dtype])
    _write(model, processor, target, folder / _RECIPE)
    return {
        "output": str(target),
        "family": spec.name,
        "adapters": list(saved.adapters),
        "adapter_parameters": sum(saved.parameters(name) for name in saved.adapters),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "dtype": ", ".join(sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters()})),
        "largest_difference": difference,
    }


def _adapted(model: PreTrainedModel, folder: Path, base: str | Path) -> Any:
    """Return the base with the adapters merged in.

    Raises:
        CheckpointError: they were trained on another model.
    """
    try:
        return load_adapter(model, folder)
    except CheckpointError:
        raise
    except (ValueError, KeyError, RuntimeError, TypeError, AttributeError) as error:  # peft's, for layers not there
        raise CheckpointError(
            "these adapters were not trained on this base",
            where=f"{folder} on {base}",
            got=" ".join(str(error).split())[:200],
            fix="Name the checkpoint that they were trained on, with --base.",
        ) from error


def _base_beneath(folder: Path) -> str | Path | None:
    """Return the checkpoint that adapters without their model were trained on; None where the model is beside them.

    Raises:
        CheckpointError: it is nowhere.
    """
    if not holds_adapters_alone(folder):
        return None
    base = base_of(folder)
    if base is None:
        raise CheckpointError(
            "these adapters sit on new weights of their stage, which are in no checkpoint", where=str(folder),
            fix="Take a checkpoint of a stage with lora.checkpoints: full.",
        )  # fmt: skip
    return base


def _refuse_unmerged(folder: Path) -> None:
    """Refuse weights that lie under the names of layers with adapters; no class finds them by those.

    Raises:
        CheckpointError: naming one.
    """
    names = [name for file in sorted(folder.glob("model*.safetensors")) for name in tensor_names(file)]
    found = next((name for name in names if adapter_of(name) is not None), None)
    if found is not None:
        raise CheckpointError(
            "unmerged adapters among the weights: this is not a checkpoint that a class can load",
            where=str(folder),
            got=found,
            fix="Save with `StagedTrainer.save_model`, which merges them and keeps them in adapter/ too.",
        )


def _difference(model: PreTrainedModel, folder: Path, base: dict[str, torch.Tensor]) -> float:
    """Return the largest difference of a merged weight from base weight plus adapters.

    Raises:
        CheckpointError: more than rounding.
    """
    merged = model.state_dict()
    apart = copy.deepcopy(model)
    values = apart.state_dict()
    missing = [name for name in base if name not in values or values[name].shape != base[name].shape]
    if missing:
        raise CheckpointError(
            "the base weights beside the adapters do not fit the model", where=str(folder), got=missing[:4]
        )
    for name, value in base.items():
        values[name].copy_(value)
    worst = 0.0
    for name, value in load_adapter(apart, folder).state_dict().items():
        if name not in base:
            continue
        away = float((value.float() - merged[name].float()).abs().max()) if value.numel() else 0.0
        allowed = _ROUNDINGS * torch.finfo(value.dtype).eps * max(1.0, float(value.abs().max()))
        if away > allowed:
            raise CheckpointError(
                "the merged weights are not base weights plus adapters",
                where=f"{folder}: {name}",
                got=f"a difference of {away:.1e}",
                expected=f"at most {allowed:.1e}",
                fix="The folder holds files of two runs; merge with --base instead.",
            )
        worst = max(worst, away)
    return worst


def _write(model: PreTrainedModel, processor: ProcessorMixin, target: Path, recipe: Path) -> None:
    """Write to a temporary folder beside the target, then rename it."""
    temporary = target.with_name(f"{TEMPORARY}{target.name}-{os.getpid()}")  # never one that lay there before
    try:
        with saving("the merged checkpoint", temporary):
            temporary.mkdir()
            save_by_names(model, temporary)
            processor.save_pretrained(temporary)
            if recipe.is_file():  # evaluations rebuild the training rows from it
                shutil.copy2(recipe, temporary / _RECIPE)
            seal_folder(temporary, {"merged": True})
            if target.is_dir():
                target.rmdir()
            temporary.rename(target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    logger.info("wrote %s", target)

"""A trained backbone for people without hfvla: merged in transformers' own layout, or as an adapter in peft's.

    merged     AutoModel.from_pretrained(folder)
    adapter    PeftModel.from_pretrained(AutoModel.from_pretrained(base), folder)

What is written is loaded again as a stranger would, and must have the weights that were trained.
"""

from __future__ import annotations

import copy
import logging
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hfvla.errors import CheckpointError
from hfvla.family import PlainBackbone
from hfvla.fetching import local_checkpoint
from hfvla.loading import guarded, read_object
from hfvla.registry import load_checkpoint
from hfvla.training.checkpoint.adapters import read_adapters
from hfvla.training.checkpoint.record import saving

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

    from hfvla.family import FamilySpec

__all__ = ["plain_backbone", "write_adapter", "write_backbone"]

logger = logging.getLogger(__name__)

_PREFIX = "base_model.model."
_ROUNDINGS = 8  # how many times the type's own rounding a merged weight may be away


def plain_backbone(spec: FamilySpec, model: PreTrainedModel, processor: ProcessorMixin) -> PlainBackbone:
    """Return the transformers model inside a family's model.

    Raises:
        CheckpointError: the family has none that stands alone.
    """
    if spec.path("plain_backbone") is None:
        raise CheckpointError("models of this family have no backbone that stands alone", got=spec.name)
    return spec.load("plain_backbone")(model, processor)


def write_backbone(checkpoint: str | Path, target: Path) -> dict[str, Any]:
    """Write the backbone of a checkpoint, with all that was trained in it, as transformers would.

    Args:
        checkpoint: of hfvla; its adapters are merged already.
        target: new folder.

    Returns:
        `dict`: "class", "parameters", "left_out": parameters of the heads around it, which stay behind.

    Raises:
        CheckpointError: the checkpoint cannot be loaded, or what was written is not what was trained.
    """
    spec, model, processor = load_checkpoint(checkpoint)
    plain = plain_backbone(spec, model, processor)
    with saving("the backbone", target):
        plain.model.save_pretrained(target)
        for part in plain.processor:
            part.save_pretrained(target)
    again = type(plain.model).from_pretrained(target, use_safetensors=True, dtype="auto")
    _check_equal(again.state_dict(), plain.model.state_dict(), target, exact=True)
    inside = sum(parameter.numel() for parameter in plain.model.parameters())
    whole = sum(parameter.numel() for parameter in model.parameters())
    return {"class": type(plain.model).__name__, "parameters": inside, "left_out": whole - inside}


def write_adapter(checkpoint: str | Path, target: Path, base: str | None = None) -> dict[str, Any]:
    """Write a checkpoint's adapters for the plain backbone they were trained on, as peft would.

    Modules of the backbone that trained whole, beside the adapters, go along as peft's `modules_to_save`.

    Args:
        checkpoint: of hfvla, with `adapter/` in it.
        target: new folder.
        base: the plain backbone, a folder or hub id; default: what the checkpoint's recipe.json names.

    Returns:
        `dict`: "base", "adapter_parameters", "whole_modules", "left_out".

    Raises:
        CheckpointError: there are no adapters, or several; they trained on four-bit weights; the run did not begin
            from a backbone; an adapter lies outside of it; the base is not the one that the adapter was trained on.
    """
    from peft import get_peft_model, set_peft_model_state_dict

    folder = local_checkpoint(checkpoint)
    saved = read_adapters(folder)
    if saved is None or len(saved.adapters) != 1:
        raise CheckpointError(
            "the adapter form needs one adapter", where=str(checkpoint),
            got="none" if saved is None else f"{len(saved.adapters)}, one above the other",
            fix="Take the form 'merged' or 'final'.",
        )  # fmt: skip
    _refuse_four_bits(folder)
    spec, model, processor = load_checkpoint(folder)
    plain = plain_backbone(spec, model, processor)
    named, revision = _base_of(folder, plain.option) if base is None else (base, None)
    (config, tensors), outside = next(iter(saved.adapters.values())), f"{_PREFIX}{plain.module}.".replace("..", ".")
    wrong = sorted(name for name in tensors if not name.startswith(outside))
    if wrong:
        raise CheckpointError(
            "the adapter has layers outside of the plain backbone", where=str(checkpoint), got=wrong[0],
            fix="Take the form 'final'.",
        )  # fmt: skip
    source = guarded(named, lambda: type(plain.model).from_pretrained(
        named, revision=revision, use_safetensors=True, dtype=plain.model.dtype))  # fmt: skip
    tensors = {_PREFIX + name.removeprefix(outside): value for name, value in tensors.items()}
    adapted = {name.removeprefix(_PREFIX).split(".lora_")[0] for name in tensors}
    whole = _changed_modules(source, plain.model, adapted, named)
    peft_model = get_peft_model(source, _for_base(config, adapted, whole, named, revision))
    set_peft_model_state_dict(peft_model, {**tensors, **_whole(plain.model, whole)})
    with saving("the adapter", target):
        peft_model.save_pretrained(target)
        for part in plain.processor:
            part.save_pretrained(target)
        (target / "README.md").unlink(missing_ok=True)  # peft's own empty card
    _check_as_a_stranger(target, named, revision, plain.model)
    return {
        "base": named,
        "adapter_parameters": sum(value.numel() for value in tensors.values()),
        "whole_modules": whole,
        "left_out": sum(p.numel() for p in model.parameters()) - sum(p.numel() for p in plain.model.parameters()),
    }


def _refuse_four_bits(folder: Path) -> None:
    """Refuse an adapter that trained on four-bit weights: on whole ones it computes something else.

    Raises:
        CheckpointError: the last stage of its recipe says `lora.qlora`.
    """
    path = folder / "recipe.json"
    stages = read_object(path).get("stages") if path.is_file() else None
    last = stages[-1] if isinstance(stages, list) and stages and isinstance(stages[-1], dict) else {}
    if (last.get("lora") or {}).get("qlora"):
        raise CheckpointError(
            "the adapter was trained on four-bit weights, and a stranger would put it on whole ones",
            where=str(folder), got="lora.qlora: true", expected="an adapter of a stage without it",
            fix="Take the form 'merged' or 'final': they have the four-bit values, in full, with the adapter added.",
        )  # fmt: skip


def _base_of(folder: Path, option: str) -> tuple[str, str | None]:
    """Return the backbone that a checkpoint's run began from, and its revision; `model.pretrained` for option "".

    Raises:
        CheckpointError: it began from random weights, or there is no recipe to say it.
    """
    path = folder / "recipe.json"
    section = read_object(path).get("model") or {} if path.is_file() else {}
    options = {"": section.get("pretrained"), **(section.get("options") or {})}
    if not options.get(option):
        raise CheckpointError(
            "an adapter is for the backbone that its run began from, and this run names none", where=str(path),
            expected=f"model.options.{option} in it", fix="Take the form 'merged' or 'final'.",
        )  # fmt: skip
    return str(options[option]), options.get("revision") if option else section.get("revision")


def _for_base(config: PreTrainedConfig, adapted: set[str], whole: list[str], base: str, revision: str | None) -> Any:
    """Return peft's config with names as they are in the plain backbone."""
    config = copy.deepcopy(config)
    # One regex, as in training: peft takes each of a list for the end of a name.
    config.target_modules = "|".join(re.escape(name) for name in sorted(adapted))
    config.modules_to_save = whole or None
    config.base_model_name_or_path, config.revision = base, revision
    config.inference_mode = False  # else the whole modules would not be saved
    return config


def _changed_modules(source: Any, trained: Any, adapted: set[str], base: str) -> list[str]:
    """Return the modules without adapters whose weights are not those of the base any more.

    Raises:
        CheckpointError: the base has other tensors, or a weight changed that belongs to no module of its own.
    """
    before, after = source.state_dict(), trained.state_dict()
    odd = [name for name in {**before, **after} if name not in before or name not in after
           or before[name].shape != after[name].shape]  # fmt: skip
    if odd:
        raise CheckpointError("the backbone is another one than its base", where=base, got=sorted(odd)[:4])
    changed = set()
    for name, value in after.items():
        owner = name.rpartition(".")[0]
        if owner not in adapted and not torch.equal(value, before[name].to(value.dtype)):
            changed.add(owner)
    tops = sorted(name for name in changed if not any(name.startswith(f"{other}.") for other in changed))
    if "" in changed or any(one.startswith(f"{name}.") for name in tops for one in adapted):
        raise CheckpointError(
            "what trained beside the adapter does not fit into peft's layout", where=base, got=tops[:4],
            fix="Take the form 'merged' or 'final'.",
        )  # fmt: skip
    return tops


def _whole(trained: nn.Module, names: list[str]) -> dict[str, Tensor]:
    """Return the tensors of modules that trained whole, by their names in peft's file."""
    found = {}
    for name in names:
        for key, value in trained.get_submodule(name).state_dict().items():
            found[f"{_PREFIX}{name}.{key}"] = value
    return found


def _check_as_a_stranger(folder: Path, base: str, revision: str | None, trained: nn.Module) -> None:
    """Load base and adapter without anything of ours, merge them, and compare with what was trained.

    Raises:
        CheckpointError: more than rounding lies between them.
    """
    from peft import PeftModel

    dtype = next(trained.parameters()).dtype
    plain = type(trained).from_pretrained(base, revision=revision, use_safetensors=True, dtype=dtype)
    merged = PeftModel.from_pretrained(plain, str(folder)).merge_and_unload()
    _check_equal(merged.state_dict(), trained.state_dict(), folder)


def _check_equal(found: Mapping[str, Tensor], wanted: Mapping[str, Tensor], where: Path, exact: bool = False) -> None:
    if set(found) != set(wanted):
        names = sorted(set(found) ^ set(wanted))
        raise CheckpointError("what was written has other tensors than the model", where=str(where), got=names[:4])
    for name, value in wanted.items():
        away = float((found[name].float() - value.float()).abs().max()) if value.numel() else 0.0
        rounding = torch.finfo(value.dtype).eps if value.is_floating_point() else 0.0
        allowed = 0.0 if exact else _ROUNDINGS * rounding * max(1.0, float(value.float().abs().max()))
        if not away <= allowed:
            shutil.rmtree(where, ignore_errors=True)
            raise CheckpointError(
                "what was written is not what was trained", where=f"{where}: {name}",
                got=f"a difference of {away:.1e}", expected=f"at most {allowed:.1e}",
            )  # fmt: skip

"""A checkpoint's weights put back exactly: by their names in memory, adapters apart from the weights they sit on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hfvla.errors import CheckpointError
from hfvla.training.checkpoint.adapters import SavedAdapters, file_name, read_adapters
from hfvla.training.checkpoint.handover import load_state
from hfvla.training.lora.quantized import dequantized, four_bit_weights
from hfvla.training.stage.groups import adapter_of, plain_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["fill_exactly", "load_through_class", "may_be_absent", "stored_state"]

_SHOWN = 4


def may_be_absent(model: nn.Module, state: Mapping[str, Tensor]) -> set[str]:
    """Return names that a file need not hold: ties that the class declares, memory held twice, what it leaves out."""
    seen: dict[int, str] = {}
    shared = [
        name for name, value in state.items() if value.numel() and seen.setdefault(value.data_ptr(), name) != name
    ]
    ties = [*getattr(model, "all_tied_weights_keys", {}), *shared, *(seen[state[name].data_ptr()] for name in shared)]
    return {*ties, *(getattr(model, "_keys_to_ignore_on_save", None) or ())}


def stored_state(model: PreTrainedModel, folder: str | Path) -> dict[str, Tensor]:
    """Return a checkpoint's weights by the names that they have in `model`.

    Args:
        model: the model, with the adapters that were saved (if any).
        folder: a stage's folder or a checkpoint inside one.

    Raises:
        CheckpointError: no weights, or damaged ones.
    """
    state = load_state(folder)
    names = model.state_dict()
    if any(adapter_of(name) for name in state):  # an earlier version wrote adapters among the weights
        return state
    state = _by_names_in_memory(model, state, {plain_name(name) for name in names if not adapter_of(name)}, folder)
    saved = read_adapters(folder) or SavedAdapters()
    apart = {
        f"{adapter}:{name}": value for adapter, (_, found) in saved.adapters.items() for name, value in found.items()
    }
    for name in names:
        of, plain = adapter_of(name), plain_name(name)
        if of is not None and f"{of}:{file_name(name, of)}" in apart:
            state[name] = apart.pop(f"{of}:{file_name(name, of)}")
        elif of is None and plain != name and plain in saved.base:
            state[name] = saved.base[plain]
            state.pop(plain, None)
    return {**state, **apart}


def _by_names_in_memory(
    model: PreTrainedModel, state: dict[str, Tensor], names: set[str], folder: str | Path
) -> dict[str, Tensor]:
    """Return weights that were saved by other names, as transformers does for some models, by those of the class."""
    if names <= {*state, *may_be_absent(model, model.state_dict())} or not hasattr(type(model), "from_pretrained"):
        return state
    loaded, problems = load_through_class(model, folder)
    wrong = [f"{kind}: {name}" for kind, found in problems.items() for name in found]
    if wrong:
        raise _does_not_fit(model, folder, wrong, len(names))
    own: dict[str, Tensor] = loaded.state_dict()
    return own


def load_through_class(model: PreTrainedModel, folder: str | Path) -> tuple[Any, dict[str, list[str]]]:
    """Load a folder by the class of a model on the CPU; return what was loaded, and what did not fit by kind."""
    with torch.random.fork_rng(devices=[]):
        loaded, info = type(model).from_pretrained(folder, output_loading_info=True, ignore_mismatched_sizes=True)
    mismatched = sorted(info.get("mismatched_keys") or ())
    problems = {
        "missing": sorted(map(str, info.get("missing_keys") or ())),
        "unexpected": sorted(map(str, info.get("unexpected_keys") or ())),
        "of another shape": [f"{name} {list(got)} for {list(wanted)}" for name, got, wanted in mismatched],
    }
    return loaded, problems


def fill_exactly(model: PreTrainedModel, folder: str | Path) -> None:
    """Fill a model from a checkpoint of its own, to the bit; in place.

    `Trainer` loads what it finds under the names it knows and goes on with the rest as it is.

    Args:
        model: the model as it was when the checkpoint was written, unwrapped; its values do not matter.
        folder: the checkpoint.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape.
    """
    state, values = stored_state(model, folder), model.state_dict()
    absent = may_be_absent(model, values)
    _drop_four_bit(model, state, values, folder)
    problems = [f"missing: {name}" for name in values if name not in state and name not in absent]
    problems += [f"unexpected: {name}" for name in state if name not in values]
    problems += [
        f"{name} {list(value.shape)} for {list(values[name].shape)}"
        for name, value in state.items()
        if name in values and value.shape != values[name].shape
    ]
    if problems:
        raise _does_not_fit(model, folder, problems, len(values))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.load_state_dict(state, strict=False)


def _does_not_fit(model: PreTrainedModel, folder: str | Path, problems: list[str], tensors: int) -> CheckpointError:
    more = f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else ""
    return CheckpointError(
        "this checkpoint does not fit the model that goes on from it",
        where=str(folder),
        got="; ".join(problems[:_SHOWN]) + more,
        expected=f"the {tensors} tensors of {type(model).__name__}",
        fix="Go on with the model and the stage that it was written by, or begin the stage anew.",
    )


def _drop_four_bit(model: nn.Module, state: dict[str, Tensor], values: dict[str, Tensor], folder: str | Path) -> None:
    """Leave four-bit weights as the stage's start made them: they are frozen, and were saved in full.

    Raises:
        CheckpointError: the stage starts from other weights now.
    """
    packed = four_bit_weights(model)
    if not packed or any(f"{name}.quant_state" in key for key in state for name in packed):
        return  # none, or saved in four bits by an earlier version
    now = dequantized(model, values)
    for name in packed:
        saved = state.pop(name, None)
        if saved is not None and now[name].is_floating_point() and not torch.equal(saved, now[name].cpu()):
            raise CheckpointError(
                "the four-bit weights are not those that this stage began with", where=str(folder), got=name
            )
        for key in [key for key in values if key == name or key.startswith(f"{name}.")]:
            values.pop(key)

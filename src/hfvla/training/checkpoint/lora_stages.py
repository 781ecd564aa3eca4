"""Adapters of a model that goes from one stage to the next in memory, as a script hands it to `StagedTrainer`."""

from __future__ import annotations

import copy
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

from torch import nn

from hfvla.errors import RecipeError
from hfvla.family import ParameterGroup
from hfvla.recipe import Stage
from hfvla.training.checkpoint.adapters import SavedAdapters, file_name, merge_in_place
from hfvla.training.checkpoint.handover import HandoverReport
from hfvla.training.checkpoint.lora_handover import adapters_are_of, changed_adapter, place_adapters
from hfvla.training.lora.injection import adapters_in, lora_targets
from hfvla.training.lora.quantized import is_quantized
from hfvla.training.stage.groups import TRAINED_ADAPTER, adapter_of, plain_name

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["prepare_adapters"]

logger = logging.getLogger(__name__)


def prepare_adapters(model: nn.Module, groups: Mapping[str, ParameterGroup], stage: Stage) -> None:
    """Give a model the adapters of a stage; those of an earlier stage go as `handover.lora` says (default: merged).

    A stage of a recipe finds its adapters in place. So does one that trains on with the same `Stage`, and one that is
    given adapters made elsewhere which are what its `lora` asks for.

    Args:
        model: the model, changed in place.
        groups: parameter groups by name.
        stage: the stage.

    Raises:
        RecipeError: see `place_adapters`; earlier adapters on four-bit or partitioned weights.
    """
    earlier = adapters_are_of(model)
    if not adapters_in(model):
        if stage.lora is not None:
            place_adapters(model, groups, stage, None, HandoverReport("new"))
        return
    if earlier == stage or (earlier is None and _are_asked_for(model, groups, stage)):
        return
    where = f"stage '{stage.name}'"
    if is_quantized(model) or any(hasattr(parameter, "ds_shape") for parameter in model.parameters()):
        raise RecipeError(
            "the adapters of the stage before cannot be taken off weights that are in four bits or spread by ZeRO-3",
            where=where,
            fix="Save that stage with `trainer.save_model(folder)`, load the folder with `from_pretrained`, and go on "
            "with that model.",
        )
    source = earlier.name if earlier is not None else "the model"
    report = HandoverReport(source)
    saved = _adapters_of(model)
    if stage.handover.lora == "merge":
        merge_in_place(model)
    else:
        _take_off(model)
    place_adapters(model, groups, stage, saved, report)
    logger.info("%s: the LoRA of '%s': handover.lora '%s'", where, source, stage.handover.lora)


def _are_asked_for(model: nn.Module, groups: Mapping[str, ParameterGroup], stage: Stage) -> bool:
    """Tell whether adapters that the engine did not place are those that a stage trains."""
    if stage.lora is None:
        return True
    config = getattr(model, "peft_config", {}).get(TRAINED_ADAPTER)
    return config is not None and not changed_adapter(config, stage.lora, lora_targets(model, groups, stage.lora))


def _adapters_of(model: PreTrainedModel) -> SavedAdapters:
    """Return copies of a model's adapters, and the names of the weights that they sit on."""
    state, saved = model.state_dict(), SavedAdapters()
    for adapter in adapters_in(model):
        tensors = {file_name(n, adapter): value.clone() for n, value in state.items() if adapter_of(n) == adapter}
        saved.adapters[adapter] = copy.deepcopy(model.peft_config[adapter]), tensors
    saved.base = {plain_name(name): value for name, value in state.items() if ".base_layer." in name}
    return saved


def _take_off(model: PreTrainedModel) -> None:
    """Put the plain layers back in the places of adapted ones, their weights as they are without any adapter."""
    from peft.tuners.lora import LoraLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, LoraLayer):
            model.set_submodule(name, module.get_base_layer())
    del model.peft_config

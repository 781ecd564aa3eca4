"""A model's weights as an ordinary checkpoint: adapters merged, and beside it in `adapter/`.

The checkpoints inside a stage and the finished stage's have one layout, and each tensor has the name in the file that
it has in memory. transformers would write some models (ViT, DINOv2, Qwen2.5-VL, PaliGemma, LLaVA ...) by the names of
their first release, which its own `Trainer` then does not find on resuming.
"""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hfvla.training.checkpoint.adapters import ADAPTER_FOLDER, merged_model, write_adapters
from hfvla.training.lora.injection import adapters_in
from hfvla.training.lora.quantized import dequantized
from hfvla.training.stage.groups import adapter_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

__all__ = ["bare_model", "plain_state", "save_by_names", "write_model"]

_COMPILED = "_orig_mod."


def bare_model(trainer: Trainer) -> Any:
    """Return the model without what Accelerate, DDP, DeepSpeed or torch.compile put around it."""
    return trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)


def plain_state(model: PreTrainedModel, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return a state dict on the CPU, without torch.compile's prefixes and with four-bit weights back in full."""
    state = {name.replace(_COMPILED, ""): value.detach().cpu() for name, value in state.items()}
    return dequantized(model, state) if state else state


def save_by_names(model: PreTrainedModel, folder: str | Path, **kwargs: Any) -> None:
    """Save as `model.save_pretrained`, each tensor by the name that it has in memory."""
    accepted = inspect.signature(model.save_pretrained).parameters.values()
    if any(p.name == "save_original_format" or p.kind is inspect.Parameter.VAR_KEYWORD for p in accepted):
        kwargs["save_original_format"] = False
    model.save_pretrained(folder, **kwargs)


def write_model(trainer: Trainer, state: dict[str, Tensor], folder: Path, base: str | None = None) -> Any:
    """Write a checkpoint that `from_pretrained` loads: adapters merged, and saved in `adapter/` too (main process).

    Args:
        trainer: the trainer, after training.
        state: its weights, from `gathered_state`.
        folder: where.
        base: checkpoint that the run started from.

    Returns:
        `dict`: the tensors that the checkpoint must hold, by name.
    """
    model = bare_model(trainer)
    shutil.rmtree(folder / ADAPTER_FOLDER, ignore_errors=True)
    if not adapters_in(model):
        save_by_names(model, folder, state_dict=dict(state))
        return state
    merged = merged_model(model, state)
    written = dict(merged.state_dict())
    save_by_names(merged, folder, state_dict=dict(written))
    buffers = {name for name, _ in model.named_buffers() if name in state}
    beside = [name for name in state if adapter_of(name) is None and (name in trainer.trained or name in buffers)]
    write_adapters(model, state, folder, beside, base)
    return written

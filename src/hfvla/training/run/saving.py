"""A finished stage's weights: gathered from all processes, written as an ordinary checkpoint, audited."""

from __future__ import annotations

import logging
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hfvla.training.checkpoint.adapters import ADAPTER_FOLDER, check_adapters, merged_model, write_adapters
from hfvla.training.checkpoint.audit import audit_outputs, audit_reload, forward_outputs, sample_batch
from hfvla.training.checkpoint.record import saving
from hfvla.training.lora.injection import adapters_in
from hfvla.training.lora.quantized import dequantized
from hfvla.training.stage.groups import adapter_of

if TYPE_CHECKING:
    from hfvla.training.trainer.trainer import StagedTrainer

__all__ = ["bare_model", "gathered_state", "save_and_audit", "write_model"]

logger = logging.getLogger(__name__)

_COMPILED = "_orig_mod."


def bare_model(trainer: StagedTrainer) -> Any:
    """Return the model without what Accelerate, DDP, DeepSpeed or torch.compile put around it."""
    return trainer.accelerator.unwrap_model(trainer.model, keep_torch_compile=False)


def gathered_state(trainer: StagedTrainer) -> dict[str, Tensor]:
    """Return all weights on the CPU, also where processes hold a part each; every process must call it.

    Under ZeRO-3 and FSDP only the main process gets them; the others get an empty dict.
    """
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped) or {}
    state = {name.replace(_COMPILED, ""): value.detach().cpu() for name, value in state.items()}
    return dequantized(bare_model(trainer), state) if state else state


def write_model(trainer: StagedTrainer, state: dict[str, Tensor], folder: Path, base: str | None = None) -> Any:
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
        model.save_pretrained(folder, state_dict=dict(state))
        return state
    merged = merged_model(model, state)
    written = dict(merged.state_dict())
    merged.save_pretrained(folder, state_dict=dict(written))
    buffers = {name for name, _ in model.named_buffers() if name in state}
    beside = [name for name in state if adapter_of(name) is None and (name in trainer.trained or name in buffers)]
    write_adapters(model, state, folder, beside, base)
    return written


def save_and_audit(trainer: StagedTrainer, folder: Path, base: str | None = None) -> dict[str, Any]:
    """Write a finished stage's checkpoint, load it again and compare; every process must call it.

    Args:
        trainer: the trainer, after training.
        folder: where.
        base: checkpoint that the run started from.

    Returns:
        `dict`: "tensors" in the checkpoint, "outputs" compared and their "largest_difference"; empty on processes
        other than the main one.

    Raises:
        CheckpointError: the checkpoint does not hold what was trained, or does not compute the same.
    """
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config

    state = gathered_state(trainer)
    batch = sample_batch(trainer)
    with trainer.accelerator.autocast():
        reference = forward_outputs(trainer.model_wrapped, batch)
    # While a ZeRO-3 config is alive, transformers partitions every model it loads; the copy below must be whole.
    unset_hf_deepspeed_config()
    if not trainer.is_world_process_zero():
        return {}
    with saving(f"stage '{trainer.stage.name}': its checkpoint", folder):
        written = write_model(trainer, state, folder, base)
    loaded = audit_reload(bare_model(trainer), folder, written)
    check_adapters(folder, state)
    worst = audit_outputs(trainer, loaded, batch, reference, folder)
    logger.info("%s: %d tensors saved as trained; outputs differ by %.1e at most", folder.name, len(written), worst)
    return {"tensors": len(written), "outputs": sorted(reference), "largest_difference": worst}

"""A finished stage's weights: gathered from all processes, written as an ordinary checkpoint, audited."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from hfvla.nn.objective import carry_objective
from hfvla.training.checkpoint.adapters import check_adapters
from hfvla.training.checkpoint.audit import audit_outputs, audit_reload, forward_outputs, sample_batch
from hfvla.training.checkpoint.finite import refuse_nonfinite
from hfvla.training.checkpoint.record import saving
from hfvla.training.checkpoint.writing import bare_model, plain_state, write_model

if TYPE_CHECKING:
    from hfvla.training.trainer.trainer import StagedTrainer

__all__ = ["gathered_state", "save_and_audit"]

logger = logging.getLogger(__name__)


def gathered_state(trainer: StagedTrainer) -> dict[str, Tensor]:
    """Return all weights on the CPU, also where processes hold a part each; every process must call it.

    Under ZeRO-3 and FSDP only the main process gets them; the others get an empty dict.
    """
    return plain_state(bare_model(trainer), trainer.accelerator.get_state_dict(trainer.model_wrapped) or {})


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
        CheckpointError: the checkpoint does not hold what was trained, or does not compute the same; trained weights
            that are no numbers.
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
    refuse_nonfinite({name: state[name] for name in trainer.trained if name in state}, folder)
    with saving(f"stage '{trainer.stage.name}': its checkpoint", folder):
        written = write_model(trainer, state, folder, base)
    loaded = audit_reload(bare_model(trainer), folder, written)
    check_adapters(folder, state)
    carry_objective(bare_model(trainer), loaded)
    worst = audit_outputs(trainer, loaded, batch, reference, folder)
    logger.info("%s: %d tensors saved as trained; outputs differ by %.1e at most", folder.name, len(written), worst)
    return {"tensors": len(written), "outputs": sorted(reference), "largest_difference": worst}

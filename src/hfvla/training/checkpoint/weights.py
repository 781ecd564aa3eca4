"""A Trainer whose checkpoints hold weights as `from_pretrained` reads them, and that loads them back to the bit."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

from transformers import PreTrainedModel, Trainer

from hfvla.training.checkpoint.adapter_checkpoints import (
    fill_adapters,
    frozen_hash,
    holds_adapters_alone,
    trained_beside,
    write_adapters_alone,
)
from hfvla.training.checkpoint.adapters import check_adapters
from hfvla.training.checkpoint.stored import fill_exactly
from hfvla.training.checkpoint.writing import bare_model, plain_state, write_model
from hfvla.training.lora.injection import adapters_in

__all__ = ["OrdinaryWeights"]

logger = logging.getLogger(__name__)

_ARGUMENTS = "training_args.json"  # the Trainer pickles them


class OrdinaryWeights(Trainer):
    """Saves adapters merged and beside the weights, each tensor by its name in memory; loads what fits exactly.

    Attributes:
        checkpoint_base: what the stage started from, named in checkpoints that hold adapters alone.
        checkpoint_processor: written into each checkpoint, so that it can be scored; default: `processing_class`.
    """

    checkpoint_processor: Any = None
    checkpoint_base: str | None = None
    _frozen_hash: str | None = None  # hash of the frozen weights, which is made once

    def saves_adapters_alone(self) -> bool:
        """Tell whether a checkpoint inside the stage leaves the frozen weights out."""
        lora = getattr(getattr(self, "stage", None), "lora", None)
        return lora is not None and lora.checkpoints == "adapters" and bool(adapters_in(bare_model(self)))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        """Load the weights by their names in memory, to the bit; what the Trainer does not find it leaves as it is."""
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        elif holds_adapters_alone(resume_from_checkpoint):
            fill_adapters(bare_model(self), resume_from_checkpoint, getattr(self, "trained", {}))
        else:
            fill_exactly(bare_model(self), resume_from_checkpoint)

    def _load_best_model(self) -> None:
        """Load the best checkpoint as `_load_from_checkpoint` does."""
        if self.is_deepspeed_enabled or self.is_fsdp_enabled:
            super()._load_best_model()
        else:
            logger.info("the best weights are those of %s", self.state.best_model_checkpoint)
            best = str(self.state.best_model_checkpoint)
            if holds_adapters_alone(best):
                fill_adapters(bare_model(self), best, getattr(self, "trained", {}), check=False)
            else:
                fill_exactly(bare_model(self), best)

    def _save(self, output_dir: str | None = None, state_dict: dict[str, Any] | None = None) -> None:
        """Save as the Trainer does, the model as an ordinary checkpoint: adapters merged, and beside it in `adapter/`.

        Raises:
            CheckpointError: the adapters on disk are not those in memory.
        """
        model, folder = bare_model(self), Path(output_dir or str(self.args.output_dir))
        own_files = self.is_deepspeed_enabled and state_dict == {}  # of DeepSpeed, in place of these
        inside = getattr(self, "_save_parent", None) is not None
        if inside and self.saves_adapters_alone() and state_dict is None:
            if self.args.should_save:
                trained = getattr(self, "trained", {})
                self._frozen_hash = self._frozen_hash or frozen_hash(model, trained_beside(model, trained))
                write_adapters_alone(model, folder, trained, self._frozen_hash, self.checkpoint_base)
                self._save_beside(folder)
        elif own_files or not isinstance(model, PreTrainedModel):
            super()._save(output_dir, state_dict)
        elif self.args.should_save:
            adapted = bool(adapters_in(model))
            state = model.state_dict() if state_dict is None else state_dict
            state = plain_state(model, state) if adapted or state_dict is not None else state
            folder.mkdir(parents=True, exist_ok=True)
            write_model(self, state, folder, getattr(model.config, "_name_or_path", None) or None)
            check_adapters(folder, state if adapted else {})
            self._save_beside(folder)

    def _save_beside(self, folder: Path) -> None:
        """Save processor (or the collator's tokenizer) as the Trainer does, and the arguments as JSON."""
        processor = (
            self.checkpoint_processor or self.processing_class or getattr(self.data_collator, "tokenizer", None)
        )
        if processor is not None:
            processor.save_pretrained(folder)
        (folder / _ARGUMENTS).write_text(self.args.to_json_string() + "\n", encoding="utf-8")

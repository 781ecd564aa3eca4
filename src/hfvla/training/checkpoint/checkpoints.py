"""Checkpoints that a run can be killed around: written whole or not at all, and gone on from to the bit.

transformers' Trainer writes a checkpoint file by file under its final name, and forgets what it has summed up since
the last log line, how often in a row an evaluation was no better, and that a stage had already ended. `ExactResume`
adds what is missing; docs/resume.md says what is promised.
"""

from __future__ import annotations

import json
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import EarlyStoppingCallback, TrainerCallback, TrainerState
from transformers.trainer_callback import ExportableState

from hfvla.errors import CheckpointError
from hfvla.sealing import check_contents
from hfvla.training.checkpoint.audit import audit_checkpoint
from hfvla.training.checkpoint.files import (
    MANIFEST,
    TEMPORARY,
    checkpoint_step,
    clean_checkpoints,
    last_checkpoint,
    publish,
    read_manifest,
    rotate,
    write_manifest,
)
from hfvla.training.checkpoint.length_order import length_sampler
from hfvla.training.checkpoint.record import saving
from hfvla.training.checkpoint.settings import (
    changed_settings,
    check_arguments,
    check_same_run,
    current_settings,
    put_settings,
    run_settings,
)
from hfvla.training.checkpoint.streams import join_streams, part_streams
from hfvla.training.checkpoint.weights import OrdinaryWeights

if TYPE_CHECKING:
    from transformers import PreTrainedModel, TrainerControl, TrainingArguments

__all__ = ["ExactResume"]

logger = logging.getLogger(__name__)

_STATE = "trainer_state.json"


class _Resume(TrainerCallback):
    """Brings back what the Trainer does not, once it has set itself up, and tells the data which epoch begins."""

    def __init__(self, trainer: ExactResume) -> None:
        self.trainer = trainer

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Restore sums, counters and the best checkpoint's place."""
        self.trainer.train_started(state)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Set the epoch of dataset, collator and sampler; resumed in the middle, it is the epoch begun before."""
        self.trainer.set_data_epoch(int(state.epoch or 0))
        self.trainer.epoch_ended = False

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Note that a checkpoint written from here on has the end of the epoch behind it."""
        self.trainer.epoch_ended = True


class ExactResume(OrdinaryWeights):
    """A Trainer whose `train(resume_from_checkpoint=...)` ends bit-equal to a run that was never stopped.

    Subclasses that sum or count something while training keep it through `resume_state` and `load_resume_state`.

    Raises:
        RecipeError: an argument that makes resuming inexact.
    """

    stage: Any
    control: Any
    lr_scheduler: Any

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        self._save_parent: Path | None = None
        self._resumed: Path | None = None
        self._resumed_settings: dict[str, Any] | None = None
        self._stopped_early, self._lengthened = False, False
        self.epoch_ended, self._owes_epoch_end = False, False
        self._last_step: tuple[Any, Any] = (None, None)  # norm of gradient, learning rate
        self.seconds_before, self._began = 0.0, time.time()
        super().__init__(*args, **kwargs)
        check_arguments(self.args)
        self.add_callback(_Resume(self))

    # ---- what a subclass adds ---------------------------------------------------------------------------------------

    def resume_state(self) -> dict[str, Any]:
        """Return what this process needs to go on, as JSON; a subclass adds its own keys to `super()`'s."""
        return {
            "loss_since_log": self._tr_loss.item(),
            "loss_until_log": self._total_loss_scalar,
            "last_logged_step": self._globalstep_last_logged,
            "first_step": self._initial_global_step,
            "last_step": [None if value is None else float(value) for value in self._last_step],
            "epoch_ended": self.epoch_ended,
            "seconds": self.seconds_trained(),
        }

    def load_resume_state(self, state: Mapping[str, Any]) -> None:
        """Bring back what `resume_state` returned when the checkpoint was written; runs when training begins."""
        self._tr_loss = torch.tensor(state["loss_since_log"], device=self.args.device)
        self._total_loss_scalar = state["loss_until_log"]
        self._globalstep_last_logged = state["last_logged_step"]
        self._initial_global_step = state["first_step"]
        self._last_step = tuple(state["last_step"])
        over = self._stopped_early or self._no_step_left() or float(self.state.epoch).is_integer()
        self._owes_epoch_end = over and not state["epoch_ended"]
        self.seconds_before = state["seconds"]

    def seconds_trained(self) -> float:
        """Return the time spent in `train`, with that of the attempts before this one."""
        return self.seconds_before + time.time() - self._began

    # ---- going on ---------------------------------------------------------------------------------------------------

    def find_checkpoint(self, clean: bool = False) -> str | None:
        """Return the newest complete checkpoint in `args.output_dir`, the same one on every process.

        Args:
            clean: also delete what an interrupted save left there, and everything if there is nothing to go on from.
        """
        folder, step = Path(self.args.output_dir), -1
        if self.is_world_process_zero():
            found = clean_checkpoints(folder) if clean else last_checkpoint(folder)
            step = (checkpoint_step(found) or 0) if found else -1
        if self.args.world_size > 1:
            from accelerate.utils import broadcast

            step = int(broadcast(torch.tensor([step], device=self.args.device))[0])
        return str(folder / f"checkpoint-{step}") if step >= 0 else None

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train as `Trainer.train`.

        Args:
            resume_from_checkpoint: a checkpoint folder; True for the newest complete one in `args.output_dir`, or the
                beginning where there is none.
            *args: as for `Trainer.train`.
            **kwargs: as for `Trainer.train`.

        Raises:
            CheckpointError: the checkpoint is torn or missing, or is of a run set up in another way.
        """
        if resume_from_checkpoint is True:
            resume_from_checkpoint = self.find_checkpoint()
        self._resumed, self._resumed_settings = None, None
        self._stopped_early, self._lengthened, self._owes_epoch_end = False, False, False
        if resume_from_checkpoint:
            self._resumed = Path(str(resume_from_checkpoint))
            self._check_resumed(self._resumed)
        self._remove_unfinished()
        try:
            return super().train(str(self._resumed) if self._resumed else None, *args, **kwargs)
        finally:
            join_streams(self.args)

    def _check_resumed(self, folder: Path) -> None:
        manifest = read_manifest(folder)
        if manifest is None:
            raise CheckpointError(
                "not a complete checkpoint; it may have been written by another version, or cut short",
                where=str(folder),
                expected=f"{MANIFEST} and every file it lists",
                fix="Name an older checkpoint, or none to begin anew.",
            )
        check_contents(folder)
        check_same_run(manifest["settings"], run_settings(self), folder)
        self._resumed_settings = manifest["settings"]
        saved = json.loads((folder / _STATE).read_text(encoding="utf-8"))
        control = saved["stateful_callbacks"].get("TrainerControl", {"args": {}})["args"]
        self._stopped_early = bool(control.get("should_training_stop")) and saved["global_step"] < saved["max_steps"]
        changed = changed_settings(self._resumed_settings, run_settings(self))
        self._lengthened = bool({"num_train_epochs", "max_steps"} & set(changed))
        self._stopped_early = self._stopped_early and not self._lengthened  # it is asked for more

    def _remove_unfinished(self) -> None:
        if self.is_world_process_zero():
            for path in list(Path(self.args.output_dir).glob(f"{TEMPORARY}checkpoint-*")):
                shutil.rmtree(path)
        self.accelerator.wait_for_everyone()

    def train_started(self, state: TrainerState) -> None:
        """Restore what belongs to this process; called by the Trainer's callback when training begins."""
        self.seconds_before, self._began = 0.0, time.time()
        part_streams(self.args)
        exportable = [part for part in self.callback_handler.callbacks if isinstance(part, ExportableState)]
        for callback in exportable:
            name = type(callback).__name__
            saved = state.stateful_callbacks.setdefault(name, callback.state()) if self._resumed else {}
            for key, value in (saved.get("attributes", {}) if isinstance(saved, dict) else {}).items():
                setattr(callback, key, value)
            if self._lengthened and isinstance(callback, EarlyStoppingCallback):
                callback.early_stopping_patience_counter = 0
        if self._resumed is None:
            return
        state.compute_steps(self.args, state.max_steps)  # of the recipe as it is now
        self._restore_best(state)
        self._load_own_state(self._resumed)

    def _load_own_state(self, folder: Path) -> None:
        own = folder / f"engine-{self.args.process_index}.json"
        self.load_resume_state(json.loads(own.read_text(encoding="utf-8")))

    def _restore_best(self, state: TrainerState) -> None:
        """Point at the best checkpoint where it is now; the Trainer forgets it when the run folder was moved."""
        assert self._resumed is not None
        saved = json.loads((self._resumed / _STATE).read_text(encoding="utf-8"))["best_model_checkpoint"]
        if saved is None or not self.args.load_best_model_at_end:
            return
        best = self._resumed.parent / Path(saved).name
        if read_manifest(best) is None:
            raise CheckpointError(
                "the best checkpoint so far is missing or cut short",
                where=str(best),
                fix=f"Put it back, or delete {self._resumed.parent} to begin this stage anew.",
            )
        check_contents(best)
        state.best_model_checkpoint = str(best)

    def set_data_epoch(self, epoch: int) -> None:
        """Tell dataset, collator and sampler which epoch is read next."""
        for part in (self.train_dataset, self.data_collator):
            if hasattr(part, "set_epoch"):
                part.set_epoch(epoch)
        if self._order is not None:
            self._order.manual_seed((self.args.data_seed or self.args.seed) + epoch)

    _order: torch.Generator | None = None

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        """Give samplers that shuffle by themselves (group_by_length) a generator that the epoch seeds."""
        from torch.utils.data import RandomSampler

        sampler = length_sampler(self) or super()._get_train_sampler(*args, **kwargs)
        if getattr(sampler, "generator", False) is None and not isinstance(sampler, RandomSampler):
            sampler.generator = self._order = torch.Generator()
        return sampler

    def _no_step_left(self) -> bool:
        return 0 < self.state.max_steps <= self.state.global_step

    def _run_epoch(self, *args: Any, **kwargs: Any) -> None:
        """Read an epoch; nothing where the stage had ended already (the Trainer alone takes a step more)."""
        self._end_epoch_before(kwargs.get("trial"), kwargs["start_time"])
        if self._stopped_early or self._no_step_left():
            self.control.should_training_stop = True
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def _finalize_training(self, trial: Any, num_train_samples: Any, start_time: float) -> Any:
        self._end_epoch_before(trial, start_time)
        return super()._finalize_training(trial, num_train_samples, start_time - self.seconds_before)

    def _end_epoch_before(self, trial: Any, start_time: float) -> None:
        """End the last epoch (log, evaluate), where the checkpoint was saved after its last step but before that."""
        if not self._owes_epoch_end or self._resumed is None:
            return
        self._load_own_state(self._resumed)  # once more: callbacks have prepared the next step since
        self._owes_epoch_end = False
        super()._load_rng_state(str(self._resumed))
        self._random_state_is_newer = True
        self.control = self.callback_handler.on_epoch_end(self.args, self.state, self.control)
        norm, rate = self._last_step
        epoch = max(int(self.state.epoch or 0) - 1, 0)
        super()._maybe_log_save_evaluate(
            self._tr_loss, norm, self.model_wrapped, trial, epoch, None, start_time, learning_rate=rate
        )
        self.epoch_ended = False

    _random_state_is_newer = False

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if not self._random_state_is_newer:
            super()._load_rng_state(checkpoint)
        self._random_state_is_newer = False

    def _maybe_log_save_evaluate(self, tr_loss: Any, grad_norm: Any, *args: Any, **kwargs: Any) -> None:
        self._last_step = (grad_norm, kwargs.get("learning_rate"))
        super()._maybe_log_save_evaluate(tr_loss, grad_norm, *args, **kwargs)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        """Load both; where the recipe was changed, its learning rates and decay hold from here on."""
        changed = changed_settings(self._resumed_settings, run_settings(self)) if checkpoint else {}
        if not changed:
            super()._load_optimizer_and_scheduler(checkpoint)
            return
        logger.warning("going on with changed settings: %s", "; ".join(changed.values()))
        if self.is_deepspeed_enabled:
            raise CheckpointError(
                "DeepSpeed brings back the optimizer's old settings with its state",
                where=str(checkpoint),
                got="; ".join(changed.values()),
                fix="Undo these changes, or begin the stage anew.",
            )
        kept = current_settings(self.optimizer, self.lr_scheduler)
        super()._load_optimizer_and_scheduler(checkpoint)
        put_settings(self.optimizer, self.lr_scheduler, *kept)

    # ---- saving -----------------------------------------------------------------------------------------------------

    def _get_output_dir(self, trial: Any) -> str:
        return str(self._save_parent) if self._save_parent else super()._get_output_dir(trial)

    def _push_from_checkpoint(self, checkpoint_folder: str) -> None:
        if self._save_parent is None:  # not while it still has its temporary name
            super()._push_from_checkpoint(checkpoint_folder)

    def _save_checkpoint(self, model: PreTrainedModel, trial: Any) -> None:
        """Save as the Trainer does, under a temporary name; rename once every process has written its part.

        Raises:
            CheckpointError: the disk is full; checkpoints saved before are untouched.
        """
        parent = Path(self._get_output_dir(trial))
        name = f"checkpoint-{self.state.global_step}"
        self._save_parent = parent / f"{TEMPORARY}{name}"
        try:
            with saving(
                f"stage '{self.stage.name}': checkpoint of step {self.state.global_step}", parent, _kept(parent)
            ):
                super()._save_checkpoint(model, trial)
                written = self._save_parent / name
                own = written / f"engine-{self.args.process_index}.json"
                own.write_text(json.dumps(self.resume_state()), encoding="utf-8")
                self._point_at_best(parent)
                self.accelerator.wait_for_everyone()
                if self.is_world_process_zero():
                    self._publish(written, parent / name)
        except BaseException:
            shutil.rmtree(self._save_parent, ignore_errors=True)  # makes room again
            raise
        finally:
            self._save_parent = None
        self.accelerator.wait_for_everyone()
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(parent / name))

    def _point_at_best(self, parent: Path) -> None:
        """Name the best checkpoint by its final place; while saving, the Trainer saw only the temporary one."""
        if self.state.best_model_checkpoint:
            self.state.best_model_checkpoint = str(parent / Path(self.state.best_model_checkpoint).name)

    def _publish(self, written: Path, final: Path) -> None:
        self.state.save_to_json(str(written / _STATE))
        facts = {
            "step": self.state.global_step,
            "resumable": not self.args.save_only_model,
            "settings": run_settings(self),
        }
        audit_checkpoint(self, written)
        write_manifest(written, facts)
        publish(written, final)
        written.parent.rmdir()
        best = self.state.best_model_checkpoint
        rotate(final.parent, self.args.save_total_limit, [final, *([Path(best)] if best else [])])


def _kept(parent: Path) -> str:
    found = last_checkpoint(parent)
    return f"It goes on from {found.name}, which is untouched." if found else "The stage begins anew then."

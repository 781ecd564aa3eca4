"""StagedTrainer: transformers' Trainer for one stage of a plan."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from hfvla.family import ParameterGroup
from hfvla.recipe import Stage
from hfvla.training.checkpoint.lora_stages import prepare_adapters
from hfvla.training.stage.groups import (
    GroupRow,
    assign_phases,
    freeze,
    fully_frozen_modules,
    stop_input_gradients,
    trainable_table,
)
from hfvla.training.stage.phases import (
    PhaseCallback,
    Timeline,
    begins,
    entry_phases,
    entry_rates,
    gate_schedule,
    loss_terms,
    open_gates,
    phase_entries,
)
from hfvla.training.trainer.checkpointing import checkpoint_frozen_layers
from hfvla.training.trainer.devices import one_gpu_a_process, stage_out_of_memory_told
from hfvla.training.trainer.extra_terms import add_terms
from hfvla.training.trainer.fsdp import joined_parts_only, prepare_fsdp
from hfvla.training.trainer.given import check_given, checked_metrics
from hfvla.training.trainer.group_batches import GroupSampler, build_group_sampler
from hfvla.training.trainer.honoured import (
    check_learning_rates,
    check_lora_trains,
    check_script_stage,
    find_unused_parameters,
    with_patience,
)
from hfvla.training.trainer.master_weights import engine_type, train_in_float32
from hfvla.training.trainer.memory import EarlierTrainers
from hfvla.training.trainer.objective import ObjectiveTrainer
from hfvla.training.trainer.optimizers import stage_optimizer
from hfvla.training.trainer.pace import Pace, callback_scalars
from hfvla.training.trainer.weight_decay import decayed_parameters
from hfvla.training.trainer.zero import accept_scalars, check_offload, fill_bucket_sizes, reset_joining_state

__all__ = ["StagedTrainer"]

logger = logging.getLogger(__name__)

_EARLIER = EarlierTrainers()


class StagedTrainer(ObjectiveTrainer):
    """Trains the parameter groups of one stage on its weighted loss terms, and logs each term by name.

    Works with any `PreTrainedModel`: one whose output has `loss_terms` (a dict of unweighted scalars) is trained on
    `sum(weight[name] * loss_terms[name])`; any other on its own `loss`, called the term "loss". While training the
    weights are those of the step; an evaluation weighs with the stage's last ones, so that its numbers compare.

    A term is a mean over what a batch has for it; a model with `term_counts(batch) -> {name: number}` says over how
    much, and the term is then the mean over the whole optimizer step, on all processes. Others count by rows.

    Phases: whatever the stage ever trains requires gradients while the model is wrapped (DDP and ZeRO look then, and
    only then); from the first step on, exactly the parts of the current phase do. Each phase has optimizer groups of
    its own, whose learning rate is 0 until it begins.

    Args:
        model (`PreTrainedModel`): the model; parameters outside `stage.train` and its phases' `add` are frozen.
        args (`TrainingArguments`): `args.learning_rate` holds for groups that `stage.learning_rates` does not name.
        stage (`Stage`): what trains, on which losses.
        groups (`Mapping[str, ParameterGroup]`): the names that `stage.train` may use.
        from_recipe (`bool`): the run of a recipe acts on `args`, `data`, `cache`, `model`, `handover`, `keep_best`
            and `patience` of the stage. In a script they must be held already (see `honoured.py`); `patience` is.
        loss_functions (`Mapping[str, Any]`): further loss terms by name, `compute(model, batch, outputs) -> Tensor`;
            those that the stage weighs are computed (`hfvla.plugins.LossFunction`).
        **kwargs: as for `Trainer`.

    Raises:
        RecipeError: an argument of another kind than said above, a group that does not exist or matches nothing, a
            phase that adds what trains already, phases with settings under which parts cannot join, or a field of the
            stage that a script does not honour.
        DataError: the training data has no row.
    """

    optimizer: Any

    def __init__(
        self,
        model: nn.Module | None = None,
        args: Any = None,
        *,
        stage: Stage | None = None,
        groups: Mapping[str, ParameterGroup] | None = None,
        from_recipe: bool = False,
        loss_functions: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        check_given(model, args, stage, groups, kwargs)
        assert stage is not None and groups is not None  # `check_given` says so in words
        if kwargs.get("compute_metrics") is not None:
            kwargs["compute_metrics"] = checked_metrics(kwargs["compute_metrics"])
        self.stage, self.groups = stage, groups
        self._names_checked = from_recipe
        where = f"stage '{stage.name}'"
        check_learning_rates(stage)
        check_lora_trains(stage, groups)
        if not from_recipe:
            check_script_stage(stage, args, model)
            kwargs["callbacks"] = with_patience(stage, kwargs.get("callbacks"))
        _EARLIER.free_those_of(model)
        wanted = loss_terms(stage)
        add_terms(model, {name: one for name, one in (loss_functions or {}).items() if name in wanted}, where)
        prepare_adapters(model, groups, stage)
        self.trained = assign_phases(model, groups, phase_entries(stage), where)
        self._phase_of = entry_phases(stage)
        self._joins = any(phase.add for phase in stage.phases)
        self._freeze_to(model, 0)
        freeze(model, self.trained)
        self._last_rates: dict[str, float] = {}  # of the last step, for the log
        if self._joins and args is not None:
            find_unused_parameters(args, where)
        super().__init__(model=model, args=args, **kwargs)
        _EARLIER.add(self)
        one_gpu_a_process(self.args.n_gpu, where)
        train_in_float32(self)
        self.add_callback(PhaseCallback(self._enter_step))
        self.pace = Pace()
        self.add_callback(self.pace)
        self.build_objective()
        if self.is_deepspeed_enabled:
            accept_scalars()
            config = self.accelerator.state.deepspeed_plugin.hf_ds_config.config
            fill_bucket_sizes(config, model)
            if self._joins:
                check_offload(config, where)

    def learning_rates(self) -> dict[str, float]:
        """Return the peak learning rate by entry of `stage.train` and of its phases' `add`."""
        return entry_rates(self.stage, self.args.learning_rate)

    def trainable_table(self) -> list[GroupRow]:
        """Return the tables of groups that are printed before the stage: one for each phase that adds something."""
        rows: list[GroupRow] = []
        decayed = self.get_decay_parameter_names(self.model) if self.args.weight_decay else ()
        for number, entries in enumerate(phase_entries(self.stage)):
            if entries:
                trained = self._trained_in(number)
                rows += trainable_table(
                    self.model, self.groups, trained, self.learning_rates(), number, decayed, engine_type(self)
                )
        return rows

    def _trained_in(self, phase: int) -> dict[str, str]:
        """Return the entry of each parameter that trains in a phase."""
        return {name: entry for name, entry in self.trained.items() if self._phase_of[entry] <= phase}

    def _freeze_to(self, model: nn.Module, phase: int) -> None:
        freeze(model, self._trained_in(phase))
        self._phase, self._frozen = phase, fully_frozen_modules(model)

    def _enter_step(self, step: int) -> None:
        """Put model and optimizer into the phase of optimizer step `step`."""
        if self.timeline is None:
            raise RuntimeError("a phase begins before the steps of the stage are known")
        phase = self.timeline.phase_at(step)
        if phase != self._phase:
            self._freeze_to(self.model, phase)
            if phase:
                logger.info("stage '%s': phase %d of %s", self.stage.name, phase, begins(self.stage.phases[phase - 1]))
            if self._gated is not None:
                open_gates(self._gated)
        # Only at the step itself: a run that resumes later finds the state as it was left.
        for joining in self.timeline.joining_at(step):
            reset_joining_state(self.optimizer, joining)
        self._last_rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups if "name" in group}

    def set_initial_training_values(self, *args: Any, **kwargs: Any) -> Any:
        """Count epochs and steps as `Trainer` does, and lay the phases out on them."""
        if not (self.args.gradient_checkpointing_kwargs or {}).get("use_reentrant"):
            stop_input_gradients(self.model)  # Trainer has just switched checkpointing on
        checkpoint_frozen_layers(self.model)
        values = super().set_initial_training_values(*args, **kwargs)
        self.timeline = Timeline.of(self.stage, steps_per_epoch=values[1], max_steps=values[-1])
        return values

    _group_order: GroupSampler | None = None
    _gated: Any = None  # the schedule, where parts join later

    def _get_train_sampler(self, *args: Any, **kwargs: Any) -> Any:
        if self.stage.batches is None:
            return super()._get_train_sampler(*args, **kwargs)
        self._group_order = build_group_sampler(self)
        return self._group_order

    def set_data_epoch(self, epoch: int) -> None:
        """Tell dataset, collator and sampler which epoch is read next."""
        super().set_data_epoch(epoch)
        if self._group_order is not None:
            self._group_order.set_epoch(epoch)

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer with one parameter group for each entry that ever trains, with or without decay."""
        if self.optimizer is None:
            optimizer_model = self.model if model is None else model
            with stage_optimizer(self, optimizer_model, self._parameter_groups(optimizer_model)):
                super().create_optimizer(model)
        return self.optimizer

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        """Return what `Trainer` would decay, without vectors, scalars and what the model says must not decay."""
        return decayed_parameters(model, super().get_decay_parameter_names(model))

    def _parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        decayed = set(self.get_decay_parameter_names(model))
        rates = self.learning_rates()
        result = []
        for entry, phase in self._phase_of.items():  # phase by phase: no group may hold parameters of two
            for decay in (True, False):
                chosen = [
                    parameter
                    for name, parameter in model.named_parameters()
                    if self.trained.get(name) == entry and (name in decayed) == decay
                ]
                if chosen:
                    settings = {"weight_decay": self.args.weight_decay if decay else 0.0, "lr": rates[entry]}
                    result.append({"params": chosen, **settings, "name": entry, "phase": phase})
        return result

    def create_scheduler(self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None) -> Any:
        """Build the schedule; where parts join later, with the learning rate 0 until they do."""
        created = self.lr_scheduler is None
        schedule = super().create_scheduler(num_training_steps, optimizer)
        if created and self._joins and self.timeline is not None:
            schedule = self.lr_scheduler = gate_schedule(schedule, self.timeline, lambda: max(self._phase, 0))
            self._gated = self.lr_scheduler
        return schedule

    def resume_state(self) -> dict[str, Any]:
        """Return this process's sums since the last log line, and what the next one says of the last step."""
        return {**super().resume_state(), "last": {"rates": self._last_rates, "phase": self._phase}}

    def load_resume_state(self, state: Mapping[str, Any]) -> None:
        """Bring back what `resume_state` returned."""
        super().load_resume_state(state)
        self._last_rates = state["last"]["rates"]
        if self._phase >= 0:  # -1 until a phase is entered, and entering must freeze even if it is the saved one
            self._phase = state["last"]["phase"]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        with joined_parts_only(self, checkpoint):
            super()._load_optimizer_and_scheduler(checkpoint)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as `ObjectiveTrainer.train`."""
        prepare_fsdp(self)
        freeze(self.model, self.trained)  # DDP and ZeRO take note of what requires a gradient when they wrap
        self._phase = -1
        with stage_out_of_memory_told(self):
            return super().train(*args, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch the micro-batches of a step as `ObjectiveTrainer.get_batch_samples`, and count how long it took."""
        with self.pace.waiting():
            return super().get_batch_samples(*args, **kwargs)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add to each training line the terms, averaged over all processes, and weights and rates of the last step.

        Keys: `<stage>/loss_<term>`, `<stage>/weight_<term>`, `<stage>/balance_<term>` (what a term counts after
        `loss_weighting`), `<stage>/batches_without_a_term` and `<stage>/steps_left_out` where there are any,
        `<stage>/phase` in a stage with phases, `<stage>/learning_rate_<entry>` where the entries' differ,
        `<stage>/samples_per_second`, `<stage>/data_s` (that a step waited for data), `<stage>/peak_memory_gb` (of the
        GPU, else of this process), and `<stage>/energy_kwh` and `<stage>/co2_kg` where they are measured.
        """
        if "loss" in logs:
            self._log_terms(logs)
            if self.stage.phases:
                logs[f"{self.stage.name}/phase"] = self._phase
            rates = self._last_rates
            if len(set(rates.values())) > 1:
                logs.update({f"{self.stage.name}/learning_rate_{name}": rate for name, rate in rates.items()})
            logs.update({f"{self.stage.name}/{name}": value for name, value in callback_scalars(self).items()})
        super().log(logs, start_time)

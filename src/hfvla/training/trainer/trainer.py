"""StagedTrainer: transformers' Trainer for one stage of a plan."""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from hfvla.errors import DataError, RecipeError
from hfvla.family import ParameterGroup
from hfvla.recipe import Stage
from hfvla.training.checkpoint.checkpoints import ExactResume
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
    final_weights,
    gate_schedule,
    loss_terms,
    open_gates,
    peak_weights,
    phase_entries,
)
from hfvla.training.trainer.balance.building import build_balancer
from hfvla.training.trainer.balance.report import build_monitor
from hfvla.training.trainer.checkpointing import checkpoint_frozen_layers, evaluate_frozen
from hfvla.training.trainer.devices import one_gpu_a_process, stage_out_of_memory_told
from hfvla.training.trainer.gradcache import build_grad_cache
from hfvla.training.trainer.group_batches import GroupSampler, build_group_sampler
from hfvla.training.trainer.loss_log import LossLog
from hfvla.training.trainer.master_weights import engine_type, train_in_float32
from hfvla.training.trainer.optimizers import stage_optimizer
from hfvla.training.trainer.weight_decay import decayed_parameters
from hfvla.training.trainer.zero import accept_scalars, check_offload, fill_bucket_sizes, reset_joining_state

__all__ = ["StagedTrainer"]

logger = logging.getLogger(__name__)


class StagedTrainer(ExactResume):
    """Trains the parameter groups of one stage on its weighted loss terms, and logs each term by name.

    Works with any `PreTrainedModel`: one whose output has `loss_terms` (a dict of unweighted scalars) is trained on
    `sum(weight[name] * loss_terms[name])`; any other on its own `loss`, called the term "loss". While training the
    weights are those of the step; an evaluation weighs with the stage's last ones, so that its numbers compare.

    Phases: whatever the stage ever trains requires gradients while the model is wrapped (DDP and ZeRO look then, and
    only then); from the first step on, exactly the parts of the current phase do. Each phase has optimizer groups of
    its own, whose learning rate is 0 until it begins.

    Args:
        model (`PreTrainedModel`): the model; parameters outside `stage.train` and its phases' `add` are frozen.
        args (`TrainingArguments`): `args.learning_rate` holds for groups that `stage.learning_rates` does not name.
        stage (`Stage`): what trains, on which losses.
        groups (`Mapping[str, ParameterGroup]`): the names that `stage.train` may use.
        **kwargs: as for `Trainer`.

    Raises:
        RecipeError: a group that does not exist or matches nothing, a phase that adds what trains already, or
            phases with settings under which parts cannot join.
    """

    optimizer: Any
    timeline: Timeline | None = None  # known once the data loader is, when training starts

    def __init__(
        self,
        model: nn.Module,
        args: Any = None,
        *,
        stage: Stage,
        groups: Mapping[str, ParameterGroup],
        **kwargs: Any,
    ) -> None:
        self.stage, self.groups = stage, groups
        where = f"stage '{stage.name}'"
        prepare_adapters(model, groups, stage)
        self.trained = assign_phases(model, groups, phase_entries(stage), where)
        self._phase_of = entry_phases(stage)
        self._joins = any(phase.add for phase in stage.phases)
        self._freeze_to(model, 0)
        freeze(model, self.trained)
        self._logs = {name: LossLog(loss_terms(stage)) for name in ("train", "eval")}
        self._first_epoch: float | None = None  # where this process began; not 0 when it resumed
        self._last_weights: dict[str, float] = {}  # of the last step, and its learning rates, for the log
        self._last_rates: dict[str, float] = {}
        if self._joins and args is not None:
            _find_unused_parameters(args, where)
        super().__init__(model=model, args=args, **kwargs)
        one_gpu_a_process(self.args.n_gpu, where)
        train_in_float32(self)
        # Our loss is already a mean over the batch; the Trainer must divide it by the accumulation steps.
        self.model_accepts_loss_kwargs = False
        self.add_callback(PhaseCallback(self._enter_step))
        self.balancer = build_balancer(self, stage, loss_terms(stage))
        self.monitor = build_monitor(self, stage, loss_terms(stage), self.trained)
        self.grad_cache = build_grad_cache(self, stage)
        if self.monitor is not None:
            self.add_callback(self.monitor)
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

    def loss_weights(self, training: bool) -> dict[str, float]:
        """Return the weight of each loss term: of the current step while training, else the stage's last ones."""
        if training and self.timeline is not None:
            return self.timeline.weights_at(self.state.global_step)
        return final_weights(self.stage, self.timeline.epochs if self.timeline else math.inf)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the sum of the loss terms by their current weights, and remember each term for the log.

        Raises:
            RecipeError: the model has no term that the stage weights (checked while training).
        """
        if model.training:
            if self._first_epoch is None:
                self._first_epoch = self.state.epoch or 0.0
            evaluate_frozen(self._frozen)
        cache = self.grad_cache if model.training else None
        outputs = model(**inputs) if cache is None else cache.forward(model, inputs)
        terms = outputs.get("loss_terms") or ({"loss": outputs["loss"]} if outputs.get("loss") is not None else {})
        weights = self.loss_weights(model.training)
        silent = model.training and not any(weights.values())  # a ramp from 0: no gradient yet, but a graph for it
        counted = {name: terms[name] for name, w in weights.items() if (w or silent) and name in terms}
        if not counted and model.training:
            raise RecipeError(
                f"stage '{self.stage.name}': this batch gives none of the stage's loss terms",
                got=sorted(terms) or "no loss term",
                expected=", ".join(name for name, weight in weights.items() if weight or silent),
                fix="Check that the data has what these losses need (gold sets, chains, captions ...).",
            )
        samples = next(value for value in inputs.values() if isinstance(value, Tensor)).shape[0]
        self._logs["train" if model.training else "eval"].add(terms, samples)
        if model.training:
            self._last_weights = weights
        loss = self._combine(counted, weights, model.training)
        return (loss, outputs) if return_outputs else loss

    def _combine(self, terms: dict[str, Tensor], weights: dict[str, float], training: bool) -> Tensor:
        if not terms:
            return torch.zeros((), device=self.args.device)
        if training and self.monitor is not None:
            self.monitor.measure(terms, weights)
        if training and self.balancer is not None:
            return self.balancer.combine(terms, weights)
        return torch.stack([weights[name] * term for name, term in terms.items()]).sum()

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Train as `Trainer.training_step`, or as the stage's `grad_cache` and `loss_weighting` ask."""
        plain = partial(super().training_step, model, inputs, num_items_in_batch)
        if self.grad_cache is not None:
            plain = partial(self.grad_cache.training_step, self, model, plain)
        return plain() if self.balancer is None else self.balancer.training_step(self, model, inputs, plain)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.balancer is not None and self.args.should_save:
            self.balancer.save(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.balancer is not None and checkpoint is not None:
            self.balancer.load(checkpoint)

    def resume_state(self) -> dict[str, Any]:
        """Return this process's sums since the last log line, and what the next one says of the last step."""
        last = {"weights": self._last_weights, "rates": self._last_rates, "phase": self._phase}
        own = {"terms": self._logs["train"].state(), "first_epoch": self._first_epoch, "last": last}
        return {**super().resume_state(), **own}

    def load_resume_state(self, state: Mapping[str, Any]) -> None:
        """Bring back what `resume_state` returned."""
        super().load_resume_state(state)
        self._logs["train"].load_state(state["terms"])
        self._first_epoch = state["first_epoch"]
        self._last_weights, self._last_rates = state["last"]["weights"], state["last"]["rates"]
        if self._phase >= 0:  # -1 until a phase is entered, and entering must freeze even if it is the saved one
            self._phase = state["last"]["phase"]

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as `ExactResume.train`; short stages without a log line are checked for missing loss terms too."""
        freeze(self.model, self.trained)  # DDP and ZeRO take note of what requires a gradient when they wrap
        self._phase = -1
        with stage_out_of_memory_told(self):
            result = super().train(*args, **kwargs)
        self._logs["train"].averages(self.accelerator)
        self._check_terms()
        return result

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add to each training line the terms, averaged over all processes, and weights and rates of the last step.

        Keys: `<stage>/loss_<term>`, `<stage>/weight_<term>`, `<stage>/balance_<term>` (what a term counts after
        `loss_weighting`), `<stage>/phase` in a stage with phases, and `<stage>/learning_rate_<entry>` where the
        entries' differ.
        """
        if "loss" in logs:
            averages = self._logs["train"].averages(self.accelerator)
            for name, value in averages.items():
                logs[f"{self.stage.name}/loss_{name}"] = value
                logs[f"{self.stage.name}/weight_{name}"] = self._last_weights[name]
            if self.balancer is not None:
                self.balancer.check(averages)
                balance = self.balancer.logs()
                logs.update({f"{self.stage.name}/balance_{name}": value for name, value in balance.items()})
            if self.stage.phases:
                logs[f"{self.stage.name}/phase"] = self._phase
            self._check_terms()
            rates = self._last_rates
            if len(set(rates.values())) > 1:
                logs.update({f"{self.stage.name}/learning_rate_{name}": rate for name, rate in rates.items()})
        super().log(logs, start_time)

    def _check_terms(self) -> None:
        """Refuse to go on when a weighted term has not appeared in a whole epoch (it would silently not train)."""
        peaks = peak_weights(self.stage)
        missing = [name for name, peak in peaks.items() if peak and name not in self._logs["train"].seen]
        if missing and self._first_epoch is not None and (self.state.epoch or 0.0) - self._first_epoch >= 1:
            raise DataError(
                f"stage '{self.stage.name}': no batch of an epoch gave the loss term '{missing[0]}'",
                got=sorted(self._logs["train"].seen),
                fix="Take the term out of `losses`, or add data that has what it needs.",
            )

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """Predict as `Trainer.prediction_step`; without the labels of the metrics, still follow the loss terms."""
        if all(inputs.get(name) is not None for name in self.label_names):
            ignored = ignore_keys or getattr(self.model.config, "keys_to_ignore_at_inference", ["past_key_values"])
            ignore_keys = [*ignored, "loss_terms"]  # scalars of the batch, not predictions
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate; add `<prefix>_loss_<term>` averaged over the evaluation set, and their sum as `<prefix>_loss`."""
        self._logs["eval"] = LossLog(loss_terms(self.stage))
        with stage_out_of_memory_told(self):
            output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        averages = self._logs["eval"].averages(self.accelerator)
        output.metrics.update({f"{prefix}_loss_{name}": value for name, value in averages.items()})
        if averages:  # batches without a term do not count as zero
            weights = self.loss_weights(training=False)
            output.metrics[f"{prefix}_loss"] = sum(weights[name] * value for name, value in averages.items())
        return output


def _find_unused_parameters(args: Any, where: str) -> None:
    """Let DDP expect parameters without a gradient, as those of a phase to come have none.

    Raises:
        RecipeError: the arguments say that DDP must not look for them.
    """
    if args.ddp_find_unused_parameters is False:
        raise RecipeError(
            "parts that join later have no gradient before, and DDP must expect that",
            where=where,
            got="ddp_find_unused_parameters false",
            fix="Leave it out: the engine sets it.",
        )
    args.ddp_find_unused_parameters = True  # None is not enough: gradient checkpointing turns it off

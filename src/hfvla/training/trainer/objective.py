"""A Trainer whose objective is a weighted sum of loss terms, by name: trained, evaluated, logged and checked."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hfvla.errors import DataError, RecipeError, did_you_mean
from hfvla.losses.gathering import one_process
from hfvla.losses.weighing import weighted_sum
from hfvla.training.checkpoint.checkpoints import ExactResume
from hfvla.training.stage.phases import Timeline, final_weights, loss_terms, peak_weights
from hfvla.training.trainer.balance.building import build_balancer
from hfvla.training.trainer.balance.report import build_monitor
from hfvla.training.trainer.checkpointing import evaluate_frozen
from hfvla.training.trainer.devices import stage_out_of_memory_told
from hfvla.training.trainer.evaluation_rows import filled_up, own_batch
from hfvla.training.trainer.given import check_reach
from hfvla.training.trainer.gradcache import build_grad_cache
from hfvla.training.trainer.loss_log import LossLog
from hfvla.training.trainer.loss_reach import keep_in_step, output_terms, zero_loss
from hfvla.training.trainer.nonfinite import FiniteCheck, check_best, comparable_metric, step_rows
from hfvla.training.trainer.source_log import SourceLog, source_names
from hfvla.training.trainer.term_counts import TermShares, term_counts
from hfvla.training.trainer.term_names import check_first_terms, check_output

if TYPE_CHECKING:
    from transformers import PreTrainedModel, Trainer

__all__ = ["ObjectiveTrainer"]


class ObjectiveTrainer(ExactResume):
    """Trains on the weighted loss terms of a stage; see `StagedTrainer`, whose half it is."""

    trained: Mapping[str, str]
    timeline: Timeline | None = None  # known once the data loader is, when training starts
    _frozen: Any
    _names_checked = False  # of the loss terms; a recipe's are, against its family, before anything is built

    def build_objective(self) -> None:
        """Build what combines, counts, follows and checks the loss terms; runs once the Trainer is set up."""
        names = loss_terms(self.stage)
        self._logs = {name: LossLog(names) for name in ("train", "eval")}
        self._by_source = {"train": SourceLog(source_names(self.train_dataset), names), "eval": SourceLog((), names)}
        self._first_epoch: float | None = None  # where this process began; not 0 when it resumed
        self._last_weights: dict[str, float] = {}  # of the last step, for the log
        self._counted_rows = True
        # Our loss is already a mean over the batch; the Trainer must divide it by the accumulation steps.
        self.model_accepts_loss_kwargs = False
        self.balancer = build_balancer(self, self.stage, names)
        self.monitor = build_monitor(self, self.stage, names, self.trained)
        self.grad_cache = build_grad_cache(self, self.stage)
        self.shares = TermShares(names, self.accelerator)
        self._bare: tuple[nn.Module, nn.Module] | None = None
        self.finite = FiniteCheck(self, self.stage.skip_nonfinite)
        if self.monitor is not None:
            self.add_callback(self.monitor)

    def loss_weights(self, training: bool) -> dict[str, float]:
        """Return the weight of each loss term: of the current step while training, else the stage's last ones."""
        if training and self.timeline is not None:
            return self.timeline.weights_at(self.state.global_step)
        return final_weights(self.stage, self.timeline.epochs if self.timeline else math.inf)

    def _wanted(self, training: bool) -> list[str]:
        """Names of the terms that the loss is made of now; while a ramp starts from 0, all: a graph, no gradient."""
        weights = self.loss_weights(training)
        return [name for name, weight in weights.items() if weight or (training and not any(weights.values()))]

    # ---- a step -----------------------------------------------------------------------------------------------------

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Fetch the micro-batches of a step as `Trainer` does, and count what each loss term has in them."""
        batches, items = super().get_batch_samples(*args, **kwargs)
        self.shares.begin(self._bare_model(), batches)
        return batches, items

    def _bare_model(self) -> nn.Module:
        """Return the model without what is around it; Accelerate walks through all modules to find it, 4 ms a step."""
        if self._bare is None or self._bare[0] is not self.model:
            self._bare = self.model, self.accelerator.unwrap_model(self.model, keep_torch_compile=False)
        return self._bare[1]

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the sum of the loss terms by their current weights, and remember each term for the log.

        While training, each term counts by its share in the optimizer step (`TermShares`). A batch without any term
        has the loss 0.

        Raises:
            RecipeError: such a batch under ZeRO-3 or FSDP (checked while training).
        """
        training = model.training
        if training:
            if self._first_epoch is None:
                self._first_epoch = self.state.epoch or 0.0
            evaluate_frozen(self._frozen)
        cache = self.grad_cache if training else None
        outputs = model(**inputs) if cache is None else cache.forward(model, inputs)
        if training and not self._names_checked and cache is None:
            check_output(outputs, self.stage)
        (terms, reach), weights = output_terms(outputs), self.loss_weights(training)
        counted = {name: terms[name] for name in self._wanted(training) if name in terms}
        counts = term_counts(self._bare_model(), self.shares.names, inputs)
        if training:
            if not self._names_checked:
                check_first_terms(self.stage, terms, own_loss=outputs.get("loss_terms") is None)
                self._names_checked = True
            self._last_weights = weights
            self.finite.add(counted)
        if training or self._counted_rows:
            log = self._logs["train" if training else "eval"]
            log.add(terms, counts, only_finite=training and self.stage.skip_nonfinite > 0)
            self._by_source["train" if training else "eval"].add(outputs, inputs)
        if training:
            loss = self._within_reach(self._combine(counted, weights, counts), reach)
            if torch.is_grad_enabled():
                check_reach(loss, list(counted), self.stage)
        else:
            found = weighted_sum(counted, weights)
            loss = torch.zeros((), device=self.args.device) if found is None else found
        return (loss, outputs) if return_outputs else loss

    def _combine(self, terms: dict[str, Tensor], weights: dict[str, float], counts: Any) -> Tensor | None:
        shares = self.shares.of(counts)
        if self.monitor is not None:  # also without a term: other processes have theirs to compare
            self.monitor.measure(terms, weights, shares)
        if self.balancer is not None:
            loss = self.balancer.combine(terms, weights, shares)
            return loss if terms else None
        return weighted_sum(terms, weights, shares)

    def _within_reach(self, loss: Tensor | None, reach: Tensor | None) -> Tensor:
        """Return a loss that can go backward also where the batch has no term."""
        if loss is not None:
            return loss if reach is None else loss + reach
        if reach is not None:
            return reach
        if not self._waits() or self.grad_cache is not None:
            if self.accelerator.scaler is None:
                return torch.zeros((), device=self.args.device, requires_grad=True)  # reaches nothing
            return zero_loss([parameter for parameter in self.model.parameters() if parameter.requires_grad])
        raise RecipeError(
            f"stage '{self.stage.name}': this batch gives none of the stage's loss terms, and ZeRO-3 and FSDP need "
            "all processes to go the same way",
            expected=", ".join(self._wanted(True)),
            fix="Train this stage with DDP or ZeRO-2, or leave out rows without what these losses need.",
        )

    def _waits(self) -> bool:
        """Tell whether other processes wait for the gradients of this one."""
        return self.args.world_size > 1

    def training_step(self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Any = None) -> Tensor:
        """Train as `Trainer.training_step`, or as the stage's `grad_cache` and `loss_weighting` ask."""
        plain = partial(super().training_step, model, inputs, num_items_in_batch)
        if self.grad_cache is not None:
            plain = partial(self.grad_cache.training_step, self, model, plain)
        return plain() if self.balancer is None else self.balancer.training_step(self, model, inputs, plain)

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Return the norm of the step's gradient; the last look at it before the optimizer steps."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)
        if hasattr(norm, "full_tensor"):  # FSDP2's, split over the processes
            norm = norm.full_tensor()
        if self.finite.step_ends(norm):
            return norm
        for parameter in model.parameters():  # an optimizer leaves alone what has no gradient
            parameter.grad = None
        return None

    def step_rows(self) -> list[list[int]] | None:
        """Return the rows of the training data in each of this process's micro-batches of the step, where known."""
        return step_rows(self)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as `ExactResume.train`; short stages without a log line are checked for missing loss terms too.

        Raises:
            DataError: a loss term that no batch of an epoch had, or no term at all in the whole stage.
            TrainingError: a loss or gradient that is no number.
        """
        whole = self.is_fsdp_enabled or _zero_stage(self) == 3  # nothing in a model is where it was
        follows = self._waits() and self.grad_cache is None and not whole
        everywhere = self.is_deepspeed_enabled
        with (
            keep_in_step(
                self._bare_model(),
                lambda: self._wanted(True),
                lambda: everywhere or not getattr(self.model_wrapped, "find_unused_parameters", False),
            )
            if follows
            else nullcontext()
        ):
            result = super().train(*args, **kwargs)
        self._logs["train"].averages(self.accelerator)
        self._check_terms(ended=True)
        check_best(self)
        return result

    # ---- logs, and what they show -----------------------------------------------------------------------------------

    def _log_terms(self, logs: dict[str, float]) -> None:
        """Add to a training line the terms, averaged over all processes, with their weights and what was left out."""
        averages = self._logs["train"].averages(self.accelerator)
        for name, value in averages.items():
            logs[f"{self.stage.name}/loss_{name}"] = value
            logs[f"{self.stage.name}/weight_{name}"] = self._last_weights[name]
        by_source = self._by_source["train"].averages(self.accelerator)
        logs.update({f"{self.stage.name}/loss_{name}": value for name, value in by_source.items()})
        if self.balancer is not None:
            self.balancer.check(averages)
            balance = self.balancer.logs()
            logs.update({f"{self.stage.name}/balance_{name}": value for name, value in balance.items()})
        if self._logs["train"].empty:
            logs[f"{self.stage.name}/batches_without_a_term"] = self._logs["train"].empty
        if self.finite.skipped or self.finite.scaled:
            logs[f"{self.stage.name}/steps_left_out"] = self.finite.skipped + self.finite.scaled
        self._check_terms()

    def _check_terms(self, ended: bool = False) -> None:
        """Refuse to go on when a weighted term has not appeared in a whole epoch (it would silently not train)."""
        peaks, seen = peak_weights(self.stage), self._logs["train"].seen
        missing = [name for name, peak in peaks.items() if peak and name not in seen]
        if not missing or self._first_epoch is None:
            return
        nothing = ended and not any(peaks.get(name) for name in seen)
        if nothing or (self.state.epoch or 0.0) - self._first_epoch >= 1:
            raise DataError(
                f"stage '{self.stage.name}': no batch of an epoch gave the loss term '{missing[0]}'",
                got=sorted(seen or self._logs["train"].given) or "no loss term",
                fix=_near(missing[0], self._logs["train"].given)
                + "Take the term out of `losses`, or add data that has what it needs.",
            )

    def resume_state(self) -> dict[str, Any]:
        """Return this process's sums since the last log line, and what the next one says of the last step."""
        own = {"terms": self._logs["train"].state(), "first_epoch": self._first_epoch}
        own["sources"] = self._by_source["train"].state()
        return {**super().resume_state(), **own, "weights": self._last_weights, "finite": self.finite.state()}

    def load_resume_state(self, state: Mapping[str, Any]) -> None:
        """Bring back what `resume_state` returned."""
        super().load_resume_state(state)
        self._logs["train"].load_state(state["terms"])
        self._by_source["train"].load_state(state.get("sources"))
        self.finite.load_state(state["finite"])
        self._first_epoch, self._last_weights = state["first_epoch"], state["weights"]

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        super()._save_optimizer_and_scheduler(output_dir)
        if self.balancer is not None and self.args.should_save:
            self.balancer.save(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        super()._load_optimizer_and_scheduler(checkpoint)
        if self.balancer is not None and checkpoint is not None:
            self.balancer.load(checkpoint)

    # ---- evaluation -------------------------------------------------------------------------------------------------

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        """Keep the rows in order where processes share them; `group_by_length` would hide which fill a batch up."""
        return None if self.args.world_size > 1 else super()._get_eval_sampler(eval_dataset)

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Any, Any]:
        """Predict as `Trainer.prediction_step`; without the labels of the metrics, still follow the loss terms.

        Rows that only fill a process's last batch up have no part in the loss, and a contrastive term sees the batch
        of its own process, so that the loss does not depend on the number of processes.
        """
        inputs, own, rows = own_batch(self, inputs)
        self._counted_rows = own > 0
        try:
            with one_process():
                loss, logits, labels = self._predicted(model, inputs, prediction_loss_only, ignore_keys)
        finally:
            self._counted_rows = True
        if 0 < own < rows:
            logits, labels = filled_up(logits, own, rows), filled_up(labels, own, rows)
        return loss, logits, labels

    def _predicted(self, model: PreTrainedModel, inputs: Any, prediction_loss_only: bool, ignore_keys: Any) -> Any:
        if all(inputs.get(name) is not None for name in self.label_names):
            caches = ["past_key_values", "cache"]  # renamed in transformers 5.24
            ignored = ignore_keys or getattr(self.model.config, "keys_to_ignore_at_inference", caches)
            ignore_keys = [*ignored, "loss_terms", "row_losses"]  # of the batch, not predictions
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate; add `<prefix>_loss_<term>` averaged over the evaluation set, and their sum as `<prefix>_loss`."""
        names = loss_terms(self.stage)
        self._logs["eval"] = LossLog(names)
        self._by_source["eval"] = SourceLog(source_names(self.eval_dataset), names)
        with stage_out_of_memory_told(self):
            output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        averages = self._logs["eval"].averages(self.accelerator)
        by_source = self._by_source["eval"].averages(self.accelerator)
        output.metrics.update({f"{prefix}_loss_{name}": value for name, value in (averages | by_source).items()})
        if averages:  # batches without a term do not count as zero
            weights = self.loss_weights(training=False)
            output.metrics[f"{prefix}_loss"] = sum(weights[name] * value for name, value in averages.items())
        return output

    def _determine_best_metric(self, metrics: dict[str, float], trial: Any) -> bool:
        """Tell whether an evaluation is the best so far; one that is no number never is."""
        return comparable_metric(self, metrics) and super()._determine_best_metric(metrics, trial)


def _near(name: str, given: Collection[str]) -> str:
    """Return the nearest name that a batch did give, as a sentence; "" where none is near."""
    hint = did_you_mean(name, given)
    return f"{hint} " if hint.startswith("Did") else ""


def _zero_stage(trainer: Trainer) -> int:
    return trainer.accelerator.state.deepspeed_plugin.zero_stage if trainer.is_deepspeed_enabled else 0

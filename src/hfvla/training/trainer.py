"""StagedTrainer: transformers' Trainer for one stage of a plan."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer

from hfvla.errors import DataError, RecipeError
from hfvla.family import ParameterGroup
from hfvla.recipe import Stage
from hfvla.training.freeze import GroupRow, assign_parameters, freeze, fully_frozen_modules, trainable_table
from hfvla.training.loss_log import LossLog

__all__ = ["StagedTrainer"]

logger = logging.getLogger(__name__)


class StagedTrainer(Trainer):
    """Trains the parameter groups of one stage on its weighted loss terms, and logs each term by name.

    Works with any `PreTrainedModel`: one whose output has `loss_terms` (a dict of unweighted scalars) is trained on
    `sum(stage.losses[name] * loss_terms[name])`; any other on its own `loss`, called the term "loss".

    Args:
        model (`PreTrainedModel`): the model; parameters outside `stage.train` are frozen.
        args (`TrainingArguments`): `args.learning_rate` holds for groups that `stage.learning_rates` does not name.
        stage (`Stage`): what trains, on which losses.
        groups (`Mapping[str, ParameterGroup]`): the names that `stage.train` may use.
        **kwargs: as for `Trainer`.

    Raises:
        RecipeError: a group that does not exist or matches nothing.
    """

    optimizer: Any

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
        self.trained = assign_parameters(model, groups, stage.train)
        freeze(model, self.trained)
        self._frozen = fully_frozen_modules(model)
        self._logs = {"train": LossLog(list(stage.losses)), "eval": LossLog(list(stage.losses))}
        self._first_epoch: float | None = None  # where this process began; not 0 when it resumed
        super().__init__(model=model, args=args, **kwargs)
        # Our loss is already a mean over the batch; the Trainer must divide it by the accumulation steps.
        self.model_accepts_loss_kwargs = False

    def learning_rates(self) -> dict[str, float]:
        """Return the peak learning rate by entry of `stage.train`."""
        return {entry: self.stage.learning_rates.get(entry, self.args.learning_rate) for entry in self.stage.train}

    def trainable_table(self) -> list[GroupRow]:
        """Return the table of groups that is printed before the stage."""
        return trainable_table(self.model, self.groups, self.trained, self.learning_rates())

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """Build the optimizer with one parameter group for each entry of `train` and with or without weight decay."""
        if self.optimizer is None:
            optimizer_model = self.model if model is None else model
            optimizer_class, kwargs = self.get_optimizer_cls_and_kwargs(self.args, optimizer_model)
            self.optimizer = optimizer_class(self._parameter_groups(optimizer_model), **kwargs)
        return self.optimizer

    def _parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        decayed = set(self.get_decay_parameter_names(model))
        rates = self.learning_rates()
        result = []
        for entry in self.stage.train:
            for decay in (True, False):
                chosen = [
                    parameter
                    for name, parameter in model.named_parameters()
                    if self.trained.get(name) == entry and (name in decayed) == decay
                ]
                if chosen:
                    weight_decay = self.args.weight_decay if decay else 0.0
                    result.append({"params": chosen, "weight_decay": weight_decay, "lr": rates[entry], "name": entry})
        return result

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:
        """Return the weighted sum of the stage's loss terms, and remember each term for the log.

        Raises:
            RecipeError: the model has no term that the stage weights (checked while training).
        """
        if model.training:
            if self._first_epoch is None:
                self._first_epoch = self.state.epoch or 0.0
            for module in self._frozen:
                module.eval()
        outputs = model(**inputs)
        terms = outputs.get("loss_terms") or ({"loss": outputs["loss"]} if outputs.get("loss") is not None else {})
        used = [weight * terms[name] for name, weight in self.stage.losses.items() if weight and name in terms]
        if not used and model.training:
            raise RecipeError(
                f"stage '{self.stage.name}': this batch gives none of the stage's loss terms",
                got=sorted(terms) or "no loss term",
                expected=", ".join(self.stage.losses),
                fix="Check that the data has what these losses need (gold sets, chains, captions ...).",
            )
        samples = next(value for value in inputs.values() if isinstance(value, Tensor)).shape[0]
        self._logs["train" if model.training else "eval"].add(terms, samples)
        loss = torch.stack(used).sum() if used else torch.zeros((), device=self.args.device)
        return (loss, outputs) if return_outputs else loss

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train as `Trainer.train`; short stages without a log line are checked for missing loss terms too."""
        result = super().train(*args, **kwargs)
        self._logs["train"].averages(self.accelerator)
        self._check_terms()
        return result

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add `<stage>/loss_<term>` and `<stage>/weight_<term>` to each training line, averaged over all processes."""
        if "loss" in logs:
            for name, value in self._logs["train"].averages(self.accelerator).items():
                logs[f"{self.stage.name}/loss_{name}"] = value
                logs[f"{self.stage.name}/weight_{name}"] = self.stage.losses[name]
            self._check_terms()
            rates = {group["name"]: group["lr"] for group in self.optimizer.param_groups if "name" in group}
            if len(set(rates.values())) > 1:
                logs.update({f"{self.stage.name}/learning_rate_{name}": rate for name, rate in rates.items()})
        super().log(logs, start_time)

    def _check_terms(self) -> None:
        """Refuse to go on when a weighted term has not appeared in a whole epoch (it would silently not train)."""
        missing = [
            name for name, weight in self.stage.losses.items() if weight and name not in self._logs["train"].seen
        ]
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
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate; add `<prefix>_loss_<term>` averaged over the evaluation set, and their sum as `<prefix>_loss`."""
        self._logs["eval"] = LossLog(list(self.stage.losses))
        output = super().evaluation_loop(*args, **kwargs)
        prefix = kwargs.get("metric_key_prefix", "eval")
        averages = self._logs["eval"].averages(self.accelerator)
        output.metrics.update({f"{prefix}_loss_{name}": value for name, value in averages.items()})
        if averages:  # batches without a term do not count as zero
            output.metrics[f"{prefix}_loss"] = sum(self.stage.losses[name] * value for name, value in averages.items())
        return output

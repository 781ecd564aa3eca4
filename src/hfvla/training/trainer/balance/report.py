"""The report on how the gradients of a stage's loss terms agree, measured while it trains."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers import TrainerCallback

from hfvla.errors import RecipeError
from hfvla.losses.balancing import cosine_matrix
from hfvla.training.stage.groups import expand_group
from hfvla.training.trainer.balance.terms import TermGradients, refuse_set_up

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

__all__ = ["GradientMonitor", "build_monitor", "gradient_summary"]


class GradientMonitor(TrainerCallback):
    """Logs `<stage>/cosine_<a>_<b>` and `<stage>/gradnorm_<term>` every n optimizer steps, and changes nothing else.

    The gradients are those of the whole optimizer step, averaged over its micro-batches and all processes. Norms are
    of the terms times their weights. A pair is absent from a line when one of both terms has no gradient there.

    Args:
        trainer: the trainer that is watched; logs through it.
        stage: name before the slash.
        names: loss terms.
        every: optimizer steps between two measurements.
        parameters: what the gradients are taken by, by parameter name; those frozen at the moment are left out.
    """

    def __init__(
        self, trainer: Trainer, stage: str, names: Sequence[str], every: int, parameters: Mapping[str, nn.Parameter]
    ) -> None:
        self.trainer, self.stage, self.names, self.every = trainer, stage, tuple(names), every
        self.parameters = dict(parameters)
        self._gradients: TermGradients | None = None

    def measure(self, terms: Mapping[str, Tensor], weights: Mapping[str, float], shares: Mapping[str, Any]) -> None:
        """Take the gradients of one micro-batch, if its step is one to measure; call before going backward.

        Args:
            terms: unweighted [] scalars by name.
            weights: weight by name; terms of weight 0 are left out.
            shares: what the micro-batch counts in the step, by name; see `TermShares`.
        """
        if (self.trainer.state.global_step + 1) % self.every:
            return
        if self._gradients is None:
            active = [parameter for parameter in self.parameters.values() if parameter.requires_grad]
            if not active:  # their phase has not begun
                return
            self._gradients = TermGradients(self.names, active)
        weighted = {name: weights[name] * shares[name] * term for name, term in terms.items() if weights.get(name)}
        accelerator, device = self.trainer.accelerator, self._gradients.rows.device
        devices = [device] if device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.autocast(device.type, enabled=False):
            scale = 1 / self.trainer.current_gradient_accumulation_steps
            self._gradients.add(weighted, scale=scale, scaler=accelerator.scaler, keep_graph=True)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Log what was measured in this step."""
        gradients, self._gradients = self._gradients, None
        if gradients is None:
            return
        gradients.average(self.trainer.accelerator)
        gram = gradients.gram()
        scaler = self.trainer.accelerator.scaler
        norms = gram.diagonal().sqrt() / (1.0 if scaler is None else scaler.get_scale())
        logs = {f"{self.stage}/gradnorm_{name}": norm for name, norm in zip(self.names, norms.tolist(), strict=True)}
        cosines = cosine_matrix(gram).tolist()
        for (first, a), (second, b) in combinations(enumerate(self.names), 2):
            if math.isfinite(cosines[first][second]):
                logs[f"{self.stage}/cosine_{a}_{b}"] = cosines[first][second]
        due = control.should_log  # logging clears it, and the Trainer's own line may be due in this step
        self.trainer.log(logs)
        control.should_log = due

    def summary(self) -> list[dict[str, Any]]:
        """Return `gradient_summary` of the stage so far, with what was measured before a resume."""
        return gradient_summary(self.trainer.state.log_history, self.stage, self.names)


def gradient_summary(history: Sequence[Mapping[str, Any]], stage: str, names: Sequence[str]) -> list[dict[str, Any]]:
    """Sum up a stage's measurements, pair by pair; pairs never measured are left out.

    Args:
        history: the Trainer's log history.
        stage: name of the stage.
        names: its loss terms.

    Returns:
        `list[dict]`: "terms" (both names), "measurements", "mean_cosine" and "conflicting" (share of cosines below 0).
    """
    summary = []
    for pair in combinations(names, 2):
        key = f"{stage}/cosine_{'_'.join(pair)}"
        cosines = [float(line[key]) for line in history if key in line]
        if cosines:
            conflicting = sum(cosine < 0 for cosine in cosines) / len(cosines)
            mean = sum(cosines) / len(cosines)
            row = {"terms": list(pair), "measurements": len(cosines), "mean_cosine": mean, "conflicting": conflicting}
            summary.append(row)
    return summary


def build_monitor(
    trainer: Trainer, stage: Any, names: Sequence[str], trained: Mapping[str, Any]
) -> GradientMonitor | None:
    """Return what a stage's `gradient_report` asks for, or None.

    Args:
        trainer: its trainer, with `model`, `groups`, `args` and `accelerator`.
        stage: the stage.
        names: its loss terms, those of its phases too.
        trained: names of the parameters that the stage trains at some time.

    Raises:
        RecipeError: a group that does not exist or never trains in this stage; a set-up without whole gradients.
    """
    report = stage.gradient_report
    if report is None:
        return None
    refuse_set_up(trainer, f"stage '{stage.name}': gradient_report")
    parameters = dict(trainer.model.named_parameters())
    chosen: dict[str, nn.Parameter] = {}
    for expression in report.groups:
        found = [name for name in expand_group(trainer.model, trainer.groups, expression) if name in trained]
        if not found:
            raise RecipeError(
                f"stage '{stage.name}': gradient_report.groups names a part that this stage does not train",
                got=expression,
                expected="a group with parameters that train, in `train` or a phase",
            )
        chosen |= {name: parameters[name] for name in found}
    return GradientMonitor(trainer, stage.name, names, report.every, chosen)

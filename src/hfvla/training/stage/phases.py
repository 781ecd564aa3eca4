"""The timeline of a stage: which entries train from which optimizer step, and which loss weights hold at a step.

Everything here is a function of the recipe and of the number of optimizer steps done, so a resumed run needs no state
of its own to be in the right phase.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from hfvla.errors import RecipeError
from hfvla.recipe import LossSchedule, Phase, Stage

if TYPE_CHECKING:
    from torch.optim.lr_scheduler import LambdaLR
    from transformers import TrainerControl, TrainerState, TrainingArguments

__all__ = [
    "PhaseCallback",
    "Timeline",
    "begins",
    "entry_phases",
    "entry_rates",
    "final_weights",
    "gate_schedule",
    "loss_terms",
    "open_gates",
    "peak_weights",
    "phase_entries",
    "weight_at",
]


def phase_entries(stage: Stage) -> list[list[str]]:
    """Return what joins in each phase: the stage's `train` first, then the `add` of each of its phases."""
    return [list(stage.train), *(list(phase.add) for phase in stage.phases)]


def entry_phases(stage: Stage) -> dict[str, int]:
    """Return the phase in which each entry joins; 0 is the stage's own `train`."""
    return {entry: number for number, entries in enumerate(phase_entries(stage)) for entry in entries}


def entry_rates(stage: Stage, default: float) -> dict[str, float]:
    """Return the peak learning rate of each entry that ever trains.

    Args:
        stage: the stage.
        default: `args.learning_rate`, for entries that no `learning_rates` names.
    """
    rates = {entry: stage.learning_rates.get(entry, default) for entry in stage.train}
    for phase in stage.phases:
        rates.update({entry: phase.learning_rates.get(entry, default) for entry in phase.add})
    return rates


def begins(phase: Phase) -> str:
    """Return when a phase begins, in words: "epoch 2" or "step 400"."""
    return f"epoch {phase.epoch:g}" if phase.epoch is not None else f"step {phase.step}"


def loss_terms(stage: Stage) -> tuple[str, ...]:
    """Return every loss term that the stage or one of its phases weights."""
    names = dict.fromkeys(stage.losses)
    for phase in stage.phases:
        names.update(dict.fromkeys(phase.losses))
    return tuple(names)


def weight_at(weight: float | LossSchedule, epoch: float) -> float:
    """Return a loss weight after `epoch` epochs of the stage.

    Args:
        weight: a number, or a schedule: a linear or cosine ramp, or one value for each whole epoch.
        epoch: epochs done since the stage began; may be `math.inf` for the last value.
    """
    if not isinstance(weight, LossSchedule):
        return float(weight)
    if weight.kind == "table":
        return weight.values[int(min(epoch, len(weight.values) - 1))]
    first, last = weight.epochs
    done = min(max((epoch - first) / (last - first), 0.0), 1.0)
    if weight.kind == "cosine":
        done = (1 - math.cos(math.pi * done)) / 2
    return weight.start + (weight.end - weight.start) * done


def _weights(stage: Stage, begun: int, epoch: float) -> dict[str, float]:
    """Return the weights when `begun` phases have begun; a term that no section named yet weighs 0."""
    sections: dict[str, float | LossSchedule] = {**dict.fromkeys(loss_terms(stage), 0.0), **stage.losses}
    for phase in stage.phases[:begun]:
        sections.update(phase.losses)
    return {name: weight_at(weight, epoch) for name, weight in sections.items()}


def final_weights(stage: Stage, epochs: float = math.inf) -> dict[str, float]:
    """Return the loss weights at the end of a stage of `epochs` epochs (where ramps and tables end, if not told)."""
    return _weights(stage, len(stage.phases), epochs)


def peak_weights(stage: Stage) -> dict[str, float]:
    """Return the highest weight that each loss term takes in the stage or in one of its phases."""
    peaks = dict.fromkeys(loss_terms(stage), 0.0)
    for losses in (stage.losses, *(phase.losses for phase in stage.phases)):
        for name, weight in losses.items():
            peaks[name] = max(peaks[name], weight.peak if isinstance(weight, LossSchedule) else weight)
    return peaks


@dataclass(frozen=True)
class Timeline:
    """A stage laid out in optimizer steps.

    Attributes:
        stage: the stage.
        steps_per_epoch: optimizer steps an epoch.
        max_steps: optimizer steps of the stage.
        starts: optimizer steps done when each phase begins; `starts[0]` is 0, the stage's own `train`.
    """

    stage: Stage
    steps_per_epoch: int
    max_steps: int
    starts: tuple[int, ...]

    @classmethod
    def of(cls, stage: Stage, steps_per_epoch: int, max_steps: int) -> Timeline:
        """Lay a stage out.

        Args:
            stage: the stage.
            steps_per_epoch: optimizer steps an epoch.
            max_steps: optimizer steps of the stage.

        Raises:
            RecipeError: phases out of order, or one that begins when the stage is over.
        """
        starts = [0]
        for number, phase in enumerate(stage.phases, start=1):
            start = phase.step if phase.step is not None else round((phase.epoch or 0.0) * steps_per_epoch)
            where = f"stage '{stage.name}', phases[{number - 1}]"
            if start < starts[-1]:
                raise RecipeError(
                    f"the phase of {begins(phase)} comes after one that begins later",
                    where=where,
                    got=f"step {start} after step {starts[-1]}",
                    fix="Put the phases in the order in which they begin.",
                )
            if start >= max_steps:
                raise RecipeError(
                    f"the phase of {begins(phase)} never begins",
                    where=where,
                    got=f"step {start}",
                    expected=f"a step before {max_steps}, the stage's last; an epoch is {steps_per_epoch} steps",
                    fix="Let it begin earlier, or train longer.",
                )
            starts.append(start)
        return cls(stage, steps_per_epoch, max_steps, tuple(starts))

    @property
    def epochs(self) -> float:
        """Epochs of the stage, its last one perhaps in part."""
        return self.max_steps / self.steps_per_epoch

    def phase_at(self, step: int) -> int:
        """Return the phase that optimizer step `step` (0 = the first) belongs to."""
        return max(number for number, start in enumerate(self.starts) if start <= step)

    def joining_at(self, step: int) -> list[int]:
        """Return the phases that begin with optimizer step `step`."""
        return [number for number, start in enumerate(self.starts) if number and start == step]

    def weights_at(self, step: int) -> dict[str, float]:
        """Return the weight of every loss term at optimizer step `step`."""
        return _weights(self.stage, self.phase_at(step), step / self.steps_per_epoch)


def gate_schedule(schedule: Any, timeline: Timeline, phase: Callable[[], int]) -> LambdaLR:
    """Return the schedule with the learning rate 0 before the phase of each optimizer group begins.

    A phase begins after so many optimizer steps. The schedule cannot tell: it does not count the steps that fp16
    training skips while it looks for a scale. So it asks, and `open_gates` tells it.

    From then on a group follows the stage's own shape: a part that joins half-way through a cosine starts at half of
    its learning rate. The rate 0 also holds back weight decay, which needs no gradient.

    Args:
        schedule: the schedule of the whole stage; its groups are tagged with "phase".
        timeline: when each phase begins.
        phase: tells which phase the trainer is in.

    Raises:
        RecipeError: a schedule that is not a function of the step.
    """
    from torch.optim.lr_scheduler import LambdaLR

    if not isinstance(schedule, LambdaLR):
        raise RecipeError(
            "phases that add parameters need a learning rate schedule that is a function of the step",
            where=f"stage '{timeline.stage.name}'",
            got=type(schedule).__name__,
            fix="Set args.lr_scheduler_type to linear, cosine, constant ... .",
        )

    def gated(shape: Callable[[int], float], joins: int) -> Callable[[int], float]:
        return lambda step: shape(step) if phase() >= joins else 0.0

    groups = schedule.optimizer.param_groups
    shapes = zip(schedule.lr_lambdas, groups, strict=True)
    return LambdaLR(schedule.optimizer, [gated(shape, group.get("phase", 0)) for shape, group in shapes])


def open_gates(schedule: LambdaLR) -> None:
    """Compute the learning rates of a gated schedule anew, where a phase has just begun."""
    rates = [
        rate * part(schedule.last_epoch) for rate, part in zip(schedule.base_lrs, schedule.lr_lambdas, strict=True)
    ]
    for group, rate in zip(schedule.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    schedule._last_lr = rates


class PhaseCallback(TrainerCallback):
    """Puts a trainer into the phase of the step that comes next: at the start, after resuming, and at each boundary.

    Args:
        enter: called with the optimizer steps done.
    """

    def __init__(self, enter: Callable[[int], None]) -> None:
        self._enter = enter

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Enter the phase of the first step: the model is wrapped by now, and a checkpoint loaded."""
        self._enter(state.global_step)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Enter the phase of this step; phases may begin in the middle of an epoch."""
        self._enter(state.global_step)

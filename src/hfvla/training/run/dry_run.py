"""One real batch through every stage and phase of a recipe, hand-overs included; nothing is left on disk.

Each stage runs with its real trainer for one optimizer step a phase, in a temporary folder. What only shows while
training shows here in a minute: a loss that the data does not feed, a part that trains and gets no gradient, a
hand-over that is not announced, memory.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from hfvla.data.processes import Meeting, Processes
from hfvla.errors import TrainingError
from hfvla.recipe import LossSchedule, Recipe, Stage
from hfvla.registry import get_family
from hfvla.training.run.arguments import start_processes
from hfvla.training.run.model_size import check_models
from hfvla.training.run.preflight import check_arguments, check_data
from hfvla.training.run.stage_run import StageRun
from hfvla.training.stage.data import RecipeData, StageRows
from hfvla.training.stage.phases import begins, entry_phases
from hfvla.training.stage.plan import StagePlan
from hfvla.training.trainer.memory import peak_bytes
from hfvla.training.trainer.trainer import StagedTrainer
from hfvla.training.trainer.zero import deepspeed_scope

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin, TrainerControl, TrainerState, TrainingArguments

__all__ = ["dry_run"]

_ARGUMENTS = {
    "gradient_accumulation_steps": 1,
    "eval_strategy": "no",
    "save_strategy": "no",
    "logging_steps": 1,
    "report_to": "none",
    "disable_tqdm": True,
}


def dry_run(
    recipe: Recipe,
    *,
    start_at: str | None = None,
    from_checkpoint: str | Path | None = None,
    stop_after: str | None = None,
) -> dict[str, Any]:
    """Run one optimizer step of every stage and phase, on real data, in a temporary folder.

    Args:
        recipe: a checked recipe.
        start_at: first stage to run.
        from_checkpoint: folder that stands for the stage before `start_at`.
        stop_after: last stage to run.

    Returns:
        `dict`: "stages": for each its "name", "seconds", "handover" and "phases" (begins, losses, gradients by entry,
            step_seconds, peak_bytes); "problems": what would go wrong, one line each; "seconds".

    Raises:
        RecipeError, DataError, CheckpointError: as a run of the recipe raises them.
    """
    started = time.perf_counter()
    short = recipe.model_copy(update={"stages": [_one_step_a_phase(stage) for stage in recipe.stages]})
    plan = StagePlan.from_recipe(short, start_at, from_checkpoint, stop_after)
    spec = get_family(recipe.family)
    written = [recipe.stage(stage.name) for stage in plan.stages]
    check_arguments(recipe, spec, written)
    check_models(recipe, spec)
    state = start_processes(recipe)
    stages: list[dict[str, Any]] = []
    broken: list[str] = []
    with _temporary_folder(state) as folder:
        data = RecipeData(spec, short, plan.stages, Meeting(folder, Processes.current()))
        check_data(recipe, spec, written, data, state.num_processes)
        folders = dict(plan.folders)
        for stage in plan.stages:
            run = _DryStage(short, spec, stage, folder / stage.name, state)
            try:
                with deepspeed_scope():
                    summary = run.train(data, folders)
            except TrainingError as error:  # the stages after it would go on from what is no number
                broken.append(str(error))
                break
            folders[stage.name] = folder / stage.name
            handover, seconds = summary["handover"], summary["seconds"]
            phases = run.recorder.phases if run.recorder else []
            stages.append({"name": stage.name, "seconds": seconds, "handover": handover, "phases": phases})
    _name_as_written(recipe, stages)
    problems = [*(problem for stage in stages for problem in _problems(stage)), *broken]
    return {"stages": stages, "problems": problems, "seconds": time.perf_counter() - started}


def _one_step_a_phase(stage: Stage) -> Stage:
    """Return a stage with a step for each phase, every loss at its highest weight, and nothing saved or cached."""
    phases = [
        phase.model_copy(update={"epoch": None, "step": number, "losses": _peaks(phase.losses)})
        for number, phase in enumerate(stage.phases, start=1)
    ]
    changes = {
        "phases": phases,
        "losses": _peaks(stage.losses),
        "args": {**stage.args, **_ARGUMENTS, "max_steps": len(phases) + 1},
        "keep_best": None,
        "patience": None,
        "cache": None,
    }
    return stage.model_copy(update=changes)


def _peaks(losses: Mapping[str, float | LossSchedule]) -> dict[str, float]:
    return {name: weight.peak if isinstance(weight, LossSchedule) else weight for name, weight in losses.items()}


def _name_as_written(recipe: Recipe, stages: list[dict[str, Any]]) -> None:
    """Put when each phase begins into the result, as the recipe says it."""
    for found in stages:
        phases = recipe.stage(found["name"]).phases
        for row in found["phases"]:
            row["begins"] = begins(phases[row["phase"] - 1]) if row["phase"] else "start"


@contextmanager
def _temporary_folder(state: Any) -> Iterator[Path]:
    """Yield one folder that all processes share; it goes when they are done."""
    from accelerate.utils import broadcast_object_list

    with tempfile.TemporaryDirectory(prefix="hfvla-dry-run-") as own:
        shared = broadcast_object_list([own]) if state.num_processes > 1 else [own]
        yield Path(shared[0])
        state.wait_for_everyone()


class _DryStage(StageRun):
    """A stage whose steps are recorded."""

    recorder: _Recorder | None = None

    def _train(self, data: RecipeData, folders: Mapping[str, Path]) -> dict[str, Any]:
        summary = super()._train(data, folders)
        if self.recorder is not None:
            del self.recorder.trainer  # the record outlives the stage, and would keep its model
        return summary

    def _trainer(self, model: PreTrainedModel, processor: ProcessorMixin, rows: StageRows) -> StagedTrainer:
        trainer = super()._trainer(model, processor, rows)
        self.recorder = _Recorder(trainer)
        trainer.add_callback(self.recorder)
        return trainer


class _Recorder(TrainerCallback):
    """Records each optimizer step of a trainer: one a phase.

    Args:
        trainer: the stage's trainer.
    """

    def __init__(self, trainer: StagedTrainer) -> None:
        self.trainer = trainer
        self.phases: list[dict[str, Any]] = []
        self._began = 0.0
        self._gradients: list[dict[str, Any]] = []

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the clock and the count of memory."""
        self._began, self._gradients = time.perf_counter(), []
        if torch.cuda.is_available():
            torch.cuda.reset_peak_memory_stats()

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Look at the gradients before the optimizer uses them."""
        if not self.trainer.is_deepspeed_enabled:  # ZeRO keeps them elsewhere
            self._gradients = _gradient_rows(self.trainer, state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Stop the clock."""
        self.phases.append(
            {
                "phase": state.global_step - 1,
                "step_seconds": time.perf_counter() - self._began,
                "peak_bytes": peak_bytes(),
                "gradients": self._gradients,
                "losses": {},
            }
        )

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Take the loss terms of the step from its log line."""
        prefix = f"{self.trainer.stage.name}/loss_"
        if self.phases and "loss" in (logs or {}):
            terms = {key.removeprefix(prefix): value for key, value in logs.items() if key.startswith(prefix)}
            self.phases[-1]["losses"] = {"total": logs["loss"], **terms}


def _gradient_rows(trainer: StagedTrainer, phase: int) -> list[dict[str, Any]]:
    """Return for each entry that trains: its tensors, how many have a gradient, and the gradients' norm."""
    joins = entry_phases(trainer.stage)
    parameters = dict(trainer.model.named_parameters())
    rows = []
    for entry in (entry for entry, number in joins.items() if number <= phase):
        own = [parameters[name] for name, of in trainer.trained.items() if of == entry]
        gradients = [parameter.grad for parameter in own if parameter.grad is not None]
        norm = math.sqrt(sum(float(gradient.detach().float().square().sum()) for gradient in gradients))
        scalars = sum(parameter.numel() for parameter in own)
        rows.append(
            {"entry": entry, "tensors": len(own), "parameters": scalars, "with_gradient": len(gradients), "norm": norm}
        )
    return rows


def _problems(stage: dict[str, Any]) -> Iterator[str]:
    """Yield what a run of the stage would do wrong without a word."""
    for row in stage["phases"]:
        where = f"stage '{stage['name']}', {row['begins']}"
        for name, value in row["losses"].items():
            if not math.isfinite(value):
                yield f"{where}: the loss '{name}' is {value} on the first batch"
        for gradient in row["gradients"]:
            if not gradient["with_gradient"]:
                yield (
                    f"{where}: '{gradient['entry']}' trains and gets no gradient from this batch. "
                    "Give a loss that reaches it, or take it out of what trains."
                )
            elif not math.isfinite(gradient["norm"]):
                yield f"{where}: the gradient of '{gradient['entry']}' is {gradient['norm']} on this batch"

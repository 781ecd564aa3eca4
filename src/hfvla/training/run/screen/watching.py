"""The callback that tells the screen of a run what a stage's trainer does."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING, Any

from rich.text import Text
from transformers import PrinterCallback, ProgressCallback, TrainerCallback

from hfvla.evaluation.tables import headline_metrics, lower_is_better, number
from hfvla.family import EvaluationResult
from hfvla.recipe import Stage
from hfvla.registry import describe_metric
from hfvla.training.run.screen.columns import clock
from hfvla.training.run.screen.screen import RunScreen

if TYPE_CHECKING:
    from transformers import Trainer, TrainerControl, TrainerState, TrainingArguments

__all__ = ["StageWatcher", "evaluated_line", "finished_line", "take_printers"]

_REDRAW_S = 0.25
_TIMES = ("runtime", "per_second")
_MAX_SCORES = 6


def take_printers(trainer: Trainer) -> None:
    """Take away what transformers prints with: raw dicts, and bars that know one stage alone."""
    for callback in list(trainer.callback_handler.callbacks):
        if isinstance(callback, PrinterCallback | ProgressCallback) or "NotebookProgress" in type(callback).__name__:
            trainer.remove_callback(callback)


class StageWatcher(TrainerCallback):
    """Shows a stage: its log lines, its evaluations with the best score, and where it is.

    Args:
        screen: of the run.
        stage: the stage.
    """

    def __init__(self, screen: RunScreen, stage: Stage) -> None:
        self.screen, self.stage = screen, stage
        self._metric = f"eval_{(stage.keep_best or 'loss').removeprefix('eval_')}"
        self._best: tuple[float, int] | None = None
        self._batches, self._drawn = 0, 0.0
        self._rows_a_step = 1

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Begin the table of the stage."""
        if not state.is_world_process_zero:
            return
        self._rows_a_step = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
        part = self.screen.progress.begin("stage", self.stage.name)
        part.size = float(state.max_steps * self._rows_a_step)
        part.done = part.before = float(state.global_step * self._rows_a_step)
        if state.best_metric is not None and state.best_global_step is not None:
            self._best = (state.best_metric, state.best_global_step)
        if self.screen.history is not None:
            self.screen.history.begin(self.stage.name, state.global_step)
        self.screen.table(self.stage, args.learning_rate, state.max_steps)
        self._show(state)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Move the bar."""
        self._batches = 0
        if state.is_world_process_zero and self._due():
            self._show(state)

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Say that it validates."""
        self._batches += 1
        if state.is_world_process_zero and self._due():
            loader = kwargs.get("eval_dataloader")
            total = f"/{len(loader)}" if loader is not None and hasattr(loader, "__len__") else ""
            step = f"step {state.global_step:,}/{state.max_steps:,}"
            self.screen.doing(f"{step}, validating batch {self._batches}{total}")

    def on_log(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, logs: Any = None, **kwargs: Any
    ) -> None:
        """Show a line of training steps, and write every line to log_history.jsonl."""
        if not state.is_world_process_zero or not logs:
            return
        if self.screen.history is not None:
            self.screen.history.add(self.stage.name, state.global_step, logs)
        if "loss" in logs:
            self.screen.numbers(self.stage.name, state.global_step, logs)
            self._show(state)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any = None, **kwargs: Any
    ) -> None:
        """Show the scores of a validation, and which was the best."""
        self._batches = 0
        if not state.is_world_process_zero or not metrics:
            return
        value = metrics.get(self._metric)
        new = value is not None and math.isfinite(value) and (self._best is None or self._better(value, self._best[0]))
        if new:
            self._best = (value, state.global_step)
        self.screen.say(self._scores(state.global_step, metrics, new))
        self._show(state)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Finish the bar of the stage."""
        if state.is_world_process_zero:
            self._show(state)

    def _better(self, value: float, other: float) -> bool:
        error = self._metric.startswith("eval_loss") or describe_metric(self._metric.removeprefix("eval_")).is_error
        return value < other if error else value > other

    def _scores(self, step: int, metrics: dict[str, Any], new: bool) -> Text:
        """Return the line of a validation: the score that chooses first, then the family's others."""
        scores = {key: value for key, value in metrics.items() if key.startswith("eval_") and "/" not in key}
        scores = {key: scores[key] for key in scores if not key.endswith(_TIMES) and isinstance(scores[key], float)}
        names = [self._metric, *(key for key in scores if key != self._metric and not key.startswith("eval_loss_"))]
        shown = [f"{_label(key)} {number(scores[key])}" for key in names if key in scores][:_MAX_SCORES]
        text = Text.assemble(("  validation ", "bold magenta"), f"step {step:,}  ", (", ".join(shown), "magenta"))
        if new:
            return text.append("  ★ the best so far", "bold green")
        return text.append(f"  ({self._best_text()})", "green") if self._best is not None else text

    def _best_text(self) -> str:
        if self._best is None:
            return ""
        return f"best {_label(self._metric)} {number(self._best[0])} at step {self._best[1]:,}"

    def _due(self) -> bool:
        now = time.perf_counter()
        if now - self._drawn < _REDRAW_S:
            return False
        self._drawn = now
        return True

    def _show(self, state: Any) -> None:
        epochs = f", epoch {state.epoch:.2f}" if state.epoch is not None else ""
        detail = f"step {state.global_step:,}/{state.max_steps:,}{epochs}"
        self.screen.doing(detail, state.global_step * self._rows_a_step, self._best_text())


def _label(key: str) -> str:
    name = key.removeprefix("eval_")
    return name.replace("_", " ") if name.startswith("loss") else describe_metric(name).heading


def finished_line(summary: dict[str, Any]) -> Text:
    """Return the line with which a stage ends."""
    best = summary.get("best_metric")
    kept = f", kept: step {summary['best_step']:,}" if best is not None and summary.get("best_step") else ""
    share = summary.get("data_share")
    waited = f", {share:.1%} of it waiting for data" if share is not None else ""
    text = f"stage {summary['name']} done: {summary['steps']:,} steps in {clock(summary['seconds'])}{waited}{kept}"
    return Text(text, "bold green")


def evaluated_line(name: str, result: EvaluationResult) -> Text:
    """Return the line with which an evaluation ends: its first headline scores, each beside the best baseline."""
    shown = []
    metrics = [metric for metric in headline_metrics(result) if metric != "failures" or result.metrics[metric]]
    for metric in metrics[:_MAX_SCORES]:
        others = [scores[metric] for scores in result.baselines.values() if metric in scores]
        best = (min if lower_is_better(metric) else max)(others) if others else None
        beside = f" (best baseline {number(best, metric)})" if best is not None else ""
        shown.append(f"{describe_metric(metric).heading} {number(result.metrics[metric], metric)}{beside}")
    return Text.assemble((f"evaluation {name}: ", "bold magenta"), (", ".join(shown), "magenta"))

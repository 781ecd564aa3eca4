"""Scores from stage to stage: sets scored before the first stage and after each, to see what is forgotten."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from hfvla.data.processes import Meeting
from hfvla.evaluation.run import evaluate_together
from hfvla.family import EvaluationContext, FamilySpec, SourceData
from hfvla.training.checkpoint.record import read_json, write_json
from hfvla.training.trainer.memory import free_memory

__all__ = ["START", "StageScores", "forget_scores"]

logger = logging.getLogger(__name__)

START = "start"
"""Name of the model that no stage has trained yet."""

_FOLDER = "stage_scores"


def forget_scores(folder: Path, stages: Sequence[str]) -> None:
    """Delete the scores of stages that are trained again in a run folder."""
    for stage in stages:
        (folder / _FOLDER / f"{stage}.json").unlink(missing_ok=True)


class StageScores:
    """Scores of each stage's model on the same sets, kept in `<run>/stage_scores/<stage>.json`.

    A stage that was scored before is not scored again.

    Args:
        folder: of the run.
        names: sets that are scored; none switches it off.
        meeting: of the run's processes.
    """

    def __init__(self, folder: Path, names: tuple[str, ...], meeting: Meeting) -> None:
        self.folder, self.names, self.meeting = folder / _FOLDER, names, meeting

    def missing(self, stage: str) -> bool:
        """Tell whether a stage is still to be scored."""
        return bool(self.names) and read_json(self.folder / f"{stage}.json") is None

    def score(
        self,
        stage: str,
        build: Callable[[], tuple[Any, Any]],
        spec: FamilySpec,
        sources: Mapping[str, SourceData],
        context: EvaluationContext,
    ) -> None:
        """Score one stage's model, without ablations and intervals.

        Args:
            stage: its name, or `START`.
            build: returns model and processor.
            spec: the family.
            sources: evaluation sets by name.
            context: of the run's evaluation.
        """
        from transformers import set_seed

        model, processor = build()
        model.eval().to(context.device)
        short = replace(context, ablations=False, bootstrap_samples=0)
        found = {}
        for name in self.names:
            set_seed(context.seed)
            rows = sources[name].dataset
            result = evaluate_together(f"{stage}-{name}", self.meeting, model, processor, spec, rows, short)
            found[name] = {"metrics": result.metrics, "baselines": result.baselines}
        self.meeting.alone(f"scores-{stage}", lambda: self._write(stage, found))
        del model, processor
        free_memory()

    def _write(self, stage: str, found: dict[str, Any]) -> None:
        self.folder.mkdir(exist_ok=True)
        write_json(self.folder / f"{stage}.json", found)
        for name, scores in found.items():
            numbers = [(key, value) for key, value in scores["metrics"].items() if isinstance(value, float)]
            told = ", ".join(f"{key} {value:.3f}" for key, value in numbers[:4])
            logger.info("after '%s', %s: %s", stage, name, told)

    def record(self, stages: list[str]) -> dict[str, Any]:
        """Return what is known: {set: {stage: metrics}}, the stages in order, `START` first."""
        found: dict[str, Any] = {}
        for stage in [START, *stages]:
            for name, scores in (read_json(self.folder / f"{stage}.json") or {}).items():
                found.setdefault(name, {})[stage] = scores["metrics"]
        return found

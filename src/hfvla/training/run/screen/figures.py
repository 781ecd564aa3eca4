"""Figures of every validation of a stage: `<out>/plots/<stage>/<step>/`, and the trackers."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from hfvla.evaluation.output import write_plot
from hfvla.evaluation.tracking import log_figures
from hfvla.family import FamilySpec, Figure

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, TrainerControl, TrainerState, TrainingArguments

__all__ = ["ValidationFigures"]

logger = logging.getLogger(__name__)


class ValidationFigures(TrainerCallback):
    """Writes what the family draws of each validation (`quick_figures`), on the process that writes.

    Args:
        spec: the family.
        stage: name of the stage.
        folder: `<out>/plots`, or None on a process that writes nothing.
        report_to: trackers that get pictures of them, half a second each.
    """

    def __init__(self, spec: FamilySpec, stage: str, folder: Path | None, report_to: Any = None) -> None:
        self.spec, self.stage, self.folder, self.report_to = spec, stage, folder, report_to
        self._figures: list[Figure] = []

    def see(self, prediction: Any, config: PreTrainedConfig) -> None:
        """Draw what was predicted; a figure that fails costs neither the scores nor the run."""
        if self.folder is None or not self.spec.has("quick_figures"):
            return
        try:
            self._figures = list(self.spec.load("quick_figures")(prediction, config))
        except Exception as error:
            logger.warning("no figures of this validation: %s: %s", type(error).__name__, error)
            self._figures = []

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Write the figures of the step."""
        figures, self._figures = self._figures, []
        if self.folder is None or not figures:
            return
        place = self.folder / self.stage / f"step-{state.global_step}"
        for figure in figures:
            write_plot(figure, place)
        log_figures(self.report_to, figures, f"eval/{self.stage}", state.global_step)

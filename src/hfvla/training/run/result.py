"""What `run_recipe` returns: run.json's content, which a notebook shows in a few lines."""

from __future__ import annotations

from typing import Any

from hfvla.family import EvaluationResult
from hfvla.training.run.screen.watching import evaluated_line, finished_line

__all__ = ["RunResult"]


class RunResult(dict):
    """The content of a run's run.json, an ordinary dict; IPython shows `summary()` in place of hundreds of lines."""

    def summary(self) -> str:
        """Return what was trained, how it scores beside the best baseline, and where it lies."""
        lines = [finished_line(stage).plain for stage in self.get("stages", ())]
        for name, scores in (self.get("evaluation") or {}).items():
            result = EvaluationResult(metrics=scores["metrics"], baselines=scores["baselines"])
            lines.append(evaluated_line(name, result).plain)
        folder = self.get("output_dir")
        if self.get("finished"):
            lines += [] if "no_report" in self else [f"report: {folder}/report.html"]
            lines.append(f"checkpoint: {folder}/final")
        else:
            lines.append(f"not finished: {folder}")
        return "\n".join(lines)

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show it in IPython and notebooks."""
        printer.text(f"{self.summary()}\n(a dict with {', '.join(self)})")

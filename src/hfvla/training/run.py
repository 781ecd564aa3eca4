"""Runs a recipe: every stage, the hand-overs between them, calibration, final checkpoint, evaluation and report."""

from __future__ import annotations

import logging
import shutil
import time
from pathlib import Path
from typing import Any

from hfvla.errors import RecipeError
from hfvla.evaluation.run import evaluate_model, write_evaluation
from hfvla.family import EvaluationContext, EvaluationResult, FamilySpec
from hfvla.recipe import Recipe, diff_recipes, load_resolved, resolved_dict, save_resolved
from hfvla.registry import get_family
from hfvla.training.arguments import uses_cpu
from hfvla.training.data import RecipeData, build_source
from hfvla.training.plan import StagePlan
from hfvla.training.record import environment, read_json, write_json
from hfvla.training.stage import StageRun

__all__ = ["run_recipe"]

logger = logging.getLogger(__name__)


def run_recipe(
    recipe: Recipe,
    output_dir: str | Path | None = None,
    overwrite: bool = False,
    *,
    start_at: str | None = None,
    from_checkpoint: str | Path | None = None,
    stop_after: str | None = None,
) -> dict[str, Any]:
    """Train all stages of a recipe, evaluate the result, and write the run folder.

    Running the same recipe into the same folder goes on where it stopped: finished stages are not trained again, and
    an unfinished one continues from its last checkpoint.

    Args:
        recipe: a checked recipe (`hfvla.recipe.load_recipe`).
        output_dir: run folder; default is the recipe's.
        overwrite: delete an earlier run in that folder first.
        start_at: first stage to run; those before it are not trained.
        from_checkpoint: folder that stands for the stage before `start_at`.
        stop_after: last stage to run.

    Returns:
        `dict`: run.json's content: "output_dir", "stages", "metrics", "baselines", "seconds", ...

    Raises:
        RecipeError: the folder holds a run of another recipe; `start_at` or `stop_after` is not a stage; a stage needs
            an earlier one that is neither run nor given.
        DataError: a source cannot be used.
        CheckpointError: a hand-over changes something that the recipe does not announce.
    """
    from accelerate import PartialState

    plan = StagePlan.from_recipe(recipe, start_at, from_checkpoint, stop_after)
    # Without the flag, processes that share no GPU do not know of each other until the first Trainer is built.
    state = PartialState(cpu=uses_cpu(recipe))
    run = RecipeRun(recipe, plan, Path(output_dir or recipe.output_dir), state)
    run.open_folder(overwrite)
    return run.execute()


class RecipeRun:
    """One run of a recipe on this process; every process of a distributed run builds its own.

    Args:
        recipe: the recipe.
        plan: the stages to run.
        output_dir: run folder.
        state: accelerate's `PartialState`.
    """

    def __init__(self, recipe: Recipe, plan: StagePlan, output_dir: Path, state: Any) -> None:
        self.recipe, self.plan, self.output_dir, self.state = recipe, plan, output_dir, state
        self.spec: FamilySpec = get_family(recipe.family)
        self.record: dict[str, Any] = {}

    def open_folder(self, overwrite: bool) -> None:
        """Create the run folder and save the recipe in it, or check that the run found there is this one.

        Raises:
            RecipeError: the folder holds a run of another recipe, or other files.
        """
        if self.state.is_main_process:
            if self.output_dir.exists():
                self._check_is_run_folder()
                if overwrite:
                    shutil.rmtree(self.output_dir)
            self._claim_folder()
        self.state.wait_for_everyone()

    def _check_is_run_folder(self) -> None:
        if any(self.output_dir.iterdir()) and not (self.output_dir / "recipe.json").is_file():
            raise RecipeError(
                "this folder holds other files and is not a run of hfvla",
                where=str(self.output_dir),
                fix="Choose another --output, or empty the folder yourself.",
            )

    def _claim_folder(self) -> None:
        saved = self.output_dir / "recipe.json"
        if saved.is_file():
            changes = [line for line in diff_recipes(load_resolved(saved), self.recipe) if "output_dir" not in line]
            if changes:
                shown = "; ".join(changes[:5])
                raise RecipeError(
                    "this folder holds a run of another recipe",
                    where=str(self.output_dir),
                    got=shown,
                    fix="Choose another --output, or pass --overwrite to delete that run.",
                )
        self.output_dir.mkdir(parents=True, exist_ok=True)
        save_resolved(self.recipe, saved)

    def execute(self) -> dict[str, Any]:
        """Run the stages and finish."""
        started = time.perf_counter()
        previous = read_json(self.output_dir / "run.json") or {}
        self.record = {
            "output_dir": str(self.output_dir),
            "recipe": resolved_dict(self.recipe),
            "seed": self.recipe.seed,
            "processes": self.state.num_processes,
            **environment(),
            "stages": [],
        }
        with self.state.main_process_first():
            data = RecipeData(self.spec, self.recipe, self.plan.stages)
        self.record["census"] = data.census
        folders = dict(self.plan.folders)
        for stage in self.plan.stages:
            stage_run = StageRun(self.recipe, self.spec, stage, self.output_dir / stage.name, self.state)
            summary = stage_run.finished()
            if summary is None:
                summary = stage_run.train(data, folders)
            else:
                logger.info("stage '%s' is finished; its checkpoint is used as it is", stage.name)
            folders[stage.name] = self.output_dir / stage.name
            self.record["stages"].append(summary)
            self._write_record()
        if self.state.is_main_process:
            self._finish(data, folders)
            self.record["seconds"] = previous.get("seconds", 0.0) + time.perf_counter() - started
            self._write_record()
        self.state.wait_for_everyone()
        return self.record

    def _write_record(self) -> None:
        if self.state.is_main_process:
            write_json(self.output_dir / "run.json", self.record)

    def _finish(self, data: RecipeData, folders: dict[str, Path]) -> None:
        """Calibrate, save `final/`, evaluate and write the report (main process)."""
        last = self.plan.stages[-1]
        model = self.spec.load("model").from_pretrained(folders[last.name]).eval()
        processor = self.spec.load("processor").from_pretrained(folders[last.name])
        model.to(self.state.device)
        train_rows = data.all_training_rows()
        context = self._context(train_rows)
        validation = data.stage_rows(last).validation
        if self.spec.calibrate is not None and validation is not None:
            self.record["calibration"] = self.spec.load("calibrate")(model, processor, validation, context)
        final = self.output_dir / "final"
        model.save_pretrained(final)
        processor.save_pretrained(final)
        save_resolved(self.recipe, final / "recipe.json")
        self._write_record()
        results = {}
        for name, entry in self.recipe.data.eval.items():
            source = build_source(self.spec, entry, self.recipe, f"data.eval.{name}")
            results[name] = evaluate_model(model, processor, self.spec, source.dataset, context)
            results[name].census = source.census
        self._write_results(results)

    def _context(self, train_rows: Any) -> EvaluationContext:
        settings = self.recipe.evaluation
        return EvaluationContext(
            train_rows=train_rows,
            seed=self.recipe.seed,
            batch_size=settings.batch_size,
            bootstrap_samples=settings.bootstrap_samples,
            max_generate=settings.max_generate,
            device=str(self.state.device),
            ablations=settings.ablations,
        )

    def _write_results(self, results: dict[str, EvaluationResult]) -> None:
        if not results:
            logger.warning("the recipe has no data.eval: no metrics and no report are written")
            return
        first = next(iter(results.values()))
        self.record["metrics"], self.record["baselines"] = first.metrics, first.baselines
        self.record["evaluation"] = {
            name: {"metrics": result.metrics, "baselines": result.baselines} for name, result in results.items()
        }
        self._write_record()
        info = {
            "title": self.recipe.name,
            "summary": f"{self.spec.name}: {self.spec.summary}",
            "run_folder": self.output_dir,
        }
        write_evaluation(results, self.output_dir, info)

"""Runs a recipe: every stage, the hand-overs between them, calibration, final checkpoint, evaluation and report."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hfvla.data.processes import Meeting, Processes
from hfvla.evaluation.output import command_line, write_training_report
from hfvla.evaluation.run import evaluate_together, write_evaluation
from hfvla.family import EvaluationContext, EvaluationResult, FamilySpec
from hfvla.hub.card import CARD, write_card
from hfvla.hub.forms import push_checkpoint
from hfvla.hub.push import check_access
from hfvla.paths import expand_user
from hfvla.recipe import Recipe, Stage, resolved_dict, save_resolved
from hfvla.registry import get_family
from hfvla.sealing import check_contents, seal_folder
from hfvla.training.checkpoint.adapters import share_adapter
from hfvla.training.checkpoint.audit import audit_reload
from hfvla.training.checkpoint.files import TEMPORARY
from hfvla.training.checkpoint.record import environment, read_json, saving, write_json
from hfvla.training.checkpoint.rows import check_run_rows
from hfvla.training.checkpoint.writing import save_by_names
from hfvla.training.run.arguments import start_processes
from hfvla.training.run.asked import asked_recipe
from hfvla.training.run.eval_sets import EvalSets
from hfvla.training.run.finished import is_finished
from hfvla.training.run.lock import FolderLock
from hfvla.training.run.machine import set_attention
from hfvla.training.run.model_size import check_models
from hfvla.training.run.preflight import check_arguments, check_data, unused_arguments
from hfvla.training.run.reopening import Reopening
from hfvla.training.run.result import RunResult
from hfvla.training.run.run_folder import lock_run_folder, open_run_folder, replace_folder
from hfvla.training.run.screen.figures import ValidationFigures
from hfvla.training.run.screen.parts import run_parts
from hfvla.training.run.screen.screen import RunScreen, run_screen
from hfvla.training.run.screen.watching import StageWatcher, evaluated_line, finished_line
from hfvla.training.run.stage_run import StageRun
from hfvla.training.run.stage_scores import START, StageScores
from hfvla.training.run.summary import write_summary
from hfvla.training.run.trackers import stage_logs, track_evaluation
from hfvla.training.stage.data import RecipeData
from hfvla.training.stage.plan import StagePlan
from hfvla.training.trainer.devices import out_of_memory_told
from hfvla.training.trainer.zero import deepspeed_scope

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["run_recipe"]

logger = logging.getLogger(__name__)


def run_recipe(
    recipe: Recipe | str | Path,
    overrides: Sequence[str] | Path = (),
    *,
    output_dir: str | Path | None = None,
    overwrite: bool = False,
    allow_recipe_change: bool = False,
    start_at: str | None = None,
    from_checkpoint: str | Path | None = None,
    stop_after: str | None = None,
    extend: str | None = None,
    resume_from: str | None = None,
) -> dict[str, Any]:
    """Train all stages of a recipe, evaluate the result, and write the run folder.

    Running the same recipe into the same folder goes on where it stopped: finished stages are not trained again, and
    an unfinished one continues from its last checkpoint.

    Args:
        recipe: a recipe's file, or what `hfvla.recipe.load_recipe` made of it.
        overrides: "key=value", as on the command line; for a file.
        output_dir: run folder; default is the recipe's.
        overwrite: delete an earlier run in that folder first.
        allow_recipe_change: go on with a recipe that was changed since; finished stages stay as they are.
        start_at: first stage to run; those before it are not trained.
        from_checkpoint: folder that stands for the stage before `start_at`.
        stop_after: last stage to run.
        extend: a finished stage that trains on from its kept checkpoint, for as long as the recipe now says.
        resume_from: an earlier checkpoint to go on from (`hfvla.training.run.reopening`).

    Returns:
        `dict`: run.json's content: "output_dir", "stages", "metrics", "baselines", "seconds", ...; scores and what
        was measured are known to the first process alone. A notebook shows its `summary()`.

    Raises:
        RecipeError: the folder holds a run of another recipe; `start_at` or `stop_after` is not a stage; a stage needs
            an earlier one that is neither run nor given.
        DataError: a source cannot be used.
        CheckpointError: a hand-over changes something that the recipe does not announce; a checkpoint cannot be gone
            on from with these settings; the disk is full.
    """
    words = {"output_dir": output_dir, "from_checkpoint": from_checkpoint, "start_at": start_at}
    words |= {"stop_after": stop_after, "extend": extend, "resume_from": resume_from}
    recipe = asked_recipe(recipe, overrides, words)
    output_dir = words["output_dir"]
    plan = StagePlan.from_recipe(recipe, start_at, from_checkpoint, stop_after)
    plan.check_given(Path(expand_user(str(output_dir or recipe.output_dir))))
    check_arguments(recipe, get_family(recipe.family), plan.stages)
    check_models(recipe, get_family(recipe.family))
    if recipe.hub is not None:
        check_access(recipe.hub.repo)
    run = RecipeRun(recipe, plan, Path(output_dir or recipe.output_dir), start_processes(recipe))
    try:
        run.open_folder(overwrite, allow_recipe_change, Reopening(extend, resume_from))
        return RunResult(run.execute())
    finally:
        run.close_folder()


class RecipeRun:
    """One run of a recipe on this process; every process of a distributed run builds its own.

    Args:
        recipe: the recipe.
        plan: the stages to run.
        output_dir: run folder.
        state: accelerate's `PartialState`.
    """

    def __init__(self, recipe: Recipe, plan: StagePlan, output_dir: Path, state: Any) -> None:
        self.recipe, self.plan, self.state = recipe, plan, state
        self.output_dir = Path(expand_user(str(output_dir)))
        self.spec: FamilySpec = get_family(recipe.family)
        self.record: dict[str, Any] = {}
        self._lock: FolderLock | None = None
        self._allow_change = False
        self._meeting: Meeting | None = None
        self._sets = EvalSets(recipe, self.spec)
        self._changes: list[dict[str, Any]] = []  # of the recipe, since the run began
        self._began, self._seconds_before = time.perf_counter(), 0.0
        self.screen = RunScreen(recipe.name, None)

    def open_folder(
        self, overwrite: bool, allow_recipe_change: bool = False, reopening: Reopening | None = None
    ) -> None:
        """Create the run folder, or check that the run found there is this one (`open_run_folder`)."""
        self._allow_change = allow_recipe_change
        if self.state.is_main_process:
            self._lock = lock_run_folder(self.output_dir)
            self._changes = open_run_folder(
                self.output_dir,
                self.recipe,
                overwrite=overwrite,
                allow_recipe_change=allow_recipe_change,
                reopening=reopening,
            )
        self.state.wait_for_everyone()
        self._meeting = Meeting(self.output_dir, Processes.current())

    @property
    def meeting(self) -> Meeting:
        """Where the processes of this run wait for each other."""
        if self._meeting is None:
            self._meeting = Meeting(self.output_dir, Processes.current())
        return self._meeting

    def close_folder(self) -> None:
        """Let other runs into the folder."""
        if self._meeting is not None:
            self._meeting.close()
        if self._lock is not None:
            self._lock.release()

    def execute(self) -> dict[str, Any]:
        """Run the stages and finish."""
        moving = not self.recipe.args.get("disable_tqdm")
        with run_screen(self.recipe.name, self.output_dir if self.state.is_main_process else None, moving) as screen:
            self.screen = screen
            return self._execute()

    def _execute(self) -> dict[str, Any]:
        previous = read_json(self.output_dir / "run.json") or {}
        if is_finished(self.output_dir, previous, self.recipe, self.plan.stages):
            logger.info("this run is finished: its result is shown as it is (--overwrite trains and scores anew)")
            return previous
        self._seconds_before = previous.get("seconds", 0.0)
        self.record = {
            "output_dir": str(self.output_dir),
            "recipe": resolved_dict(self.recipe),
            "seed": self.recipe.seed,
            "processes": self.state.num_processes,
            **environment(),
            "command": command_line(),
            **({"recipe_changes": self._changes} if self._changes else {}),
            "stages": [],
        }
        data = RecipeData(self.spec, self.recipe, self.plan.stages, self.meeting)
        check_data(self.recipe, self.spec, self.plan.stages, data, self.state.num_processes)
        self.record["census"] = data.census
        for text in unused_arguments(self.recipe, self.plan.stages):
            logger.info("args: %s", text)
        if self.state.is_main_process:
            check_run_rows(self.output_dir, data.fingerprints(), self._allow_change)
        folders = dict(self.plan.folders)
        self.screen.plan(run_parts(self.recipe, self.spec, self.plan.stages, data, self.state.num_processes))
        scores = StageScores(self.output_dir, tuple(self.recipe.evaluation.stages), self.meeting)
        self._score_start(scores, data, folders)
        for stage in self.plan.stages:
            self.record["stages"].append(self._run_stage(stage, data, folders))
            folders[stage.name] = self.output_dir / stage.name
            self._score_stage(scores, stage.name, partial(self._loaded, folders[stage.name]), data)
            self._write_record()
        with (
            saving("the final checkpoint and its scores", self.output_dir, "Finished stages are untouched."),
            out_of_memory_told(lambda: "the final checkpoint's evaluation", self._smaller_evaluation),
        ):
            results = self._finish(data, folders)
        self.meeting.alone("report", lambda: self._report(results))
        self.meeting.alone("push", self._push)
        self.record["finished"] = True
        self._write_record()
        return self.record

    def _run_stage(self, stage: Stage, data: RecipeData, folders: dict[str, Path]) -> dict[str, Any]:
        """Return the summary of a stage, trained now or before."""
        report_to = self.recipe.stage_args(stage).get("report_to")
        plots = self.output_dir / "plots" if self.state.is_main_process else None
        figures = ValidationFigures(self.spec, stage.name, plots, report_to)
        watchers = [StageWatcher(self.screen, stage)]
        folder = self.output_dir / stage.name
        stage_run = StageRun(self.recipe, self.spec, stage, folder, self.state, watchers, figures)
        summary = stage_run.finished()
        if summary is not None:
            logger.info("stage '%s' is finished; its checkpoint is used as it is", stage.name)
            self.screen.skip(stage.name)
            return summary
        self.screen.begin("stage", stage.name)
        with deepspeed_scope(), stage_logs(self.output_dir, stage.name, self.recipe.name, report_to):
            summary = stage_run.train(data, folders)
        self.screen.say(finished_line(summary))
        return summary

    def _score_start(self, scores: StageScores, data: RecipeData, folders: dict[str, Path]) -> None:
        """Score the model that the first stage starts from."""
        first = self.plan.stages[0]
        stage_run = StageRun(self.recipe, self.spec, first, self.output_dir / first.name, self.state)
        self._score_stage(scores, START, lambda: stage_run.start(data, folders), data)

    def _score_stage(
        self, scores: StageScores, name: str, build: Callable[[], tuple[Any, Any]], data: RecipeData
    ) -> None:
        if scores.missing(name):
            with out_of_memory_told(lambda: f"the evaluation of '{name}'", self._smaller_evaluation):
                scores.score(name, build, self.spec, self._sets.of(data, self.meeting), self._context(data))
        if scores.names:
            self.record["stage_scores"] = scores.record([stage.name for stage in self.plan.stages])

    def _loaded(self, folder: Path) -> tuple[Any, Any]:
        """Return model and processor of a finished stage."""
        check_contents(folder)
        model = self.spec.load("model").from_pretrained(folder).eval()
        set_attention(model, self.recipe.model.attention)
        return model, self.spec.load("processor").from_pretrained(folder)

    def _push(self) -> None:
        """Push the result, once; a hub that is away ends the command, and nothing of the run is lost."""
        if self.recipe.hub is not None:
            self.record["hub"] = push_checkpoint(self.output_dir, self.recipe.hub)
            self._write_record()

    def _smaller_evaluation(self) -> str:
        return (
            f"Lower evaluation.batch_size (now {self.recipe.evaluation.batch_size}) and run the same command again "
            "with --allow-recipe-change: finished stages are not trained anew."
        )

    @property
    def _repo(self) -> str | None:
        return None if self.recipe.hub is None else self.recipe.hub.repo

    def _write_record(self) -> None:
        if self.state.is_main_process:
            self.record["seconds"] = self._seconds_before + time.perf_counter() - self._began
            write_json(self.output_dir / "run.json", self.record)

    def _report(self, results: dict[str, EvaluationResult]) -> None:
        with saving("the final checkpoint and its scores", self.output_dir, "Finished stages are untouched."):
            self._write_results(results)
            write_card(self.output_dir / "final", self.record, results or {}, repo=self._repo)
        self._write_record()
        write_summary(self.output_dir, self.record)

    def _finish(self, data: RecipeData, folders: dict[str, Path]) -> dict[str, EvaluationResult]:
        """Calibrate, save `final/` and evaluate: processes share the batches, the first one scores and writes.

        A run that is resumed here comes with another random state than one that trained until now; so each part draws
        from the run's seed.
        """
        from transformers import set_seed

        last = self.plan.stages[-1]
        self.screen.progress.end()
        self.screen.doing("calibrating and saving the final checkpoint")
        model, processor = self._loaded(folders[last.name])
        model.to(self.state.device)
        context = self._context(data)
        validation = data.stage_rows(last).validation
        if self.spec.has("calibrate") and validation is not None:
            set_seed(self.recipe.seed)
            self.record["calibration"] = self.spec.load("calibrate")(model, processor, validation, context)
        self.meeting.alone("final", lambda: self._save_final(model, processor, folders[last.name]))
        results = {}
        for name, source in self._sets.of(data, self.meeting).items():
            self.screen.begin("evaluation", name)
            self.screen.progress.grow(len(source.dataset))
            set_seed(self.recipe.seed)
            results[name] = evaluate_together(name, self.meeting, model, processor, self.spec, source.dataset, context)
            results[name].census = source.census
            self.screen.say(evaluated_line(name, results[name]))
        return results

    def _save_final(self, model: PreTrainedModel, processor: ProcessorMixin, folder: Path) -> None:
        final = self.output_dir / f"{TEMPORARY}final"
        save_by_names(model, final)
        share_adapter(folder, final)
        audit_reload(model, final, model.state_dict())
        processor.save_pretrained(final)
        save_resolved(self.recipe, final / "recipe.json")
        write_card(final, self.record, {}, repo=self._repo)
        seal_folder(final, {"run": self.recipe.name}, skip=(CARD,))  # the card gets its scores, and corrections
        replace_folder(final, self.output_dir / "final")
        self._write_record()

    def _context(self, data: RecipeData) -> EvaluationContext:
        settings = self.recipe.evaluation
        context = EvaluationContext(
            train_rows=data.all_training_rows() if self.state.is_main_process else None,
            seed=self.recipe.seed,
            batch_size=settings.batch_size,
            bootstrap_samples=settings.bootstrap_samples,
            max_generate=settings.max_generate,
            device=str(self.state.device),
            ablations=settings.ablations,
            max_bad_fraction=self.recipe.data.max_bad_fraction,
            options=settings.options,
        )
        return context.of_process(replace(self.meeting.processes, progress=self.screen.batches))

    def _track(self, results: dict[str, EvaluationResult]) -> None:
        """Log the scores to the trackers of the last stage; their pictures where the recipe names the trackers."""
        named = self.recipe.stage_args(self.plan.stages[-1]).get("report_to")
        track_evaluation(named, results, self.output_dir, self.recipe.name, [self.spec.name])

    def _write_results(self, results: dict[str, EvaluationResult]) -> None:
        info = {
            "title": self.recipe.name,
            "summary": f"{self.spec.name}: {self.spec.summary}",
            "run_folder": self.output_dir,
        }
        if not results:
            logger.warning("no data.eval and no data.test: nothing is scored, and the report shows the training alone")
            problem = write_training_report(self.output_dir, info)
            self.record |= {"no_report": problem} if problem is not None else {}
            return
        first = next(iter(results.values()))
        self.record["metrics"], self.record["baselines"] = first.metrics, first.baselines
        self.record["evaluation"] = {
            name: {"metrics": result.metrics, "baselines": result.baselines} for name, result in results.items()
        }
        self._write_record()
        problem = write_evaluation(results, self.output_dir, info)
        self._track(results)
        self.record.pop("no_report", None)
        if problem is not None:  # the model is there, and so are its scores
            self.record["no_report"] = problem

"""One stage of a run: model taken over, table printed, trained, best checkpoint kept, folder completed."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback

from hfvla.family import FamilySpec, resolve
from hfvla.recipe import Recipe, Stage
from hfvla.registry import load_checkpoint
from hfvla.sealing import check_contents, seal_folder, sealed, unsealed
from hfvla.training.checkpoint.adapters import SavedAdapters
from hfvla.training.checkpoint.files import sync_folder, tidy_checkpoints
from hfvla.training.checkpoint.handover import HandoverReport, hand_over, load_state
from hfvla.training.checkpoint.lora_handover import earlier_adapters, place_adapters
from hfvla.training.checkpoint.record import read_json, saving, write_json
from hfvla.training.run.arguments import spread_weights, stage_arguments
from hfvla.training.run.caching import cached_rows
from hfvla.training.run.context import StageContext
from hfvla.training.run.energy import EnergyCallback, energy_callbacks
from hfvla.training.run.machine import set_attention
from hfvla.training.run.model_size import merge_config, merge_keys
from hfvla.training.run.packing import ordered_rows, rows_that_fit
from hfvla.training.run.saving import save_and_audit
from hfvla.training.run.screen import DETAIL
from hfvla.training.run.screen.figures import ValidationFigures
from hfvla.training.run.screen.watching import take_printers
from hfvla.training.run.tables import handover_text, trainable_text, what_trains
from hfvla.training.stage.data import RecipeData, StageRows
from hfvla.training.stage.groups import assign_phases, freeze, table_dicts
from hfvla.training.stage.phases import final_weights, loss_terms, phase_entries
from hfvla.training.trainer.memory import free_memory
from hfvla.training.trainer.trainer import StagedTrainer

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

__all__ = ["StageRun", "merge_config"]

logger = logging.getLogger(__name__)


class StageRun(StageContext):
    """One stage of a run, on this process.

    Args:
        recipe: the recipe.
        spec: its family.
        stage: the stage.
        folder: `<out>/<stage>`.
        state: accelerate's `PartialState`.
        callbacks: further ones of its trainer.
        figures: what draws its validations.
    """

    def __init__(
        self,
        recipe: Recipe,
        spec: FamilySpec,
        stage: Stage,
        folder: Path,
        state: Any,
        callbacks: Sequence[TrainerCallback] = (),
        figures: ValidationFigures | None = None,
    ) -> None:
        super().__init__(recipe, spec, stage, folder, state)
        self.callbacks = [*callbacks, *([figures] if figures is not None else [])]
        self.figures = figures
        self.index = recipe.stages.index(stage)
        self._base: str | None = None  # what the stage starts from
        self.cache: dict[str, Any] | None = None  # census of the feature cache, once it is built
        self.packing: dict[str, Any] | None = None  # padding before and after, where samples are packed
        self.left_out: dict[str, Any] | None = None  # rows that are longer than the model takes

    def finished(self) -> dict[str, Any] | None:
        """Return the stage's summary if it was completed before."""
        summary = read_json(self.folder / "stage.json")
        if summary is None:
            return None
        check_contents(self.folder)
        if self.state.is_main_process:  # a run may end between the two
            step = summary.get("best_step")
            best = self._checkpoints / f"checkpoint-{step}" if step is not None else None
            tidy_checkpoints(self._checkpoints, self.stage.keep_checkpoints, best)
        return unsealed(summary)

    @property
    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints"

    def start(self, data: RecipeData, folders: Mapping[str, Path]) -> tuple[Any, Any]:
        """Return the model that the stage starts from, and its processor."""
        model, processor, _ = self._take_over(data, folders)
        return model, processor

    def train(self, data: RecipeData, folders: Mapping[str, Path]) -> dict[str, Any]:
        """Train the stage and complete its folder.

        Args:
            data: the recipe's rows.
            folders: folder of each finished stage by name.

        Returns:
            `dict`: summary: name, seconds, steps, parameters, trainable_parameters, scores ...
        """
        try:
            return self._train(data, folders)
        finally:
            free_memory()  # trainer, model and optimizer keep each other alive, beside those of the next stage

    def _train(self, data: RecipeData, folders: Mapping[str, Path]) -> dict[str, Any]:
        started = time.perf_counter()
        rows = data.stage_rows(self.stage)
        model, processor, report = self._take_over(data, folders)
        trainer = self._trainer(model, processor, rows)
        table = trainer.trainable_table()
        logger.info(
            "stage '%s': %s training and %d validation rows; %s",
            self.stage.name,
            "streamed" if rows.streamed else rows.counts["train"],
            rows.counts["validation"],
            what_trains(table, report),
        )
        logger.info(
            "%s\n%s",
            trainable_text(self.stage, table),
            handover_text(self.stage.name, report),
            extra=DETAIL,
        )
        result = trainer.train(resume_from_checkpoint=self._last_checkpoint(trainer))
        summary = {
            "name": self.stage.name,
            "seconds": time.perf_counter() - started + trainer.seconds_before,
            "steps": trainer.state.global_step,
            "epochs": trainer.state.epoch,
            "train_loss": result.training_loss,
            "parameters": table[-1].parameters,
            "trainable_parameters": table[-1].trainable,
            "rows": rows.counts,
            "best_metric": trainer.state.best_metric,
            "best_step": trainer.state.best_global_step if self.stage.keep_best else None,
            "scores": _last_scores(trainer),
            "handover": report.counts(),
            **_cost(trainer),
            **({"cache": self.cache} if self.cache else {}),
            **({"packing": self.packing} if self.packing else {}),
            **({"too_long": self.left_out} if self.left_out else {}),
            **({"gradients": trainer.monitor.summary()} if trainer.monitor else {}),
        }
        with saving(f"stage '{self.stage.name}': its result", self.folder, "Its last checkpoint is untouched."):
            self._complete(trainer, processor, report, table_dicts(table), summary)
        return summary

    def _take_over(self, data: RecipeData, folders: Mapping[str, Path]) -> tuple[Any, Any, HandoverReport]:
        """Return the stage's model, the processor, and what was carried over."""
        source = self.stage.handover.from_ or (self.recipe.stages[self.index - 1].name if self.index else None)
        if source is None and self.recipe.model.pretrained is None:
            rows = data.stage_rows(self.stage).known()
            section = self.recipe.model.model_dump()
            section["config"] = merge_keys(section["config"], self.stage.model)
            model, processor = self.spec.load("initialise")(section, rows, self.recipe.seed)
            self._settle(model)
            report = hand_over(model, model.state_dict(), self.stage.handover, self.spec.groups, "new")
            place_adapters(model, self.spec.groups, self.stage, None, report)
            return model, processor, report
        saved: SavedAdapters | None = None
        if source is not None:
            path: str | Path = folders[source]
            check_contents(path)
            state = load_state(path)
            saved = earlier_adapters(self.stage, path, state)
            config = self.spec.load("config").from_pretrained(path)
            processor = self.spec.load("processor").from_pretrained(path)
        else:
            source = path = str(self.recipe.model.pretrained)
            _, old, processor = load_checkpoint(path, family=self.spec.name, revision=self.recipe.model.revision)
            if self.spec.has("adapt"):
                self.spec.load("adapt")(old, processor, self.recipe.model.options)
            state, config = old.state_dict(), merge_config(old.config, self.recipe.model.config)
        model, report = self._filled(config, state, source, saved)
        self._base = str(path)
        if self.spec.plain:  # how it writes is no part of the config: which tokens end an answer, for one
            model.generation_config = _generation_of(path) or model.generation_config
        return model, processor, report

    def _filled(
        self, config: PreTrainedConfig, state: dict[str, Any], source: str, saved: SavedAdapters | None
    ) -> tuple[Any, HandoverReport]:
        from transformers import set_seed

        set_seed(self.recipe.seed + self.index)
        model = self.spec.new_model(merge_config(config, self.stage.model))
        self._settle(model)
        report = hand_over(model, state, self.stage.handover, self.spec.groups, source)
        place_adapters(model, self.spec.groups, self.stage, saved, report, self.recipe.model.pretrained)
        return model, report

    def _settle(self, model: PreTrainedModel) -> None:
        """Let a family that finds its groups in the model look for them; give the model its attention kernels."""
        set_attention(model, self.recipe.model.attention)
        self.spec = self.spec.of_model(model, self.recipe.model.options)

    def _trainer(self, model: PreTrainedModel, processor: ProcessorMixin, rows: StageRows) -> StagedTrainer:
        from transformers import EarlyStoppingCallback

        arguments = stage_arguments(self.recipe, self.stage, self.spec, self.folder, rows.validation is not None)
        trainer_class = self.spec.load("trainer") if self.spec.has("trainer") else StagedTrainer
        callbacks = [*energy_callbacks(), *self.callbacks]
        if self.stage.patience:
            callbacks.append(EarlyStoppingCallback(self.stage.patience))
        epochs = arguments.num_train_epochs if arguments.max_steps <= 0 else math.inf
        if self.spec.plain:  # the config of a model of transformers is left as it is
            if not spread_weights(arguments):  # what a loss compares with shares what never trains
                where = f"stage '{self.stage.name}'"
                freeze(model, assign_phases(model, self.spec.groups, phase_entries(self.stage), where))
            self.spec.give_objective(model, self.recipe.model.options, loss_terms(self.stage))
        else:
            model.config.loss_weights = final_weights(self.stage, epochs)
        collator = self.spec.load("collator")(processor, model.config, losses=loss_terms(self.stage), training=True)
        rows, self.left_out = rows_that_fit(self.stage, rows, collator)
        if self.stage.cache is not None:
            rows, collator, census = cached_rows(self, model, processor, rows, collator, arguments)
            self.cache = census.to_dict()
        trainer = trainer_class(
            model=model,
            args=arguments,
            stage=self.stage,
            groups=self.spec.groups,
            from_recipe=True,
            loss_functions=self.spec.loss_functions,
            data_collator=collator,
            train_dataset=self._training_rows(rows.train, collator, arguments),
            eval_dataset=rows.validation,
            compute_metrics=lambda prediction: self._metrics(prediction, model.config),
            callbacks=callbacks,
        )
        trainer.checkpoint_processor, trainer.checkpoint_base = processor, self._base
        take_printers(trainer)
        return trainer

    def _metrics(self, prediction: Any, config: PreTrainedConfig) -> dict[str, float]:
        if self.figures is not None:
            self.figures.see(prediction, config)
        return quick_metrics(self.spec, prediction, config)

    def _training_rows(self, rows: Any, collator: Any, arguments: Any) -> Any:
        found = ordered_rows(self.stage, rows, collator, arguments)
        report = getattr(found, "report", None)
        self.packing = report.to_dict() if report is not None else None
        return found

    def _last_checkpoint(self, trainer: StagedTrainer) -> str | None:
        found = trainer.find_checkpoint(clean=True)
        if found:
            logger.info("stage '%s' goes on from %s", self.stage.name, Path(found).name)
        return found

    def _complete(
        self,
        trainer: StagedTrainer,
        processor: ProcessorMixin,
        report: HandoverReport,
        table: list[dict[str, Any]],
        summary: dict[str, Any],
    ) -> None:
        """Write checkpoint, processor and records; stage.json comes last and marks the stage as finished.

        Raises:
            CheckpointError: the checkpoint does not hold what was trained, or does not compute the same.
        """
        summary["audit"] = save_and_audit(trainer, self.folder, self.recipe.model.pretrained)
        if self.state.is_main_process:
            processor.save_pretrained(self.folder)
            write_json(self.folder / "handover.json", report.to_dict())
            write_json(self.folder / "trainable.json", table)
            write_json(self.folder / "log_history.json", trainer.state.log_history)
            sync_folder(self.folder)
            seal_folder(self.folder, {"stage": self.stage.name}, skip=("checkpoints", "stage.json"))
            write_json(self.folder / "stage.json", sealed(summary))
            best = trainer.state.best_model_checkpoint if self.stage.keep_best else None
            tidy_checkpoints(self._checkpoints, self.stage.keep_checkpoints, Path(best) if best else None)
        self.state.wait_for_everyone()


def _generation_of(path: str | Path) -> Any:
    """Return the `generation_config` of a checkpoint, or None where it has none."""
    from transformers import GenerationConfig

    try:
        return GenerationConfig.from_pretrained(str(path))
    except OSError:
        return None


def _cost(trainer: StagedTrainer) -> dict[str, Any]:
    """Return the samples of an optimizer step over all processes, how much waited for data, and energy if measured."""
    arguments = trainer.args
    samples = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    found = [back for back in trainer.callback_handler.callbacks if isinstance(back, EnergyCallback)]
    return {
        "batch_size": samples,
        "data_share": trainer.pace.data_share,
        "energy": found[0].summary() if found else None,
    }


def _last_scores(trainer: StagedTrainer) -> dict[str, float]:
    """Return the evaluation scores of the weights that are kept: the best evaluation's, or the last one's."""
    lines = [line for line in trainer.state.log_history if any(key.startswith("eval_") for key in line)]
    best = [line for line in lines if line.get("step") == trainer.state.best_global_step]
    chosen = (best or lines or [{}])[-1]
    skipped = ("runtime", "per_second")
    return {key: value for key, value in chosen.items() if key.startswith("eval_") and not key.endswith(skipped)}


def quick_metrics(spec: FamilySpec, prediction: Any, config: PreTrainedConfig) -> dict[str, float]:
    """Return the family's quick metrics, and those that plug-ins compute beside them."""
    found = dict(spec.load("compute_metrics")(prediction, config))
    for metric in spec.metrics:
        if metric.compute is not None:
            found[metric.name] = float(resolve(metric.compute)(prediction, config))
    return found

"""What a recipe would do, without doing it: parts, stages and phases, steps, bytes, memory and time."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hfvla.cache import choose_cut
from hfvla.errors import RecipeError
from hfvla.family import FamilySpec
from hfvla.nn.mixed_precision import cast_together
from hfvla.nn.objective import objective_of
from hfvla.recipe import Lora, LossSchedule, Recipe, Stage
from hfvla.registry import get_family
from hfvla.training.estimate.costs import ASSUMPTIONS, Workload, training_costs
from hfvla.training.estimate.counting import Counter, term_shares
from hfvla.training.estimate.devices import GPUS, Gpu
from hfvla.training.estimate.prefix import PrefixCost, cache_note, profile_prefix
from hfvla.training.estimate.profile import default_loss
from hfvla.training.estimate.sizes import PRECISIONS
from hfvla.training.estimate.timing import Throughput
from hfvla.training.estimate.tools import (
    add_adapters,
    checkpoint_bytes,
    device_statements,
    disk_bytes,
    part_rows,
    phase_row,
)
from hfvla.training.estimate.tracker import EstimateError
from hfvla.training.run.caching import ever_trained
from hfvla.training.run.model_size import base_config, merge_config, meta_model
from hfvla.training.run.preflight import check_arguments, unused_arguments
from hfvla.training.stage.groups import adapter_of, assign_phases, expand_group, plain_name
from hfvla.training.stage.phases import (
    Timeline,
    begins,
    entry_phases,
    entry_rates,
    loss_terms,
    peak_weights,
    phase_entries,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["base_config", "meta_model", "plan_recipe"]

_DEFAULT_EPOCHS, _DEFAULT_BATCH, _DEFAULT_RATE = 3.0, 8, 5e-5  # TrainingArguments' own defaults
_DEFAULT_OPTIM = "adamw_torch_fused"
_GRADIENT_COPIES = ("pcgrad", "gradnorm")  # one float32 gradient a loss term


def plan_recipe(
    recipe: Recipe,
    throughput: Throughput | None = None,
    gpus: Sequence[Gpu] = GPUS,
    samples: int | None = None,
    cpu: Gpu | None = None,
    brief: bool = False,
) -> dict[str, Any]:
    """Return what each stage and phase would train, for how many steps, and what it would save, need and take.

    Builds models on the meta device: no weights, no download (except the config of `model.pretrained`).

    Args:
        recipe: a checked recipe.
        throughput: measured speeds; default: the data sheets' peak at a stated utilisation.
        gpus: GPUs to plan for.
        samples: of an epoch of every stage, in place of counting the data, which then need not be here.
        cpu: this machine's CPU (`this_cpu`), to estimate its time too.
        brief: follow each stage as it is written alone; other settings only where that fits no GPU.

    Returns:
        `dict`: "family", "recipe", "parameters" (by part), "total_parameters", "stages", "gpus" (name and memory),
            "disk" (see `disk_bytes`), "unused" (arguments without an effect, a sentence each), "assumptions".

    Raises:
        CheckpointError: the config of `model.pretrained` is of another family.
        RecipeError: a group that matches nothing, a phase that never begins.
    """
    if not isinstance(recipe, Recipe):
        raise RecipeError("no recipe", where="plan_recipe(recipe=...)", got=recipe, fix="Write load_recipe(file).")
    spec = get_family(recipe.family)
    check_arguments(recipe, spec, here=False)
    config = base_config(recipe, spec)
    counter = Counter(recipe, spec, samples)
    mixtures = {stage.name: counter.mixture(stage) for stage in recipe.stages}
    counts = {stage.name: counter.samples_of(stage, mixtures[stage.name]) for stage in recipe.stages}
    stages: list[dict[str, Any]] = []
    configs: dict[str | None, Any] = {}
    float32: dict[str | None, set[str]] = {None: set()}  # what trained in a stage and those that it takes over from
    adapters: dict[str | None, Lora | None] = {}
    for index, stage in enumerate(recipe.stages):
        source = stage.handover.from_ or (recipe.stages[index - 1].name if index else None)
        configs[stage.name] = merge_config(configs.get(source, config), stage.model)
        adapters[stage.name] = stage.lora or (adapters.get(source) if stage.handover.lora == "continue" else None)
        model = meta_model(spec, configs[stage.name])
        cast_together(model, float32[source])
        planner = _StagePlanner(recipe, spec, stage, model, adapters[stage.name])
        float32[stage.name] = float32[source] | {plain_name(name) for name in planner.trained if not adapter_of(name)}
        planner.shares = term_shares(recipe, stage, mixtures[stage.name])
        planned = planner.plan(counts[stage.name], throughput, gpus, cpu, brief)
        stages.append({**planned, "mixture": mixtures[stage.name]})
    model = meta_model(spec, configs[recipe.stages[-1].name])
    spec = spec.of_model(model, recipe.model.options)
    return {
        "family": spec.name,
        "recipe": recipe.name,
        "parameters": part_rows(model, spec.parameter_table),
        "total_parameters": sum(parameter.numel() for parameter in model.parameters()),
        "stages": stages,
        "gpus": [{"name": gpu.name, "memory_bytes": gpu.memory_bytes, "like": gpu.like} for gpu in gpus],
        "disk": disk_bytes(recipe, stages),
        "unused": unused_arguments(recipe),
        "assumptions": [*counter.statements(), *device_statements(gpus, cpu), *ASSUMPTIONS],
    }


class _StagePlanner:
    """Plans one stage.

    Args:
        recipe: the recipe.
        spec: its family.
        stage: the stage.
        model: its model on the meta device.
        lora: the adapters that train in it.
    """

    def __init__(
        self, recipe: Recipe, spec: FamilySpec, stage: Stage, model: PreTrainedModel, lora: Lora | None
    ) -> None:
        spec = spec.of_model(model, recipe.model.options)
        self.spec, self.stage, self.model = spec, stage, model
        spec.give_objective(model, recipe.model.options, loss_terms(stage))
        self.arguments = recipe.stage_args(stage)
        self.four_bit = add_adapters(model, spec.groups, lora)
        where = f"stage '{stage.name}'"
        self.trained = assign_phases(model, spec.groups, phase_entries(stage), where)
        cast_together(model, self.trained)
        self.batch = int(self.arguments.get("per_device_train_batch_size", _DEFAULT_BATCH))
        self.accumulation = int(self.arguments.get("gradient_accumulation_steps", 1))
        self.cached: PrefixCost | None = None
        self.shares: dict[str, float] = {}  # of the rows that teach a term, where sources name theirs
        self.optim = str(self.arguments.get("optim", _DEFAULT_OPTIM))
        self.chunk = min(self.batch, self.stage.grad_cache or self.batch)  # rows whose activations are held at a time

    def plan(
        self, samples: int, throughput: Throughput | None, gpus: Sequence[Gpu], cpu: Gpu | None, brief: bool
    ) -> dict[str, Any]:
        """Return the stage's part of the plan."""
        epochs = float(self.arguments.get("num_train_epochs", _DEFAULT_EPOCHS))
        per_epoch = max(1, math.ceil(math.ceil(samples / self.batch) / self.accumulation))
        fixed = int(self.arguments.get("max_steps", -1))
        steps = fixed if fixed > 0 else math.ceil(per_epoch * epochs)
        timeline = Timeline.of(self.stage, per_epoch, steps)
        phases = self._phases(timeline)
        costs, notes = None, [f"no memory and time: family '{self.spec.name}' gives no `plan_batch`"]
        try:
            work = self._workload(samples, timeline, fixed if fixed > 0 else None, gpus, cpu)
            if work is not None:
                costs, notes = training_costs(replace(work, brief=brief), throughput), []
        except EstimateError as error:
            notes = [f"no memory and time: {error}"]
        if self.stage.grad_cache is not None:
            notes.append(
                f"grad_cache: memory and time of chunks of {self.chunk} rows; their features and the second pass "
                "forward are not counted"
            )
        if beside := self._beside()[1]:
            notes.append(beside)
        if self.stage.packing is not None:
            notes.append(
                "packing: a row of a batch holds several samples, so that there are fewer steps than these; "
                "the log of the run says how many samples a sequence has"
            )
        if self.stage.cache is not None:
            notes.append(cache_note(self.cached, samples, self.stage.cache.views))
        last = phases[-1]
        return {
            "name": self.stage.name,
            "samples": samples,
            "steps": steps,
            "epochs": epochs,
            "batch_size": self.batch * self.accumulation,
            "groups": last["groups"],
            "total": last["total"],
            "trainable_parameters": last["trainable_parameters"],
            "losses": {name: _weight(value) for name, value in self.stage.losses.items()},
            "phases": phases,
            "precision": self._precision(),
            "optim": self.optim,
            "as_written": self._as_written(),
            "costs": costs,
            "notes": notes,
            **checkpoint_bytes(self.model, self.trained, alone=_adapters_alone(self.stage)),
        }

    def _phases(self, timeline: Timeline) -> list[dict[str, Any]]:
        rates = entry_rates(self.stage, float(self.arguments.get("learning_rate", _DEFAULT_RATE)))
        joins = entry_phases(self.stage)
        ends = [*timeline.starts[1:], timeline.max_steps]
        rows = []
        for number, entries in enumerate(phase_entries(self.stage)):
            trained = {name: entry for name, entry in self.trained.items() if joins[entry] <= number}
            facts = {
                "phase": number,
                "begins": begins(self.stage.phases[number - 1]) if number else "start",
                "step": timeline.starts[number],
                "steps": ends[number] - timeline.starts[number],
                "add": entries,
                "learning_rates": {entry: rates[entry] for entry in entries},
                "losses": timeline.weights_at(timeline.starts[number]),
            }
            rows.append(phase_row(self.model, self.spec.groups, trained, rates, facts))
        return rows

    def _workload(
        self, samples: int, timeline: Timeline, max_steps: int | None, gpus: Sequence[Gpu], cpu: Gpu | None
    ) -> Workload | None:
        """Return what the stage computes; None where the family does not say what a batch looks like."""
        if not self.spec.has("plan_batch"):
            return None
        joins = entry_phases(self.stage)
        ends = [*timeline.starts[1:], timeline.max_steps]
        seen = self.batch * self.accumulation
        phases = [
            ([name for name, entry in self.trained.items() if joins[entry] <= number], seen * float(end - start))
            for number, (start, end) in enumerate(zip(timeline.starts, ends, strict=True))
        ]
        weights = {name: weight for name, weight in peak_weights(self.stage).items() if weight}

        def loss(output: Any) -> Any:
            terms = output.get("loss_terms")
            used = [weight * terms[name] for name, weight in weights.items() if terms and name in terms]
            return torch.stack(used).sum() if used else default_loss(output)

        batch, once = self._batch()
        cache = self.stage.cache
        written = self._as_written()
        return Workload(
            model=self.model,
            batch=batch,
            once_flops=once.flops_per_sample * samples * cache.views if once and cache else 0.0,
            once_peak=once.peak_bytes if once else 0,
            extra_gradients=len(loss_terms(self.stage)) if self.stage.loss_weighting in _GRADIENT_COPIES else 0,
            reported_gradients=self._reported_gradients(),
            beside=self._beside()[0],
            batch_size=self.chunk,
            phases=phases,
            precision=PRECISIONS[self._precision()],
            optim=self.optim,
            accumulation=self.accumulation * math.ceil(self.batch / self.chunk),
            max_steps=max_steps,
            four_bit=self.four_bit,
            loss=loss,
            gpus=gpus,
            as_written=(written["setting"], written["checkpointing"]),
            cpu=cpu,
        )

    def _batch(self) -> tuple[dict[str, Any], PrefixCost | None]:
        """Return a batch of the stage, behind its cut where it has a cache, and what the part before the cut costs."""
        losses = loss_terms(self.stage)
        told = {"shares": self.shares} if self.shares else {}
        batch = self.spec.load("plan_batch")(self.model.config, self.chunk, losses, **told)
        cache = self.stage.cache
        if cache is None:
            return batch, None
        trained = ever_trained(self.model, self.spec.groups, self.stage)
        _, cut = choose_cut(self.spec, trained, f"stage '{self.stage.name}'", cache.cut, losses)
        if not cut.has("plan"):
            return batch, None
        kept, autocast = getattr(torch, cache.dtype), PRECISIONS[self._precision()].autocast
        batch, self.cached = profile_prefix(self.model, cut, batch, self.chunk, kept=kept, autocast=autocast)
        return batch, self.cached

    def _beside(self) -> tuple[int, str]:
        """Return how many weights the losses hold beside the model, and a line about it."""
        objective = objective_of(self.model)
        trained = [value for name, value in self.model.named_parameters() if name in self.trained]
        return (0, "") if objective is None else objective.beside(trained)

    def _reported_gradients(self) -> int:
        """Return the scalars that a `gradient_report` holds while it measures: one gradient a loss term."""
        report = self.stage.gradient_report
        if report is None:
            return 0
        names = {name for entry in report.groups for name in expand_group(self.model, self.spec.groups, entry)}
        scalars = sum(self.model.get_parameter(name).numel() for name in names & set(self.trained))
        return len(loss_terms(self.stage)) * scalars

    def _precision(self) -> str:
        if self.arguments.get("bf16"):
            return "bf16-mixed"
        return "fp16-mixed" if self.arguments.get("fp16") else "float32"

    def _as_written(self) -> dict[str, Any]:
        """Return the setting that the recipe itself asks for."""
        config = self.arguments.get("deepspeed")
        if isinstance(config, str) and Path(config).is_file():
            config = json.loads(Path(config).read_text(encoding="utf-8"))
        zero = config.get("zero_optimization", {}) if isinstance(config, dict) else {}
        setting = f"zero{zero['stage']}" if zero.get("stage") else "plain"
        for key, name in (("offload_optimizer", "optimizer"), ("offload_param", "parameters")):
            if (zero.get(key) or {}).get("device") == "cpu":
                setting += f"+{name}"
        return {"setting": setting, "checkpointing": bool(self.arguments.get("gradient_checkpointing"))}


def _weight(value: float | LossSchedule) -> Any:
    return value.model_dump(mode="json") if isinstance(value, LossSchedule) else value


def _adapters_alone(stage: Stage) -> bool:
    return stage.lora is not None and stage.lora.checkpoints == "adapters"

"""The contract that a model family fills: one `FamilySpec` in `models/<family>/__init__.py`.

This module imports neither torch nor transformers: a recipe can be checked, and `hfvla --help` printed, without them.
Heavy classes are named as "module:attribute" and resolved when they are first needed.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hfvla.errors import RecipeError, did_you_mean

__all__ = [
    "EvaluationContext",
    "EvaluationResult",
    "FamilySpec",
    "Figure",
    "ParameterGroup",
    "Source",
    "SourceData",
    "parse_group",
    "resolve",
]


_GROUP_EXPRESSION = re.compile(r"^(?P<name>[A-Za-z_][\w-]*)(?:\.(?P<end>last|first)\((?P<count>[1-9]\d*)\))?$")


def parse_group(expression: str) -> tuple[str, str | None, int]:
    """Split "language.last(2)" into ("language", "last", 2) and "heads" into ("heads", None, 0).

    Raises:
        RecipeError: not of that form.
    """
    match = _GROUP_EXPRESSION.match(expression)
    if match is None:
        raise RecipeError(
            "not a parameter group", got=expression, expected="a name, <name>.last(n) or <name>.first(n) with n >= 1"
        )
    return match["name"], match["end"], int(match["count"] or 0)


def resolve(path: str) -> Any:
    """Import and return the object named by "package.module:attribute"."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True)
class ParameterGroup:
    """A name that a recipe may put in `train:`.

    Args:
        patterns: glob patterns over `model.named_parameters()` names; a parameter belongs if any pattern matches.
        layers: name of a `ModuleList`; when set, a recipe may also write `<group>.last(n)` and `<group>.first(n)`.
        description: what it is, for tables and docs.
    """

    patterns: tuple[str, ...]
    layers: str | None = None
    description: str = ""


@dataclass
class SourceData:
    """What a source's builder returns.

    Args:
        dataset: a map-style `datasets.Dataset` of rows; has a "group" column that must not cross a split.
        census: {"found": int, "usable": int, "rejected": {reason: {"count": int, "first": str}}}.
    """

    dataset: Any
    census: dict[str, Any]


@dataclass(frozen=True)
class Source:
    """A data source that a recipe of this family may name.

    Args:
        options: "module:Class" of a pydantic model; unknown keys are refused.
        build: "module:function" with signature `build(options, *, seed: int) -> SourceData`.
        description: one line for `hfvla` help and the docs.
        count: "module:function" with signature `count(options) -> int`: rows without building them, for
            plans. Optional.
    """

    options: str
    build: str
    description: str = ""
    count: str | None = None


@dataclass(frozen=True)
class Figure:
    """A plot as data, rendered by `hfvla.evaluation.plots`; JSON-serialisable.

    Args:
        name: file stem, unique in a report, e.g. "reliability".
        kind: one of the renderer's kinds (`hfvla.evaluation.plots.KINDS`).
        title: heading shown above it.
        data: what the kind needs, plain lists, numbers and strings.
        caption: one or two sentences on how to read it.
    """

    name: str
    kind: str
    title: str
    data: dict[str, Any]
    caption: str = ""


@dataclass
class EvaluationContext:
    """What an evaluator may use besides model and samples.

    Args:
        train_rows: training samples for baselines, or None when they cannot be rebuilt (said in the report).
        seed: seed of shuffles and bootstraps.
        batch_size: samples a forward pass.
        bootstrap_samples: resamples behind each confidence interval.
        max_generate: samples for which text is generated (generation is slow on a CPU).
        device: torch device string.
        ablations: also score the model with parts of its input taken away.
    """

    train_rows: Any | None = None
    seed: int = 0
    batch_size: int = 32
    bootstrap_samples: int = 1000
    max_generate: int = 64
    device: str = "cpu"
    ablations: bool = True


@dataclass
class EvaluationResult:
    """Everything one evaluation found, ready for metrics.json, predictions.jsonl and the HTML report.

    Args:
        metrics: headline numbers; has "n".
        intervals: 95 % bootstrap interval by metric name.
        baselines: the same metrics by baseline name.
        ablations: the same metrics by ablation name (blank image ...).
        rows: one dict a sample: id, prediction, gold, scores.
        figures: plots as data.
        census: found, usable and rejected records.
        notes: sentences a reader of the numbers must know.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    ablations: dict[str, dict[str, float]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    census: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class FamilySpec:
    """All that the shared rooms know about a family. Strings are "module:attribute".

    Args:
        name: folder under `hfvla/models/` and the config's `model_type`.
        config: `PreTrainedConfig` subclass with a `tiny()` classmethod.
        model: main `PreTrainedModel` subclass; its `forward` returns an output with `loss` and `loss_terms`.
        processor: `ProcessorMixin` subclass.
        groups: parameter groups by name.
        losses: description by loss term name; the keys a recipe may weight.
        sources: data sources by name.
        initialise: `initialise(model_recipe: dict, train_rows, seed) -> (model, processor)`, for a run from
            nothing.
        build_config: `build_config(model_recipe: dict) -> config`, the same config without weights or downloads.
        collator: class built as `collator(processor, model.config, losses=tuple, training=bool)`; turns rows into
            a batch
            for the named loss terms.
        compute_metrics: `compute_metrics(eval_prediction, config) -> dict`, quick metrics for `keep_best`.
        metric_names: the keys `compute_metrics` returns.
        label_names: batch keys that are labels (gathered for `compute_metrics`).
        evaluate: `evaluate(model, processor, rows, context) -> EvaluationResult`.
        calibrate: `calibrate(model, processor, rows, context) -> dict`, run once after training on validation rows;
            may change `model.config`. Optional.
        trainer: `StagedTrainer` subclass, where a family needs its own sampler or loss pass. Optional.
        parameter_table: parts shown by `hfvla plan`: name -> parameter-name patterns. Optional.
        predict: `predict(model, processor, request: dict) -> dict`, one JSON-serialisable prediction for the
            command line.
        examples: `fake_rows(n, seed) -> datasets.Dataset`, small rows for contract tests and dry runs.
    """

    name: str
    summary: str
    config: str
    model: str
    processor: str
    groups: Mapping[str, ParameterGroup]
    losses: Mapping[str, str]
    sources: Mapping[str, Source]
    initialise: str
    build_config: str
    collator: str
    compute_metrics: str
    metric_names: tuple[str, ...]
    evaluate: str
    predict: str
    examples: str
    label_names: tuple[str, ...] = ("labels",)
    calibrate: str | None = None
    trainer: str | None = None
    parameter_table: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def load(self, attribute: str) -> Any:
        """Resolve one of the "module:attribute" fields, e.g. `spec.load("model")`."""
        return resolve(getattr(self, attribute))

    def source(self, name: str) -> Source:
        """Return a data source by name.

        Raises:
            RecipeError: unknown name; the message suggests the nearest.
        """
        if name not in self.sources:
            raise RecipeError(f"family '{self.name}' has no data source '{name}'. {did_you_mean(name, self.sources)}")
        return self.sources[name]

"""The contract that a model family fills: one `FamilySpec` in `models/<family>/__init__.py`.

This module imports neither torch nor transformers: a recipe can be checked, and `hfvla --help` printed, without them.
Heavy classes are named as "module:attribute" and resolved when they are first needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hfvla.errors import RecipeError, did_you_mean
from hfvla.parameter_groups import ParameterGroup, as_names, parse_group, take_strings

__all__ = [
    "CACHED_FEATURES",
    "AnswerFile",
    "CutContext",
    "EvaluationContext",
    "EvaluationResult",
    "FamilySpec",
    "FeatureCut",
    "Figure",
    "ParameterGroup",
    "Source",
    "SourceData",
    "as_names",
    "parse_group",
    "resolve",
]


CACHED_FEATURES = "cached_features"
"""Key of a row that comes from the feature cache: a dict of tensors by name, or None where it has nothing to encode.

A collator that finds the key in its rows uses those tensors and does not prepare what they replace."""


def resolve(path: str) -> Any:
    """Import and return the object named by "package.module:attribute"."""
    module, _, attribute = path.partition(":")
    return getattr(importlib.import_module(module), attribute)


@dataclass(frozen=True)
class CutContext:
    """What the functions of a `FeatureCut` may use besides rows and model.

    Args:
        processor: the checkpoint's processor.
        config: the model's config; only the keys named in `FeatureCut.config` may decide what is encoded.
        losses: loss terms of the stage; empty unless `FeatureCut.uses_losses`.
    """

    processor: Any
    config: Any
    losses: tuple[str, ...] = ()


@dataclass(frozen=True)
class FeatureCut:
    """Where a model may be cut: what lies before is frozen, and its output is computed once a sample and kept.

    Functions are "module:function"; B rows, any of them may return tensors of another length for each row.

    Args:
        groups: parameter groups that lie before the cut; none of their parameters may train. The output must depend
            on no other weight.
        prepare: `prepare(context, rows) -> batch`, tensors by name that `encode` reads, from B rows. A row that is to
            be augmented carries its seed (`hfvla.data.rows.epoch.AUGMENTATION_SEED`), as in training.
        encode: `encode(model, batch) -> [{name: Tensor}] * B`, without gradients and without padding.
        fields: row fields that decide the output; equal fields are encoded once.
        required: those of `fields` without which a row has nothing to encode (no picture, say).
        files: those of `fields` that hold a path; the file's bytes count, not its name.
        replaces: arguments of `forward` that are not needed with cached features, e.g. pixel_values.
        provides: arguments of `forward` that the collator fills from cached features, in their place.
        config: config keys that decide the output.
        processor: attributes of the processor that decide the output; default: all of it.
        prompt: `prompt(context, row) -> str`, the text as it is encoded, where the output depends on one. Optional.
        uses_losses: the output depends on which loss terms the stage has.
        augments: `augments(context) -> bool`, whether training would see random versions of the input. Optional.
        plan: `plan(model, batch) -> batch`: a batch of `plan_batch` with features in place of what they replace, for
            plans; the model may be on the meta device. Optional; without it, plans count the prefix in every step.
        version: raised by the family when `prepare` or `encode` computes something else than before.
        description: what is kept, with its shape.
    """

    groups: tuple[str, ...]
    prepare: str
    encode: str
    fields: tuple[str, ...]
    replaces: tuple[str, ...]
    provides: tuple[str, ...]
    config: tuple[str, ...]
    required: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    processor: tuple[str, ...] = ()
    prompt: str | None = None
    uses_losses: bool = False
    augments: str | None = None
    plan: str | None = None
    version: int = 1
    description: str = ""

    def __post_init__(self) -> None:
        """Take one string as one name."""
        take_strings(self, "groups", "fields", "replaces", "provides", "config", "required", "files", "processor")

    def load(self, attribute: str) -> Any:
        """Resolve one of the "module:function" fields, e.g. `cut.load("encode")`."""
        return resolve(getattr(self, attribute))


@dataclass
class SourceData:
    """What a source's builder returns.

    Args:
        dataset: a map-style `datasets.Dataset` of rows; has a "group" column that must not cross a split.
        census: {"found": int, "usable": int, "rejected": {reason: {"count": int, "first": str}}}.
        rejected: why a record cannot be used, by its id; records without an id are in the census only.
    """

    dataset: Any
    census: dict[str, Any]
    rejected: dict[str, str] = field(default_factory=dict)


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
        max_bad_fraction: share of rows above which rows that cannot be read (a broken video) end the evaluation; up to
            it they are counted and named.
        options: values of the family's `evaluation_options`.
    """

    train_rows: Any | None = None
    seed: int = 0
    batch_size: int = 32
    bootstrap_samples: int = 1000
    max_generate: int = 64
    device: str = "cpu"
    ablations: bool = True
    max_bad_fraction: float = 0.01
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass
class EvaluationResult:
    """Everything one evaluation found, ready for metrics.json, predictions.jsonl and the HTML report.

    Args:
        metrics: headline numbers; has "n".
        intervals: 95 % bootstrap interval by metric name.
        baselines: the same metrics by baseline name.
        ablations: the same metrics by ablation name (blank image ...).
        rows: one dict a sample: id, group, prediction, gold. For `hfvla compare` also scores: by metric a number, or a
            list of numbers, whose mean over all rows is the metric.
        figures: plots as data.
        files: further files to write beside the report, by name; videos (.mp4) are shown in it.
        census: found, usable and rejected records.
        notes: sentences a reader of the numbers must know.
    """

    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]] = field(default_factory=dict)
    baselines: dict[str, dict[str, float]] = field(default_factory=dict)
    ablations: dict[str, dict[str, float]] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    figures: list[Figure] = field(default_factory=list)
    files: dict[str, bytes] = field(default_factory=dict)
    census: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class AnswerFile:
    """A file of answers to a whole data source, as a challenge wants it: what `hfvla predict --csv` asks for.

    Args:
        path: the CSV file; what lies beside it is the family's to say. An unfinished file is continued.
        settings: facts that all answers of a file share (checkpoint, data); a file begun with others is refused.
        id_column: heading of the column with the questions' ids.
        limit: only the first questions; None for all.
        deadline_s: seconds a question may take before it counts as failed; None for no limit.
        device: torch device string.
        overwrite: start the file anew.
        retry_failed: ask again the questions that an earlier run could not answer.
        gallery: folder of pictures that the questions are asked of; for families that search.
    """

    path: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    id_column: str = "id"
    limit: int | None = None
    deadline_s: float | None = 30.0
    device: str = "cpu"
    overwrite: bool = False
    retry_failed: bool = False
    gallery: str | None = None


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
        error_names: those of them of which less is better.
        label_names: batch keys that are labels (gathered for `compute_metrics`).
        evaluate: `evaluate(model, processor, rows, context) -> EvaluationResult`.
        calibrate: `calibrate(model, processor, rows, context) -> dict`, run once after training on validation rows;
            may change `model.config`. Optional.
        trainer: `StagedTrainer` subclass, where a family needs its own sampler or loss pass. Optional.
        feature_cuts: where the model may be cut for the feature cache, the deepest cut first. Optional.
        parameter_table: parts shown by `hfvla plan`: name -> parameter-name patterns. Optional.
        plan_batch: `plan_batch(config, batch_size, losses) -> batch`, a batch of the sizes that training data has,
            made without data: integers with values, pixels on the meta device. Optional; without it, plans give no
            activations and no time.
        predict: `predict(model, processor, request: dict) -> dict`, one JSON-serialisable prediction for the
            command line.
        answer_file: `answer_file(model, processor, data: SourceData, request: AnswerFile) -> dict`, writes a file with
            one answer a question of a source and returns a summary. A question without an answer is named as failed,
            never given one. Optional.
        embed_images: `embed_images(model, processor, paths, batch_size) -> (array, failures)`: unit vectors [I, D] of
            pictures, float32, and the reason by picture number where one cannot be read. With `embed_texts`, what
            `hfvla index` and `hfvla search` need. Optional.
        embed_texts: `embed_texts(model, processor, texts, batch_size) -> array`: unit vectors [T, D] in the same
            space; the dot product of a text and a picture says how well they fit. Optional.
        evaluation_options: description by name of what `hfvla eval --option NAME=VALUE` may set
            (`EvaluationContext.options`).
        policies: further names under which `hfvla` offers classes of `hfvla.serve.policy`, e.g. {"MyPolicy":
            "ChunkPolicy"}; for families whose model has `predict_actions`. Optional.
        model_options: pydantic model of what `model.options` of a recipe may say. Optional; without it, the family's
            own `build_config` checks them.
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
    error_names: tuple[str, ...] = ()
    calibrate: str | None = None
    trainer: str | None = None
    feature_cuts: Mapping[str, FeatureCut] = field(default_factory=dict)
    parameter_table: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    plan_batch: str | None = None
    answer_file: str | None = None
    embed_images: str | None = None
    embed_texts: str | None = None
    evaluation_options: Mapping[str, str] = field(default_factory=dict)
    policies: Mapping[str, str] = field(default_factory=dict)
    model_options: str | None = None

    def __post_init__(self) -> None:
        """Take one string as one name."""
        take_strings(self, "metric_names", "label_names", "error_names")
        table = {name: as_names(patterns) for name, patterns in self.parameter_table.items()}
        object.__setattr__(self, "parameter_table", table)

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

"""The contract that a model family fills: one `FamilySpec` in `models/<family>/__init__.py`, or in another package.

This module imports neither torch nor transformers: a recipe can be checked, and `hfvla --help` printed, without them.
What computes lies in modules of fixed names (`HOOKS`), imported when it is first needed.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from hfvla.errors import RecipeError, did_you_mean
from hfvla.family.cuts import FeatureCut
from hfvla.family.evaluation import Option
from hfvla.family.groups import ParameterGroup, as_names, take_strings
from hfvla.family.request import Request
from hfvla.family.sources import Source, module_exists, resolve
from hfvla.metrics.catalog import Metric, describe

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel, ProcessorMixin

__all__ = ["HOOKS", "FamilySpec"]


HOOKS: Mapping[str, tuple[str, ...]] = {
    "config": ("configuration_{name}:{config}", "configuration:{config}"),
    "model": ("modeling_{name}:{model}", "modeling:{model}"),
    "processor": ("processing_{name}:{processor}", "processing:{processor}"),
    "collator": ("batches:{collator}",),
    "plan_batch": ("batches:plan_batch",),
    "build_config": ("build:build_config",),
    "initialise": ("build:initialise",),
    "from_data": ("from_data:config_from_data",),
    "compute_metrics": ("build:compute_metrics",),
    "quick_figures": ("build:quick_figures",),
    "examples": ("build:fake_rows",),
    "evaluate": ("evaluation.evaluate:evaluate", "evaluation:evaluate"),
    "calibrate": ("evaluation.evaluate:calibrate", "evaluation:calibrate"),
    "answer_file": ("evaluation.submission:write_answers",),
    "chat_system": ("conversing:chat_system", "answering:chat_system"),
    "predict": ("answering:predict", "acting:predict", "search:predict"),
    "predict_batch": ("serving:predict_batch",),
    "chat": ("serving:chat",),
    "facts": ("serving:facts",),
    "show": ("showing:show",),
    "episode": ("showing:episode",),
    "embed_images": ("search:embed_images",),
    "embed_texts": ("search:embed_texts",),
    "plain_backbone": ("export:plain_backbone",),
    "export": ("export:export_plan",),
    "exported": ("exported:exported_model",),
    "trainer": ("trainer:Trainer",),
    "tiny": ("build:tiny_config",),
    "adapt": ("build:adapt",),
    "find_groups": ("architectures:find_groups",),
    "objective": ("objective:Objective",),
}
"""Where each part of a family lies in its package, as "module:attribute": the first module that is there counts."""


@dataclass(frozen=True)
class FamilySpec:
    """All that the shared rooms know about a family; what it computes lies in modules of fixed names (`HOOKS`).

    Needed in the family's package, besides the four classes:

    - `build.py`: `build_config(model_recipe: dict) -> config`, without weights or downloads;
      `initialise(model_recipe: dict, train_rows, seed) -> (model, processor)`, for a run from nothing;
      `compute_metrics(eval_prediction, config) -> dict`, quick metrics for `keep_best`;
      `fake_rows(n, seed) -> datasets.Dataset`, small rows for contract tests and dry runs.
    - `evaluation/evaluate.py` (or `evaluation.py`): `evaluate(model, processor, rows, context) -> EvaluationResult`.
    - `answering.py`, `acting.py` or `search.py`: `predict(model, processor, request: dict) -> dict`, one
      JSON-serialisable prediction; `request` below says what it may be asked.

    What else it may have:

    - `from_data.config_from_data(options, sources) -> dict`: values of the config that the training sources (name and
      options of each) decide, under those of `model.config`; asked when a recipe is loaded.
    - `build.quick_figures(eval_prediction, config) -> list[Figure]`, drawn at every validation while it trains.
    - `batches.plan_batch(config, batch_size, losses) -> batch` of the sizes that training data has, made without data:
      integers with values, pixels on the meta device. Without it, plans give no activations and no time. With
      `separable` terms it also takes `shares`, of the rows that teach each term.
    - `evaluation.evaluate.calibrate(model, processor, rows, context) -> dict`, run once after training on validation
      rows; may change `model.config`.
    - `evaluation.submission.write_answers(model, processor, data: SourceData, request: AnswerFile) -> dict`, a file
      with one answer a question. A question without an answer is named as failed, never given one.
    - `conversing.chat_system(model, processor) -> ChatSystem` (or in `answering`), how it answers conversations about
      pictures: what benchmarks and their adapters need.
    - `serving.predict_batch(model, processor, requests) -> list`, answers to several checked requests in one pass,
      each as `predict` gives it; where a request cannot be answered, its `HfvlaError` stands in the answer's place.
    - `serving.chat(model, processor, turns, images) -> ChatPrompt` (`hfvla.nn.chat_prompt`), a conversation as
      arguments of `generate`. A plain model of transformers with a chat template needs none.
    - `serving.facts(model, processor) -> dict`, what a server tells of a checkpoint: each key has an address of its
      own, e.g. {"robots": [...]} is GET /robots.
    - `showing.show(model, processor, request, reply) -> Shown`, an answer of `predict` as `hfvla demo` shows it;
      `showing.episode(model, processor, seed, steps) -> Shown`, an episode of a policy in its simulator.
    - `search.embed_images(model, processor, paths, batch_size) -> (array, failures)`: unit vectors [I, D] of pictures,
      float32, and the reason by picture number where one cannot be read; `search.embed_texts(model, processor, texts,
      batch_size) -> array` in the same space. What `hfvla index` and `hfvla search` need.
    - `export.plain_backbone(model, processor) -> PlainBackbone`, the transformers model inside, for people without
      hfvla.
    - `export.export_plan(model, processor) -> ExportPlan`, the graphs that the model is made of, and how they answer
      rows together; what `hfvla export` needs.
    - `exported.exported_model(run, config)`, what stands in the model's place where only these graphs are there: it
      has what `predict`, `predict_batch`, `chat` and `embed_texts` use of a model, and `can_chat`. With it, `hfvla
      serve` serves an exported folder.
    - `trainer.Trainer`, a `StagedTrainer` with a sampler or loss pass of its own.

    A family whose checkpoints are models of transformers as they are (`accepts`) has no classes of its own: `hooks`
    name transformers' Auto classes, `build.tiny_config() -> config` stands for a config class' `tiny()`, and

    - `architectures.find_groups(model, options) -> {name: ParameterGroup}` says what the names in `groups` are in a
      model (may be on the meta device) and with the recipe's `model.options`;
    - `objective.Objective(model, options, losses)` has `attach(model)`, which lets a model's output have `loss_terms`
      and gives it `term_counts`, by hooks alone: neither class nor state dict of the model change;
    - `build.adapt(model, processor, options)` changes, in place, a checkpoint that a run starts from as the recipe's
      `model.options` say. Optional.

    Args:
        name: the config's `model_type`, and the folder's name.
        summary: one line.
        config: name of the `PreTrainedConfig` class, with a `tiny()` classmethod, in `configuration_<name>.py`.
        model: name of the `PreTrainedModel` class in `modeling_<name>.py`; its `forward` returns an output with
            `loss` and `loss_terms`.
        processor: name of the `ProcessorMixin` class in `processing_<name>.py`.
        collator: name of the class in `batches.py` that is built as `collator(processor, model.config, losses=tuple,
            training=bool)` and turns rows into a batch for the named loss terms.
        groups: parameter groups by name.
        losses: description by loss term name; the keys a recipe may weight.
        loss_functions: "module:function" by name of loss terms that plug-ins add (`hfvla.plugins.LossFunction`).
        sources: data sources by name.
        metrics: label, direction and importance of the family's metrics; the `quick` ones are those that
            `compute_metrics` returns.
        reached: by loss term, the groups of which it gives every parameter a gradient in any batch that has the term
            (a batch may be without pictures). Where all that a stage trains is reached, DDP need not look for
            parameters without a gradient; a group that is not named may have some.
        separable: loss terms that the `losses` of a source can tell apart, those that one sequence of a row teaches
            side by side: (("itc", "caption"), ("instruct",)). The collator then asks
            `hfvla.data.rows.learned_terms.learned_terms(row, losses)` what a row is for. Without it, a recipe cannot
            say `losses` of a source.
        label_names: batch keys that are labels (gathered for `compute_metrics`).
        feature_cuts: where the model may be cut for the feature cache, the deepest cut first.
        parameter_table: parts shown by `hfvla plan`: name -> parameter-name patterns.
        evaluation_options: `Option` (or a description alone: any value) by name of what `hfvla eval --option
            NAME=VALUE` may set (`EvaluationContext.options`).
        policies: further names under which `hfvla` offers classes of `hfvla.serve.policy`, e.g. {"MyPolicy":
            "ChunkPolicy"}; for families whose model has `predict_actions`.
        model_options: "module:Class" of a pydantic model of what `model.options` of a recipe may say; without it, the
            family's own `build_config` checks them.
        request: what `predict` can be asked; the options of `hfvla predict`, forms and schemas are made from it.
            Without it, `hfvla predict` takes requests from files only (`--request FILE.json`), as they are.
        accepts: "module:function" of `accepts(model_type) -> bool`, for a family whose checkpoints are models of
            transformers as they are: whether it trains models of a type. Families with that model type as their name
            come first.
        pipeline_tag: the hub's name for the task, e.g. "robotics", for the model card.
        limits: sentences on what the family's models cannot do, for the model card.
        package: dotted name of the family's package; a family outside hfvla gives its `__name__`.
        hooks: "module:attribute" by hook, where a part does not lie where `HOOKS` says.
    """

    name: str
    summary: str
    config: str
    model: str
    processor: str
    collator: str
    groups: Mapping[str, ParameterGroup]
    losses: Mapping[str, str]
    sources: Mapping[str, Source]
    metrics: tuple[Metric, ...]
    loss_functions: Mapping[str, Any] = field(default_factory=dict)
    reached: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    separable: tuple[tuple[str, ...], ...] = ()
    label_names: tuple[str, ...] = ("labels",)
    feature_cuts: Mapping[str, FeatureCut] = field(default_factory=dict)
    parameter_table: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    evaluation_options: Mapping[str, str | Option] = field(default_factory=dict)
    policies: Mapping[str, str] = field(default_factory=dict)
    model_options: str | None = None
    request: Request | None = None
    accepts: str | None = None
    pipeline_tag: str = ""
    limits: tuple[str, ...] = ()
    package: str = ""
    hooks: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Take one string as one name."""
        take_strings(self, "label_names")
        take_strings(self, "limits")
        table = {name: as_names(patterns) for name, patterns in self.parameter_table.items()}
        object.__setattr__(self, "parameter_table", table)
        object.__setattr__(self, "reached", {name: as_names(groups) for name, groups in self.reached.items()})
        object.__setattr__(self, "package", self.package or f"hfvla.models.{self.name}")
        cuts = {name: replace(cut, package=self.package, name=name) for name, cut in self.feature_cuts.items()}
        object.__setattr__(self, "feature_cuts", cuts)

    @property
    def plain(self) -> bool:
        """Tell whether the family's checkpoints are models of transformers as they are."""
        return self.accepts is not None

    @property
    def metric_names(self) -> tuple[str, ...]:
        """Return the metrics that `keep_best` may name."""
        return tuple(metric.name for metric in self.metrics if metric.quick)

    def metric(self, name: str) -> Metric:
        """Return what is known of a metric by its name, this family's first."""
        return describe(name, {metric.name: metric for metric in self.metrics})

    def path(self, hook: str) -> str | None:
        """Return the "module:attribute" of one of `HOOKS`, or None where the family has no such module."""
        if hook in self.hooks:
            return self.hooks[hook]
        for place in HOOKS[hook]:
            names = {"config": self.config, "model": self.model, "processor": self.processor}
            path = f"{self.package}.{place.format(name=self.name, collator=self.collator, **names)}"
            if module_exists(path.partition(":")[0]):
                return path
        return None

    def has(self, hook: str) -> bool:
        """Tell whether the family has a part that it need not have, e.g. `spec.has("calibrate")`; imports it."""
        path = self.path(hook)
        return path is not None and hasattr(importlib.import_module(path.partition(":")[0]), path.partition(":")[2])

    def load(self, hook: str) -> Any:
        """Import and return one of `HOOKS`, e.g. `spec.load("model")`.

        Raises:
            RecipeError: the family lacks it.
        """
        path = self.path(hook)
        if path is None or not self.has(hook):
            places = ", ".join(place.partition(":")[0] for place in HOOKS[hook])
            raise RecipeError(
                f"family '{self.name}' has no `{hook}`",
                where=self.package,
                expected=f"`{(path or HOOKS[hook][0]).partition(':')[2]}` in {places.format(name=self.name)}",
            )
        return resolve(path)

    def ask(self, model: PreTrainedModel, processor: ProcessorMixin, request: Mapping[str, Any]) -> dict[str, Any]:
        """Answer one request with the family's `predict`.

        Args:
            model: of this family, on the device it is to run on.
            processor: the model's.
            request: values by field; see `request`.

        Raises:
            DataError: the request is not as described, or cannot be answered.
            PredictionError: what the model computes is no answer.
        """
        asked = dict(request) if self.request is None else self.request.check(request)
        return self.load("predict")(model, processor, asked)

    def new_model(self, config: PreTrainedConfig) -> Any:
        """Return a model with new weights (or on the meta device, inside `torch.device("meta")`)."""
        kind = self.load("model")
        return kind.from_config(config) if self.plain else kind(config)

    def tiny_config(self) -> Any:
        """Return a config whose train step takes milliseconds on a CPU."""
        return self.load("tiny")() if self.plain else self.load("config").tiny()

    def of_model(self, model: PreTrainedModel, options: Mapping[str, Any] | None = None) -> FamilySpec:
        """Return the spec with the groups that a model has, where the family finds them by a model's structure.

        The names in `parameter_table` then say what was taken for what.

        Args:
            model: may be on the meta device, and may have adapters.
            options: `model.options` of the recipe.
        """
        if not self.plain:
            return self
        groups = self.load("find_groups")(model, options or {})
        names = [name for name, _ in model.named_parameters()]
        members = {
            name: {key for key in names if any(fnmatchcase(key, pattern) for pattern in group.patterns)}
            for name, group in groups.items()
        }
        table = {}
        for name, group in groups.items():
            if not any(members[name] < members[other] for other in groups):  # a part of another is counted there
                layers = group.layers_of(model)
                taken = ", ".join(group.patterns) + (f", layers {layers}" if layers else "")
                table[f"{name}: {taken}"] = group.patterns
        return replace(self, groups=groups, parameter_table=table)

    def give_objective(
        self, model: PreTrainedModel, options: Mapping[str, Any] | None = None, losses: tuple[str, ...] | None = None
    ) -> Any:
        """Let a model of transformers compute the family's loss terms; models of our own classes do it themselves.

        Args:
            model: changed in place: hooks only.
            options: `model.options` of the recipe.
            losses: loss terms of the stage; default: all.
        """
        if self.plain:
            objective = self.load("objective")(
                model, options or {}, tuple(losses if losses is not None else self.losses)
            )
            objective.attach(model)
        return model

    def source(self, name: str) -> Source:
        """Return a data source by name.

        Raises:
            RecipeError: unknown name; the message suggests the nearest.
        """
        if name not in self.sources:
            raise RecipeError(f"family '{self.name}' has no data source '{name}'. {did_you_mean(name, self.sources)}")
        return self.sources[name]

"""The shape of a recipe: which keys there are, of what type, and what each means.

A `Recipe` built here is well-formed; that its names exist in a family is checked by `hfvla.recipe.checks`.
"""

from __future__ import annotations

import math
import re
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, field_validator, model_validator

__all__ = [
    "RESERVED_STAGE_NAMES",
    "DataRecipe",
    "EvalSourceRecipe",
    "EvaluationRecipe",
    "Handover",
    "ModelRecipe",
    "Recipe",
    "SourceRecipe",
    "Stage",
    "StageData",
    "ValidationRecipe",
]

RESERVED_STAGE_NAMES = frozenset({"final", "plots", "logs", "processor"})
"""Names that a run folder uses itself."""

_WORD = re.compile(r"[a-z][a-z0-9_]*")
_RUN_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


def _checked_word(value: str) -> str:
    if not _WORD.fullmatch(value):
        raise ValueError("expected lower-case letters, digits and '_', a letter first")
    return value


def _checked_stage_name(value: str) -> str:
    if value in RESERVED_STAGE_NAMES:
        raise ValueError(f"reserved, the run folder uses it; reserved are {', '.join(sorted(RESERVED_STAGE_NAMES))}")
    return _checked_word(value)


def _checked_run_name(value: str) -> str:
    if not _RUN_NAME.fullmatch(value):
        raise ValueError("expected letters, digits, '.', '_' and '-', a letter or digit first")
    return value


Word = Annotated[str, AfterValidator(_checked_word)]
StageName = Annotated[str, AfterValidator(_checked_stage_name)]
RunName = Annotated[str, AfterValidator(_checked_run_name)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
LearningRate = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, populate_by_name=True)


class ModelRecipe(_Section):
    """Where the model comes from."""

    pretrained: str | None = Field(None, description="Folder or hub id to start from; without it, weights are random.")
    revision: str | None = Field(None, description="Branch, tag or commit of `pretrained` on the hub.")
    config: dict[str, Any] = Field(default_factory=dict, description="Values in place of those of the model's config.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="What the family needs to build model and processor besides the config."
    )


class EvalSourceRecipe(BaseModel):
    """A data source that is evaluated on; the keys beside `source` are that source's options."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, populate_by_name=True)

    source: str = Field(description="Name of one of the family's data sources (`hfvla families`).")

    @property
    def options(self) -> dict[str, Any]:
        """The source's own options, as written."""
        return dict(self.model_extra or {})


class SourceRecipe(EvalSourceRecipe):
    """A data source that is trained on, and its share in the mixture."""

    name: Word | None = Field(None, description="Name in logs and overrides; default: the source's name.")
    weight: Weight = Field(
        1.0, description="How often an epoch sees its rows: 2.0 twice, 0.25 a quarter; 0 switches it off."
    )

    @property
    def label(self) -> str:
        """Name in logs: `name`, else the source's name."""
        return self.name or self.source


class ValidationRecipe(_Section):
    """The rows held out of the training data, for `keep_best` and calibration."""

    fraction: float = Field(0.1, ge=0, lt=1, description="Share of the groups of rows held out; 0 for none.")
    sources: list[str] | None = Field(
        None, description="Names of the training sources that rows are held out of; default: every source."
    )


class DataRecipe(_Section):
    """Training mixture, held-out share and evaluation sets."""

    train: list[SourceRecipe] = Field(default_factory=list, description="Sources of every stage without its own data.")
    validation: ValidationRecipe = Field(
        default_factory=ValidationRecipe, description="What is held out of the training data."
    )
    eval: dict[Word, EvalSourceRecipe] = Field(
        default_factory=dict, description="Evaluation sets by name; scored once, after the last stage."
    )
    max_bad_fraction: float = Field(
        0.01, ge=0, le=1, description="Share of unusable records of a source above which the run stops."
    )


class EvaluationRecipe(_Section):
    """How the final model is scored."""

    bootstrap_samples: int = Field(1000, ge=0, description="Resamples behind each confidence interval.")
    max_generate: int = Field(64, ge=0, description="Samples of a set for which text is generated.")
    batch_size: int = Field(32, ge=1, description="Samples a forward pass.")
    ablations: bool = Field(True, description="Also score the model with parts of its input taken away.")


class StageData(_Section):
    """Data of one stage, in place of `data.train`."""

    train: list[SourceRecipe] = Field(min_length=1, description="Sources this stage trains on.")


class Handover(_Section):
    """What a stage takes over from an earlier one. All that is not carried unchanged must be named here."""

    from_: str | None = Field(
        None, alias="from", description="Earlier stage whose weights are taken; default: the stage before this one."
    )
    new: list[str] = Field(default_factory=list, description="Module patterns that start from new weights.")
    reshape: list[str] = Field(default_factory=list, description="Module patterns whose shape changes.")
    leave: list[str] = Field(default_factory=list, description="Module patterns of the earlier stage left behind.")


class Stage(_Section):
    """One training run with its own optimizer and schedule."""

    name: StageName = Field(description="Folder of its checkpoint and prefix of its logs.")
    train: list[str] = Field(description="Parameter groups that train; also <group>.last(n) and <group>.first(n).")
    losses: dict[str, Weight] = Field(description="Weight by loss term; terms not named do not count.")
    learning_rates: dict[str, LearningRate] = Field(
        default_factory=dict, description="Learning rate by entry of `train`; others use args.learning_rate."
    )
    args: dict[str, Any] = Field(
        default_factory=dict, description="TrainingArguments of this stage, over the recipe's `args`."
    )
    data: StageData | None = Field(None, description="Data of this stage; default: `data.train` of the recipe.")
    model: dict[str, Any] = Field(default_factory=dict, description="Config values that change from this stage on.")
    keep_best: str | None = Field(
        None, description="Metric whose best checkpoint is kept: eval_<metric>, eval_loss or eval_loss_<term>."
    )
    patience: int | None = Field(
        None, ge=1, description="Evaluations without a better `keep_best` metric after which the stage ends."
    )
    handover: Handover = Field(default_factory=Handover, description="What is taken over from an earlier stage.")

    @field_validator("train")
    @classmethod
    def _trains_something(cls, value: list[str]) -> list[str]:
        if not value:
            raise ValueError("stage trains nothing; name at least one parameter group")
        repeated = sorted({group for group in value if value.count(group) > 1})
        if repeated:
            raise ValueError(f"named twice: {', '.join(repeated)}")
        return value

    @field_validator("losses")
    @classmethod
    def _has_a_loss(cls, value: dict[str, float]) -> dict[str, float]:
        if not value:
            raise ValueError("stage has no loss; give at least one term a weight > 0")
        if not any(weight > 0 and math.isfinite(weight) for weight in value.values()):
            raise ValueError("every loss has weight 0; give at least one term a weight > 0")
        return value


class Recipe(_Section):
    """A whole training run: one model, one or more stages."""

    family: str = Field(description="Model family (`hfvla families`).")
    name: RunName = Field("run", description="Name of the run; default: the recipe's file name.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of weights, data order, splits and augmentation.")
    output_dir: str = Field("", description="Folder of the run; default: outputs/<name>.")
    model: ModelRecipe = Field(default_factory=ModelRecipe, description="Where the model comes from.")
    data: DataRecipe = Field(default_factory=DataRecipe, description="Training, validation and evaluation data.")
    args: dict[str, Any] = Field(default_factory=dict, description="TrainingArguments of all stages.")
    evaluation: EvaluationRecipe = Field(
        default_factory=EvaluationRecipe, description="How the final model is scored."
    )
    stages: list[Stage] = Field(min_length=1, description="Stages, in the order they run.")

    @model_validator(mode="before")
    @classmethod
    def _default_output_dir(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("output_dir"):
            return values
        return {**values, "output_dir": f"outputs/{values.get('name') or 'run'}"}

    def stage(self, name: str) -> Stage:
        """Return the stage of that name (`KeyError` if there is none)."""
        for stage in self.stages:
            if stage.name == name:
                return stage
        raise KeyError(name)

    def stage_args(self, stage: Stage) -> dict[str, Any]:
        """Return the recipe's `args` with the stage's own on top."""
        return {**self.args, **stage.args}

    def stage_sources(self, stage: Stage) -> list[SourceRecipe]:
        """Return the training sources of a stage: its own, else the recipe's."""
        return list(stage.data.train if stage.data is not None else self.data.train)

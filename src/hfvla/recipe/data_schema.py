"""The parts of a recipe that say where rows come from."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from hfvla.recipe.base import Section, Weight, Word

__all__ = [
    "DataRecipe",
    "EvalSourceRecipe",
    "MixtureRecipe",
    "SourceRecipe",
    "StageData",
    "TestSplitRecipe",
    "ValidationRecipe",
]


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
        1.0,
        description="How often an epoch sees its rows: 2.0 twice, 0.25 a quarter; 0 switches it off. With another "
        "`mixture.kind` its share, before sizes count.",
    )
    losses: list[str] | None = Field(
        None,
        min_length=1,
        description="Loss terms of the stage that learn from its rows, so that a later stage can see rows of an "
        "earlier one again; default: every term that a row has what it needs for.",
    )

    @property
    def label(self) -> str:
        """Name in logs: `name`, else the source's name."""
        return self.name or self.source


class MixtureRecipe(Section):
    """How the sizes and weights of the sources become the rows of an epoch."""

    kind: Literal["repeats", "fixed", "proportional", "temperature"] = Field(
        "repeats",
        description="repeats: each row as often as its source's weight says. fixed: weights are shares. proportional: "
        "shares go with size x weight. temperature: with size^(1/temperature) x weight.",
    )
    temperature: float = Field(
        2.0, gt=0, allow_inf_nan=False, description="Of kind temperature: above 1 small sources are seen more."
    )
    rows: int | None = Field(
        None, ge=1, description="Rows of an epoch; default: as many as the sources have together."
    )

    @model_validator(mode="after")
    def _fits_its_kind(self) -> MixtureRecipe:
        default = type(self).model_fields["temperature"].default  # a saved recipe names every key
        if self.kind != "temperature" and self.temperature != default:
            raise ValueError(f"`temperature` belongs to kind 'temperature'; got kind '{self.kind}'")
        return self


class ValidationRecipe(Section):
    """The rows held out of the training data, for `keep_best` and calibration."""

    fraction: float = Field(0.1, ge=0, lt=1, description="Share of the groups of rows held out; 0 for none.")
    sources: list[str] | None = Field(
        None, description="Names of the training sources that rows are held out of; default: every source."
    )


class TestSplitRecipe(Section):
    """The rows held out of the training data to score the final model on; nothing else looks at them."""

    fraction: float = Field(0.0, ge=0, lt=1, description="Share of the groups of rows held out; 0 for none.")
    sources: list[str] | None = Field(
        None, description="Names of the training sources that rows are held out of; default: every source."
    )


class DataRecipe(Section):
    """Training mixture, held-out shares and evaluation sets."""

    train: list[SourceRecipe] = Field(default_factory=list, description="Sources of every stage without its own data.")
    mixture: MixtureRecipe = Field(
        default_factory=MixtureRecipe, description="How `train` becomes the rows of an epoch."
    )
    validation: ValidationRecipe = Field(
        default_factory=ValidationRecipe, description="What is held out of the training data."
    )
    test: TestSplitRecipe = Field(
        default_factory=TestSplitRecipe,
        description="What is held out of the training data and scored once, after the last stage, as the set `test`.",
    )
    eval: dict[Word, EvalSourceRecipe] = Field(
        default_factory=dict, description="Evaluation sets by name; scored once, after the last stage."
    )
    video_backend: Literal["auto", "pyav", "torchcodec", "decord"] = Field(
        "auto", description="What decodes clips while this recipe runs; frames are equal whichever it is."
    )
    max_bad_fraction: float = Field(
        0.01, ge=0, le=1, description="Share of unusable records of a source above which the run stops."
    )

    @model_validator(mode="after")
    def _leaves_rows_to_train_on(self) -> DataRecipe:
        if self.test.fraction and self.validation.fraction + self.test.fraction >= 1:
            raise ValueError("`validation.fraction` and `test.fraction` leave nothing to train on")
        if self.test.fraction and "test" in self.eval:
            raise ValueError("`eval.test` and `test.fraction` would both be the set `test`; rename the first")
        return self

    @property
    def scored(self) -> list[str]:
        """Names of the sets that the final model is scored on."""
        return [*self.eval, *(["test"] if self.test.fraction else [])]


class StageData(Section):
    """Data of one stage, in place of `data.train`."""

    train: list[SourceRecipe] = Field(min_length=1, description="Sources this stage trains on.")
    mixture: MixtureRecipe | None = Field(
        None, description="How they become the rows of an epoch; default: as `data.mixture` says."
    )

"""The shape of a recipe: which keys there are, of what type, and what each means.

Sources are in `data_schema`, stages in `stage_schema`.

A `Recipe` built here is well-formed; that its names exist in a family is checked by `hfvla.recipe.checks`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from hfvla.fetching import is_hub_name
from hfvla.paths import UserPath
from hfvla.recipe.base import RunName, Section, Word
from hfvla.recipe.data_schema import DataRecipe, MixtureRecipe, SourceRecipe
from hfvla.recipe.stage_schema import Stage

__all__ = ["EvaluationRecipe", "HubRecipe", "ModelRecipe", "Recipe"]


class ModelRecipe(Section):
    """Where the model comes from."""

    pretrained: UserPath | None = Field(
        None, description="Folder or hub id to start from; without it, weights are random."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of `pretrained` on the hub.")
    attention: Literal["eager", "sdpa", "flash_attention_2", "flash_attention_3", "flex_attention"] | None = Field(
        None, description="Attention kernels of transformers' models; default: what they choose themselves (sdpa)."
    )
    config: dict[str, Any] = Field(default_factory=dict, description="Values in place of those of the model's config.")
    options: dict[str, Any] = Field(
        default_factory=dict, description="What the family needs to build model and processor besides the config."
    )


class EvaluationRecipe(Section):
    """How the final model is scored."""

    bootstrap_samples: int = Field(1000, ge=0, description="Resamples behind each confidence interval.")
    max_generate: int = Field(64, ge=0, description="Samples of a set for which text is generated.")
    batch_size: int = Field(32, ge=1, description="Samples a forward pass.")
    ablations: bool = Field(True, description="Also score the model with parts of its input taken away.")
    options: dict[str, Any] = Field(default_factory=dict, description="What the family's evaluation may be told.")
    stages: list[Word] = Field(
        default_factory=list,
        description="Sets of `data.eval`, or `test`, that are also scored before the first stage and after each one: "
        "what a stage gives, and what it forgets.",
    )


def _checked_repo(value: str) -> str:
    if not is_hub_name(value) or value.count("/") != 1:
        raise ValueError("expected a repository on the hub as user/name, in letters, digits, '.', '_' and '-'")
    return value


class HubRecipe(Section):
    """Where the result is pushed, once, after the final evaluation."""

    repo: Annotated[str, AfterValidator(_checked_repo)] = Field(description="Repository on the hub, as user/name.")
    private: bool = Field(True, description="Whether a repository that is made here can be seen by its owner alone.")
    what: Literal["final", "adapter", "merged"] = Field(
        "final",
        description="The whole checkpoint for hfvla, the adapters for peft, or the plain backbone for transformers.",
    )
    license: str | None = Field(None, description="Licence of the weights for the model card, e.g. apache-2.0.")
    code: bool = Field(
        False, description="Whether the family's code goes along with `final`, for people who have no hfvla."
    )


class Recipe(Section):
    """A whole training run: one model, one or more stages."""

    family: str = Field(description="Model family (`hfvla families`).")
    name: RunName = Field("run", description="Name of the run; default: the recipe's file name.")
    seed: int = Field(0, ge=0, lt=2**32, description="Seed of weights, data order, splits and augmentation.")
    output_dir: UserPath = Field("", description="Folder of the run; default: outputs/<name>.")
    plugins: list[str] = Field(
        default_factory=list,
        description="Modules and files (relative to the recipe) with families, sources, loss terms or metrics.",
    )
    model: ModelRecipe = Field(default_factory=ModelRecipe, description="Where the model comes from.")
    data: DataRecipe = Field(default_factory=DataRecipe, description="Training, validation and evaluation data.")
    args: dict[str, Any] = Field(default_factory=dict, description="TrainingArguments of all stages.")
    evaluation: EvaluationRecipe = Field(
        default_factory=EvaluationRecipe, description="How the final model is scored."
    )
    hub: HubRecipe | None = Field(None, description="Where the result is pushed; nowhere without it.")
    stages: list[Stage] = Field(min_length=1, description="Stages, in the order they run.")

    @model_validator(mode="before")
    @classmethod
    def _default_output_dir(cls, values: Any) -> Any:
        if not isinstance(values, dict) or values.get("output_dir") not in (None, ""):
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

    def stage_mixture(self, stage: Stage) -> MixtureRecipe:
        """Return how a stage's sources become the rows of an epoch: as it says itself, else as the recipe does."""
        own = stage.data.mixture if stage.data is not None else None
        return own or self.data.mixture

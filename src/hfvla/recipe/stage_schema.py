"""The parts of a recipe that say how one stage trains."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from hfvla.paths import UserPath
from hfvla.recipe.base import LearningRate, Section, StageName, Weight
from hfvla.recipe.data_schema import StageData

__all__ = [
    "Batches",
    "CacheRecipe",
    "GradientReport",
    "Handover",
    "Lora",
    "LossSchedule",
    "Packing",
    "Phase",
    "Stage",
]


def _peak(weight: float | LossSchedule) -> float:
    return weight.peak if isinstance(weight, LossSchedule) else weight


class Handover(Section):
    """What a stage takes over from an earlier one. All that is not carried unchanged must be named here."""

    from_: str | None = Field(
        None, alias="from", description="Earlier stage whose weights are taken; default: the stage before this one."
    )
    new: list[str] = Field(default_factory=list, description="Module patterns that start from new weights.")
    reshape: list[str] = Field(default_factory=list, description="Module patterns whose shape changes.")
    leave: list[str] = Field(default_factory=list, description="Module patterns of the earlier stage left behind.")
    lora: Literal["merge", "continue", "stack", "none"] = Field(
        "merge",
        description="The earlier stage's LoRA: merged into the weights, trained on, kept frozen below a new one, or "
        "dropped.",
    )


class LossSchedule(Section):
    """A loss weight that changes while the stage trains; a function of the epoch only."""

    kind: Literal["linear", "cosine", "table"] = Field("linear", description="Ramp, or one value an epoch.")
    start: Weight = Field(0.0, description="Weight before and at the beginning of the ramp.")
    end: Weight = Field(1.0, description="Weight at the end of the ramp and after it.")
    epochs: tuple[float, float] = Field((0.0, 1.0), description="First and last epoch of the ramp, e.g. [0, 2].")
    values: list[Weight] = Field(default_factory=list, description="For a table: weight by epoch; the last one stays.")

    @field_validator("epochs", mode="before")
    @classmethod
    def _as_tuple(cls, value: Any) -> Any:
        return tuple(float(v) for v in value) if isinstance(value, list) else value

    @model_validator(mode="after")
    def _fits_its_kind(self) -> LossSchedule:
        if (self.kind == "table") != bool(self.values):
            raise ValueError("`values` belong to kind 'table', and a table needs them")
        if self.kind != "table" and not 0 <= self.epochs[0] < self.epochs[1]:
            raise ValueError(f"`epochs` are [first, last] with 0 <= first < last; got {list(self.epochs)}")
        return self

    @property
    def peak(self) -> float:
        """The highest weight it takes."""
        return max(self.values) if self.values else max(self.start, self.end)


class Phase(Section):
    """What changes inside a stage at a boundary; optimizer and schedule of what already trains go on."""

    epoch: float | None = Field(None, gt=0, description="Epochs done when it begins: 1 = after the first epoch.")
    step: int | None = Field(None, gt=0, description="Optimizer steps done when it begins; in place of `epoch`.")
    add: list[str] = Field(default_factory=list, description="Parameter groups that join, as in `train`.")
    losses: dict[str, Weight | LossSchedule] = Field(
        default_factory=dict, description="Weights that change from here on; other terms keep theirs."
    )
    learning_rates: dict[str, LearningRate] = Field(
        default_factory=dict, description="Learning rate by entry of `add`; others use args.learning_rate."
    )

    @model_validator(mode="after")
    def _says_when_and_what(self) -> Phase:
        if (self.epoch is None) == (self.step is None):
            raise ValueError("a phase needs either `epoch` or `step`")
        if not self.add and not self.losses:
            raise ValueError("the phase changes nothing; give `add` or `losses`")
        return self


class Lora(Section):
    """Low-rank adapters (peft) that a stage trains in place of the weights they sit on; the group name is `lora`."""

    target: str | list[str] = Field(
        description="Parameter groups whose linear layers get adapters, e.g. language.last(2), or `re:` and a regex "
        "of module names"
    )
    r: int = Field(16, ge=1, description="Rank.")
    alpha: int = Field(32, ge=1, description="Scale; the adapter counts alpha / r times.")
    dropout: float = Field(0.0, ge=0, lt=1, description="Dropout before the adapter.")
    dora: bool = Field(False, description="Weight-decomposed LoRA (Liu et al. 2024).")
    rslora: bool = Field(False, description="Scale by alpha / sqrt(r) (Kalajdzievski 2023).")
    qlora: bool = Field(False, description="4-bit base weights (bitsandbytes, GPU only).")
    checkpoints: Literal["full", "adapters"] = Field(
        "full",
        description="What a checkpoint inside the stage holds: all weights, or adapters and what else trains, on the "
        "weights that the stage began with.",
    )


class GradientReport(Section):
    """Cosines between the gradients of the loss terms, logged while training."""

    every: int = Field(ge=1, description="Optimizer steps between two measurements.")
    groups: list[str] = Field(min_length=1, description="Parameter groups it is measured on, e.g. [language.last(1)].")


class Batches(Section):
    """How batches are put together, for losses that tell their rows apart."""

    rows_per_group: int = Field(1, ge=1, description="Rows of a group in a batch of all processes, at most.")


class Packing(Section):
    """Several samples in one sequence, each seeing only itself, so that little of a batch is padding."""

    max_length: int = Field(ge=8, description="Tokens of a sequence, those of pictures among them; no sample is cut.")
    too_long: Literal["refuse", "leave_out"] = Field(
        "refuse",
        description="What becomes of a sample with more tokens: the stage stops, or it is left out and counted.",
    )


class CacheRecipe(Section):
    """How the output of a frozen prefix is kept, so that it is computed once a sample."""

    dtype: Literal["float32", "float16", "bfloat16"] = Field("float16", description="Type the features are kept in.")
    views: int = Field(1, ge=1, description="Augmented versions kept of each sample; 1 = no augmentation.")
    folder: UserPath | None = Field(None, description="Where; default: <output_dir>/cache.")
    cut: str | None = Field(None, description="The family's cut to use; default: the deepest one that is frozen.")


class Stage(Section):
    """One training run with its own optimizer and schedule."""

    name: StageName = Field(description="Folder of its checkpoint and prefix of its logs.")
    train: list[str] = Field(description="Parameter groups that train; also <group>.last(n) and <group>.first(n).")
    losses: dict[str, Weight | LossSchedule] = Field(
        description="Weight by loss term, a number or a schedule; terms not named do not count."
    )
    learning_rates: dict[str, LearningRate] = Field(
        default_factory=dict, description="Learning rate by entry of `train`; others use args.learning_rate."
    )
    args: dict[str, Any] = Field(
        default_factory=dict, description="TrainingArguments of this stage, over the recipe's `args`."
    )
    data: StageData | None = Field(None, description="Data of this stage; default: `data.train` of the recipe.")
    phases: list[Phase] = Field(default_factory=list, description="What changes inside the stage, in order.")
    lora: Lora | None = Field(None, description="Low-rank adapters; the parameter group `lora` of this stage.")
    loss_weighting: Literal["fixed", "uncertainty", "gradnorm", "pcgrad"] = Field(
        "fixed", description="How the weighted terms are balanced while training."
    )
    gradient_report: GradientReport | None = Field(None, description="Log how the loss terms' gradients agree.")
    cache: CacheRecipe | None = Field(
        None, description="Compute the frozen prefix once a sample; `cache: true` works."
    )
    batches: Batches | None = Field(None, description="Batches of rows of different groups; default: any rows.")
    packing: Packing | None = Field(
        None, description="Pack samples into sequences; a row of a batch is then a sequence. Default: padded rows."
    )
    too_long: Literal["refuse", "leave_out"] = Field(
        "refuse",
        description="What becomes of a sample with more tokens than the model takes, without `packing`: the stage "
        "stops, or it is left out and counted. None is ever cut.",
    )
    grad_cache: int | None = Field(
        None, ge=1, description="Rows encoded at a time; the loss still sees the whole batch (GradCache)."
    )
    skip_nonfinite: int = Field(
        0, ge=0, description="Steps with a NaN or infinite loss or gradient that may be left out; 0 ends at the first."
    )
    model: dict[str, Any] = Field(default_factory=dict, description="Config values that change from this stage on.")
    keep_best: str | None = Field(
        None, description="Metric whose best checkpoint is kept: eval_<metric>, eval_loss or eval_loss_<term>."
    )
    patience: int | None = Field(
        None, ge=1, description="Evaluations without a better `keep_best` metric after which the stage ends."
    )
    keep_checkpoints: Literal["none", "last", "all"] = Field(
        "none",
        description="Trainer checkpoints that stay when the stage is finished: none, the last and the best one, or "
        "all; `true` is all.",
    )
    handover: Handover = Field(default_factory=Handover, description="What is taken over from an earlier stage.")

    @field_validator("keep_checkpoints", mode="before")
    @classmethod
    def _plain_keep(cls, value: Any) -> Any:
        return "all" if value is True else "none" if value is False or value is None else value

    @field_validator("cache", mode="before")
    @classmethod
    def _plain_cache(cls, value: Any) -> Any:
        return {} if value is True else None if value is False else value

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
    def _has_a_loss(cls, value: dict[str, Any]) -> dict[str, Any]:
        if not value:
            raise ValueError("stage has no loss; give at least one term a weight > 0")
        if not any(_peak(weight) > 0 for weight in value.values()):
            raise ValueError("every loss has weight 0; give at least one term a weight > 0")
        return value

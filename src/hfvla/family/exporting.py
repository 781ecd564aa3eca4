"""What a family says of its models to those who take them elsewhere."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["Answers", "ExportPart", "ExportPlan", "PlainBackbone", "RunPart"]

RunPart = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]
"""An engine: runs the part of that name on tensors by input name, and returns tensors by output name."""


@dataclass(frozen=True)
class PlainBackbone:
    """The transformers model inside a family's model.

    Args:
        module: its name in the family's model, e.g. "backbone"; "" where the model is one of transformers' own.
        model: a `PreTrainedModel` of a class that transformers itself has.
        processor: what is saved beside it for `AutoProcessor` or `AutoTokenizer`: things with `save_pretrained`.
        option: key in a recipe's `model.options` that names the checkpoint it began from; "" for `model.pretrained`.
    """

    module: str
    model: PreTrainedModel
    processor: tuple[Any, ...]
    option: str


@dataclass(frozen=True)
class ExportPart:
    """A piece of a model that runs by itself: one graph.

    Args:
        name: file stem, e.g. "vision".
        module: a torch module in eval mode, whose `forward` takes the inputs by name and returns the outputs as a
            tuple.
        inputs: example tensors by name, of 2 rows or more.
        outputs: names of what `forward` returns, in order.
        dynamic: name of each axis that may have another size, by input and axis, e.g. {"input_ids": {0: "batch"}};
            axes of one name have one size.
    """

    name: str
    module: Any
    inputs: Mapping[str, Any]
    outputs: tuple[str, ...]
    dynamic: Mapping[str, Mapping[int, str]]


@dataclass(frozen=True)
class Answers:
    """What rows were answered by an engine; compared between two.

    Args:
        values: numbers by name, one array a row: logits, embeddings, actions.
        decisions: what was decided on each row; equal or not.
        scores: by metric one number a row with a gold answer.
    """

    values: Mapping[str, Sequence[Any]]
    decisions: Sequence[Any]
    scores: Mapping[str, Sequence[float]] = field(default_factory=dict)


@dataclass(frozen=True)
class ExportPlan:
    """How a family's model is taken apart, and how the parts answer rows together.

    Args:
        parts: the graphs.
        answer: `answer(run, rows) -> Answers`, with any engine for `run`; rows are the family's, one or more.
        tolerance: by name in `Answers.values`, the difference that 32 bits may have.
    """

    parts: tuple[ExportPart, ...]
    answer: Callable[[RunPart, Sequence[Mapping[str, Any]]], Answers]
    tolerance: Mapping[str, float] = field(default_factory=dict)

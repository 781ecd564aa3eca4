"""Loss terms around a model of transformers: two hooks, and neither its class nor its state dict changes.

What trains such a model reads `loss_terms` of its output as of our own models'. Before `forward`, the hook takes out
of the batch what only the loss needs; after it, it computes the terms and returns them in place of the logits, which
for a vocabulary of 150,000 words nobody wants to keep. A batch without `labels` (generation) passes as it is.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

from hfvla.data.packing import SEQUENCE_IDS
from hfvla.data.rows.group_ids import SOURCE_IDS
from hfvla.nn.packed_positions import packed_position_ids

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "Learned",
    "ObjectiveOutput",
    "PlainObjective",
    "carry_objective",
    "detach_objective",
    "learned_of",
    "objective_of",
]

_KEPT = "hfvla_objective"
_LABELS, _IGNORED = "labels", -100
_BESIDE = (SEQUENCE_IDS, SOURCE_IDS)


@dataclass
class ObjectiveOutput(ModelOutput):
    """What a model with an objective returns for a batch with labels.

    Args:
        loss (`Tensor`): [] sum of `loss_terms`.
        loss_terms (`dict[str, Tensor]`): unweighted scalars by name.
        predictions (`Tensor`, *optional*): what quick metrics read; outside of training only.
        row_losses (`dict[str, Tensor]`, *optional*): [2, S] by term: what each sample sums up to, and over how many;
            for losses by source.
    """

    loss: Tensor | None = None
    loss_terms: dict[str, Tensor] | None = None
    predictions: Tensor | None = None
    row_losses: dict[str, Tensor] | None = None


@dataclass
class Learned:
    """What a model is to predict in a batch, padded or packed.

    Shapes: B rows of the batch, K positions that predict something in any row, S samples.

    Args:
        positions (`Tensor`, *optional*): [K] places of the logits in a row; None where the logits are those of all.
        targets (`Tensor`): [B, K] long, the next token; -100 where none is learned.
        owners (`Tensor`): [B, K] long, the sample that the next token belongs to; below 0 for padding.
    """

    positions: Tensor | None
    targets: Tensor
    owners: Tensor


class PlainObjective(ABC):
    """The loss terms of a model of transformers.

    A subclass says what it takes out of a batch and what it makes of the logits:

    - `taken`: keys of a batch that only the loss needs, besides `labels` and what belongs to packing and sources;
    - `terms(model, logits, learned, batch, extras) -> (terms, row_losses)`: logits [B, K, V], what they are to
      predict, the batch as `forward` saw it, and what was taken out of it;
    - `counts(batch) -> dict`: what each term is a mean over (`hfvla.training.trainer.term_counts`);
    - `predictions(logits, learned, extras) -> Tensor`: for quick metrics. Optional.
    - `beside(trained) -> (int, str)`: what it holds beside the model, for plans. Optional.
    - `prepared(model, batch) -> batch` and `finished()`: before and after `forward`. Optional.
    """

    taken: tuple[str, ...] = ()

    @abstractmethod
    def terms(
        self,
        model: nn.Module,
        logits: Tensor,
        learned: Learned,
        batch: Mapping[str, Any],
        extras: Mapping[str, Any],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return unweighted scalars by name, and what each sample sums up to."""

    def counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor | float]:
        """Return what each term is a mean over in a batch."""
        return {}

    def predictions(self, logits: Tensor, learned: Learned, extras: Mapping[str, Any]) -> Tensor | None:
        """Return what the quick metrics read, one row a sample."""
        return None

    def beside(self, trained: Collection[Tensor]) -> tuple[int, str]:
        """Return how many weights are held beside the model, and a line about what a plan does not count.

        Args:
            trained: what ever trains of the model; may be on the meta device.
        """
        return 0, ""

    def prepared(self, model: PreTrainedModel, batch: dict[str, Any]) -> dict[str, Any]:
        """Return the batch as `forward` takes it, e.g. with something in the place of features that are kept."""
        return batch

    def finished(self) -> None:
        """Undo, after `forward`, what `prepared` did to the model."""
        return None

    def attach(self, model: PreTrainedModel) -> None:
        """Give a model this objective, in place of one that it has."""
        detach_objective(model)
        parameters = inspect.signature(type(model).forward).parameters
        self._accepts = set(parameters)
        if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values()):
            self._accepts.add("use_cache")  # handed on to the language model; a cache would hide packed sequences
        self._open: list[tuple[dict[str, Any], Learned | None]] = []
        handles = [
            model.register_forward_pre_hook(self._before, with_kwargs=True),
            model.register_forward_hook(self._after, with_kwargs=True),
        ]
        model.term_counts = self.counts
        setattr(model, _KEPT, (self, handles))

    def _before(self, module: nn.Module, arguments: Any, batch: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        if batch.get(_LABELS) is None:
            self._open.append(({}, None))
            return arguments, batch
        batch = dict(batch)
        extras = {name: batch.pop(name) for name in (_LABELS, *_BESIDE, *self.taken) if name in batch}
        if SEQUENCE_IDS in extras:
            batch["position_ids"] = packed_position_ids(module, batch)
        batch = self.prepared(module, batch)
        labels, positions = extras[_LABELS], None
        if "logits_to_keep" in self._accepts and not labels.is_meta:
            positions = (labels[:, 1:] != _IGNORED).any(0).nonzero()[:, 0]  # a place's label is its next token
            batch["logits_to_keep"] = positions
        if "use_cache" in self._accepts:
            batch.setdefault("use_cache", False)
        batch |= {name: _as_weights(module, value) for name, value in batch.items() if name.startswith("pixel_values")}
        self._open.append((extras, learned_of(labels, extras.get(SEQUENCE_IDS), positions)))
        return arguments, batch

    def _after(self, module: nn.Module, arguments: Any, batch: dict[str, Any], output: Any) -> Any:
        extras, learned = self._open.pop()
        if learned is None:
            return output
        self.finished()
        logits = output["logits"] if isinstance(output, Mapping) else output[0]
        terms, rows = self.terms(module, logits, learned, batch, extras)
        loss = torch.stack([term.float() for term in terms.values()]).sum() if terms else None
        predictions = None if module.training else self.predictions(logits.detach(), learned, extras)
        return ObjectiveOutput(loss=loss, loss_terms=terms, predictions=predictions, row_losses=rows or None)


def learned_of(labels: Tensor, sequence_ids: Tensor | None, positions: Tensor | None) -> Learned:
    """Return what a batch is to predict.

    Args:
        labels: [B, T], `-100` where nothing is learned.
        sequence_ids: [B, T] of a packed batch, or None where each row is one sample.
        positions: [K] places that are looked at, or None for all.
    """
    if sequence_ids is None:
        sequence_ids = torch.arange(len(labels), device=labels.device)[:, None].expand(labels.shape)
    if positions is None:
        pad = torch.nn.functional.pad
        return Learned(None, pad(labels[:, 1:], (0, 1), value=_IGNORED), pad(sequence_ids[:, 1:], (0, 1), value=-1))
    return Learned(positions, labels[:, positions + 1], sequence_ids[:, positions + 1])


def _as_weights(module: Any, value: Any) -> Any:
    """Return pixels in the type of the weights, which not every class of transformers casts them to."""
    if not isinstance(value, Tensor) or value.is_meta or not value.is_floating_point():
        return value
    if torch.is_autocast_enabled(value.device.type):
        return value
    return value.to(module.dtype)


def objective_of(model: nn.Module) -> PlainObjective | None:
    """Return the objective that a model has, if any."""
    kept = getattr(model, _KEPT, None)
    return None if kept is None else kept[0]


def detach_objective(model: PreTrainedModel) -> None:
    """Take a model's objective off it, if it has one."""
    kept = getattr(model, _KEPT, None)
    if kept is not None:
        for handle in kept[1]:
            handle.remove()
        delattr(model, _KEPT)
        del model.term_counts


def carry_objective(source: Any, target: Any) -> None:
    """Give `target` the objective of `source`, if that has one; both may then be compared by their outputs."""
    kept = getattr(source, _KEPT, None)
    if kept is not None:
        kept[0].attach(target)

"""Loss terms around a model of transformers: two hooks, and neither its class nor its state dict changes.

What trains such a model reads `loss_terms` of its output as of our own models'. Before `forward`, the hook takes out
of the batch what only the loss needs; after it, it computes the terms and returns them in place of the logits, which
for a vocabulary of 150,000 words nobody wants to keep. A batch without `labels` (generation) passes as it is.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers.utils import ModelOutput

__all__ = ["ObjectiveOutput", "PlainObjective", "carry_objective"]

_KEPT = "hfvla_objective"
_LABELS = "labels"


@dataclass
class ObjectiveOutput(ModelOutput):
    """What a model with an objective returns for a batch with labels.

    Args:
        loss (`Tensor`): [] sum of `loss_terms`.
        loss_terms (`dict[str, Tensor]`): unweighted scalars by name.
        predictions (`Tensor`, *optional*): what quick metrics read; outside of training only.
    """

    loss: Tensor | None = None
    loss_terms: dict[str, Tensor] | None = None
    predictions: Tensor | None = None


class PlainObjective(ABC):
    """The loss terms of a model of transformers.

    A subclass says what it takes out of a batch and what it makes of the logits:

    - `taken`: keys of a batch that only the loss needs, besides `labels`;
    - `terms(model, logits, positions, batch, extras) -> dict`: logits [S, K, V] at the K `positions` [K] of the
      sequence (None: all), the batch as `forward` saw it, and what was taken out of it;
    - `counts(batch) -> dict`: what each term is a mean over (`hfvla.training.trainer.term_counts`);
    - `predictions(logits, positions, extras) -> Tensor`: for quick metrics. Optional.
    """

    taken: tuple[str, ...] = ()

    @abstractmethod
    def terms(
        self,
        model: nn.Module,
        logits: Tensor,
        positions: Tensor | None,
        batch: Mapping[str, Any],
        extras: Mapping[str, Any],
    ) -> dict[str, Tensor]:
        """Return unweighted scalars by name."""

    def counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor | float]:
        """Return what each term is a mean over in a batch."""
        return {}

    def predictions(self, logits: Tensor, positions: Tensor | None, extras: Mapping[str, Any]) -> Tensor | None:
        """Return what the quick metrics read, one row a sequence."""
        return None

    def attach(self, model: Any) -> None:
        """Give a model this objective, in place of one that it has."""
        detach_objective(model)
        self._accepts = set(inspect.signature(type(model).forward).parameters)
        self._open: list[tuple[dict[str, Any], Tensor | None]] = []
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
        extras = {name: batch.pop(name) for name in (_LABELS, *self.taken) if name in batch}
        positions = None
        if "logits_to_keep" in self._accepts and not extras[_LABELS].is_meta:
            positions = (extras[_LABELS][:, 1:] != -100).any(0).nonzero()[:, 0]  # a row's label is its next token
            batch["logits_to_keep"] = positions
        if "use_cache" in self._accepts:
            batch.setdefault("use_cache", False)
        batch |= {name: _as_weights(module, value) for name, value in batch.items() if name.startswith("pixel_values")}
        self._open.append((extras, positions))
        return arguments, batch

    def _after(self, module: nn.Module, arguments: Any, batch: dict[str, Any], output: Any) -> Any:
        extras, positions = self._open.pop()
        if not extras:
            return output
        logits = output["logits"] if isinstance(output, Mapping) else output[0]
        terms = self.terms(module, logits, positions, batch, extras)
        loss = torch.stack([term.float() for term in terms.values()]).sum() if terms else None
        predictions = None if module.training else self.predictions(logits.detach(), positions, extras)
        return ObjectiveOutput(loss=loss, loss_terms=terms, predictions=predictions)


def _as_weights(module: Any, value: Any) -> Any:
    """Return pixels in the type of the weights, which not every class of transformers casts them to."""
    if not isinstance(value, Tensor) or not value.is_floating_point() or torch.is_autocast_enabled(value.device.type):
        return value
    return value.to(module.dtype)


def detach_objective(model: Any) -> None:
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

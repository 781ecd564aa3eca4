"""The loss terms `sft`, `dpo` and `distill` of a model of transformers, from its logits.

Shapes: S sequences, T tokens, K positions that predict a token which is learned in any sequence, V words, P pairs.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfvla.errors import CheckpointError, RecipeError
from hfvla.losses.text import IGNORE_INDEX
from hfvla.models.chat_vlm.options import ChatOptions
from hfvla.nn.objective import PlainObjective

__all__ = ["PAIRS", "WEIGHTS", "Objective"]

WEIGHTS = "sequence_weights"
"""Key of a batch: [S] how much each token of a sequence counts in `sft` and `distill`; 0 for rejected answers."""

PAIRS = "pairs"
"""Key of a batch: [P, 2] the sequence with the better answer, and the one with the worse."""


class Objective(PlainObjective):
    """What a stage trains a model of transformers on.

    Args:
        model: at the stage's start; `dpo`, and `distill` without a teacher, keep a copy of it.
        options: `model.options` of the recipe.
        losses: loss terms of the stage.

    Raises:
        CheckpointError: a teacher of another vocabulary.
    """

    taken = (WEIGHTS, PAIRS)

    def __init__(self, model: Any, options: Mapping[str, Any], losses: Sequence[str]) -> None:
        self.options = ChatOptions.model_validate(dict(options))
        self.losses = tuple(losses)
        meta = any(parameter.is_meta for parameter in model.parameters())
        self.reference = self.teacher = None
        if not meta:
            teacher = self.options.distill.teacher
            if "dpo" in losses or ("distill" in losses and teacher is None):
                self.reference = _frozen(copy.deepcopy(model))
            if "distill" in losses:
                self.teacher = self.reference if teacher is None else _load_teacher(teacher, model)

    def counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor | float]:
        """Return the weighted tokens that `sft` and `distill` are means over, and the pairs of `dpo`."""
        if batch.get("labels") is None:
            return {}
        learned = batch["labels"][:, 1:] != IGNORE_INDEX
        weights = batch.get(WEIGHTS)
        tokens = learned.sum() if weights is None else (learned.sum(1) * weights).sum()
        pairs = batch.get(PAIRS)
        return {"sft": tokens, "distill": tokens, "dpo": 0.0 if pairs is None else float(len(pairs))}

    def terms(
        self,
        model: nn.Module,
        logits: Tensor,
        positions: Tensor | None,
        batch: Mapping[str, Any],
        extras: Mapping[str, Any],
    ) -> dict[str, Tensor]:
        """Return the terms that the batch has what they need for."""
        targets = _targets(extras["labels"], positions)
        weights = extras.get(WEIGHTS)
        found: dict[str, Tensor] = {}
        if logits.is_meta or targets.is_meta:
            mean = F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORE_INDEX)
            return dict.fromkeys(self.losses, mean)
        learned = targets != IGNORE_INDEX
        each = torch.ones(len(targets), device=targets.device) if weights is None else weights
        token_weights = each[:, None].expand(targets.shape)[learned]  # [N]
        counted = bool((token_weights > 0).any())
        if "sft" in self.losses and counted:
            nll = F.cross_entropy(logits[learned].float(), targets[learned], reduction="none")  # [N]
            found["sft"] = (nll * token_weights).sum() / token_weights.sum()
        if "dpo" in self.losses and extras.get(PAIRS) is not None and len(extras[PAIRS]):
            found["dpo"] = self._dpo(logits, targets, positions, batch, extras[PAIRS])
        if "distill" in self.losses and counted:
            found["distill"] = self._distill(logits, learned, positions, batch, token_weights)
        return found

    def _dpo(self, logits: Tensor, targets: Tensor, positions: Tensor | None, batch: Any, pairs: Tensor) -> Tensor:
        if self.reference is None:
            raise RecipeError("the dpo term needs the model that its stage began with")
        with torch.no_grad():
            base = _answer_logps(_logits_of(self.reference, batch, positions, logits.device), targets)
        gain = _answer_logps(logits, targets) - base  # [S]
        margin = self.options.dpo.beta * (gain[pairs[:, 0]] - gain[pairs[:, 1]])  # [P]
        smoothing = self.options.dpo.label_smoothing
        return -((1 - smoothing) * F.logsigmoid(margin) + smoothing * F.logsigmoid(-margin)).mean()

    def _distill(
        self, logits: Tensor, learned: Tensor, positions: Tensor | None, batch: Any, weights: Tensor
    ) -> Tensor:
        if self.teacher is None:
            raise RecipeError("the distill term needs a teacher, or the model that its stage began with")
        with torch.no_grad():
            taught = _logits_of(self.teacher, batch, positions, logits.device)[learned]
        scale = self.options.distill.temperature
        own = F.log_softmax(logits[learned].float() / scale, -1)
        aim = F.log_softmax(taught.float() / scale, -1)
        divergence = F.kl_div(own, aim, reduction="none", log_target=True).sum(-1) * scale**2  # [N]
        return (divergence * weights).sum() / weights.sum()

    def predictions(self, logits: Tensor, positions: Tensor | None, extras: Mapping[str, Any]) -> Tensor | None:
        """Return [S, 2]: tokens of each sequence that are the likeliest, and tokens; rejected answers have none."""
        targets = _targets(extras["labels"], positions)
        learned = targets != IGNORE_INDEX
        if extras.get(WEIGHTS) is not None:
            learned = learned & (extras[WEIGHTS] > 0)[:, None]
        right = (logits.argmax(-1) == targets) & learned
        return torch.stack([right.sum(1), learned.sum(1)], 1)


def _targets(labels: Tensor, positions: Tensor | None) -> Tensor:
    """Return the token after each position, [S, K]; with all positions the last one has none."""
    if positions is not None:
        return labels[:, positions + 1]
    return F.pad(labels[:, 1:], (0, 1), value=IGNORE_INDEX)


def _answer_logps(logits: Tensor, targets: Tensor) -> Tensor:
    """Return the log-likelihood [S] of each sequence's learned tokens."""
    losses = F.cross_entropy(logits.float().transpose(1, 2), targets, ignore_index=IGNORE_INDEX, reduction="none")
    return -losses.sum(1)


def _logits_of(model: Any, batch: Mapping[str, Any], positions: Tensor | None, device: Any) -> Tensor:
    if next(model.parameters()).device != device:
        model.to(device)
    given = {name: value for name, value in batch.items() if name != "logits_to_keep"}
    if positions is not None:
        given["logits_to_keep"] = positions
    return model(**given).logits


def _frozen(model: Any) -> Any:
    from hfvla.nn.objective import detach_objective

    detach_objective(model)
    return model.requires_grad_(False).eval()


def _load_teacher(name: str, student: Any) -> Any:
    """Load a teacher in its own type.

    Raises:
        CheckpointError: it has another vocabulary.
    """
    from transformers import AutoModelForImageTextToText

    from hfvla.loading import guarded

    teacher = guarded(name, lambda: AutoModelForImageTextToText.from_pretrained(name, use_safetensors=True))
    sizes = [model.get_input_embeddings().weight.shape[0] for model in (teacher, student)]
    if sizes[0] != sizes[1]:
        raise CheckpointError(
            "the teacher has another vocabulary than the model",
            where=name,
            got=f"{sizes[0]} tokens",
            expected=f"{sizes[1]}",
            fix="Distil from a larger model of the same kind.",
        )
    return _frozen(teacher)

"""The loss terms `sft`, `dpo` and `distill` of a model of transformers, from its logits.

Shapes: B rows of a batch, K positions that predict a token which is learned in any row, V words, S samples (one a row,
or several in a packed one), N learned tokens, P pairs.
"""

from __future__ import annotations

import copy
from collections.abc import Collection, Mapping, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hfvla.data.packing import SEQUENCE_IDS
from hfvla.errors import CheckpointError, RecipeError
from hfvla.losses.text import IGNORE_INDEX, sums_by_row
from hfvla.models.chat_vlm.options import ChatOptions
from hfvla.models.chat_vlm.tower import SLOTS, Slot, give_back, stand_in
from hfvla.nn.objective import Learned, PlainObjective, learned_of

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["PAIRS", "WEIGHTS", "Objective"]

WEIGHTS = "sequence_weights"
"""Key of a batch: [S] how much each token of a sample counts in `sft` and `distill`, and its pair in `dpo`; 0 for
rejected answers."""

PAIRS = "pairs"
"""Key of a batch: [P, 2] the sample with the better answer, and the one with the worse."""


class Objective(PlainObjective):
    """What a stage trains a model of transformers on.

    Args:
        model: at the stage's start; `dpo`, and `distill` without a teacher, keep a copy of what trains of it. What
            does not (`requires_grad`) is shared with the copy, so that LoRA costs no second model.
        options: `model.options` of the recipe.
        losses: loss terms of the stage.

    Raises:
        CheckpointError: a teacher of another vocabulary.
    """

    taken = (WEIGHTS, PAIRS)

    def __init__(self, model: PreTrainedModel, options: Mapping[str, Any], losses: Sequence[str]) -> None:
        self.options = ChatOptions.model_validate(dict(options))
        self.losses = tuple(losses)
        meta = any(parameter.is_meta for parameter in model.parameters())
        self.reference = self.teacher = None
        self._shared: list[nn.Parameter] = []
        self._replaying: Any = None
        self._kept: dict[Slot, dict[str, Tensor]] = {}
        if not meta:
            teacher = self.options.distill.teacher
            if "dpo" in losses or ("distill" in losses and teacher is None):
                self._shared = [value for value in model.parameters() if not value.requires_grad]
                self.reference = _frozen(copy.deepcopy(model, {id(value): value for value in self._shared}))
            if "distill" in losses:
                self.teacher = self.reference if teacher is None else _load_teacher(teacher, model)

    def beside(self, trained: Collection[Tensor]) -> tuple[int, str]:
        """Return the size of the copy that `dpo` and `distill` compare with, and what a plan leaves out."""
        copied = "dpo" in self.losses or ("distill" in self.losses and self.options.distill.teacher is None)
        parts = ["a copy of what trains is held, a whole model under ZeRO or FSDP"] if copied else []
        if "distill" in self.losses and self.options.distill.teacher is not None:
            parts.append("the teacher is not counted")
        size = sum(value.numel() for value in trained) if copied else 0
        return size, f"dpo, distill: {'; '.join(parts)}; its pass forward is not counted" if parts else ""

    def prepared(self, model: PreTrainedModel, batch: dict[str, Any]) -> dict[str, Any]:
        """Let the tower give what was kept of it, where a batch has features in place of pixels."""
        self.finished()  # a pass that failed did not get there
        self._kept = {}
        if not any(slot.tiles in batch for slot in SLOTS):
            return batch
        if self.teacher is not None and self.teacher is not self.reference:
            raise RecipeError(
                "distill: a teacher has a tower of its own, and the feature cache keeps no pictures for it",
                fix="Leave `cache` out of the stage, or options.distill.teacher out of the recipe.",
            )
        batch, self._kept = stand_in(batch, model.dtype)
        self._replaying = give_back(model, self._kept)
        self._replaying.__enter__()
        return batch

    def finished(self) -> None:
        """Let the tower see again."""
        replaying, self._replaying = self._replaying, None
        if replaying is not None:
            replaying.__exit__(None, None, None)

    def counts(self, batch: Mapping[str, Any]) -> dict[str, Tensor | float]:
        """Return the weighted tokens that `sft` and `distill` are means over, and the weighted pairs of `dpo`."""
        if batch.get("labels") is None:
            return {}
        learned = learned_of(batch["labels"], batch.get(SEQUENCE_IDS), None)
        tokens, _ = _weights(learned, batch.get(WEIGHTS))
        pairs = batch.get(PAIRS)
        counted = 0.0 if pairs is None else _pair_weights(pairs, batch).sum()
        return {"sft": tokens.sum(), "distill": tokens.sum(), "dpo": counted}

    def terms(
        self,
        model: nn.Module,
        logits: Tensor,
        learned: Learned,
        batch: Mapping[str, Any],
        extras: Mapping[str, Any],
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Return the terms that the batch has what they need for."""
        if logits.is_meta:
            flat = learned.targets.flatten().to(logits.device)
            mean = F.cross_entropy(logits.float().flatten(0, 1), flat, ignore_index=IGNORE_INDEX)
            return dict.fromkeys(self.losses, mean), {}
        weights, owners = _weights(learned, extras.get(WEIGHTS))  # [N] each
        found: dict[str, Tensor] = {}
        rows: dict[str, Tensor] = {}
        chosen = learned.targets != IGNORE_INDEX
        counted = bool((weights > 0).any())
        if "sft" in self.losses and counted:
            losses = F.cross_entropy(logits[chosen].float(), learned.targets[chosen], reduction="none")  # [N]
            found["sft"] = (losses * weights).sum() / weights.sum()
            rows["sft"] = sums_by_row(losses[weights > 0], owners[weights > 0], _samples(extras, learned))
        if "dpo" in self.losses and PAIRS in extras and bool((_pair_weights(extras[PAIRS], extras) > 0).any()):
            found["dpo"] = self._dpo(logits, learned, batch, extras)
        if "distill" in self.losses and counted:
            found["distill"] = self._distill(logits, learned, batch, weights)
        return found, rows

    def _dpo(self, logits: Tensor, learned: Learned, batch: Any, extras: Mapping[str, Any]) -> Tensor:
        if self.reference is None:
            raise RecipeError("the dpo term needs the model that its stage began with")
        self._keep_what_trains()
        samples, pairs = _samples(extras, learned), extras[PAIRS]
        with torch.no_grad():
            known = self._logits_of(self.reference, batch, learned.positions, logits.device)
            base = _answer_logps(known, learned, samples)
        gain = _answer_logps(logits, learned, samples) - base  # [S]
        margin = self.options.dpo.beta * (gain[pairs[:, 0]] - gain[pairs[:, 1]])  # [P]
        smoothing = self.options.dpo.label_smoothing
        losses = -((1 - smoothing) * F.logsigmoid(margin) + smoothing * F.logsigmoid(-margin))
        weights = _pair_weights(pairs, extras)
        return (losses * weights).sum() / weights.sum()

    def _distill(self, logits: Tensor, learned: Learned, batch: Any, weights: Tensor) -> Tensor:
        if self.teacher is None:
            raise RecipeError("the distill term needs a teacher, or the model that its stage began with")
        self._keep_what_trains()
        chosen = learned.targets != IGNORE_INDEX
        with torch.no_grad():
            taught = self._logits_of(self.teacher, batch, learned.positions, logits.device)[chosen]
        scale = self.options.distill.temperature
        own = F.log_softmax(logits[chosen].float() / scale, -1)
        aim = F.log_softmax(taught.float() / scale, -1)
        divergence = F.kl_div(own, aim, reduction="none", log_target=True).sum(-1) * scale**2  # [N]
        return (divergence * weights).sum() / weights.sum()

    def _keep_what_trains(self) -> None:
        """Copy weights that were frozen, and shared with the reference, and train from this step on."""
        joined = {id(value): value for value in self._shared if value.requires_grad}
        if not joined or self.reference is None:
            return
        own = {key: nn.Parameter(value.detach().clone(), requires_grad=False) for key, value in joined.items()}
        for module in self.reference.modules():  # a tied weight stands in two of them
            for name, value in list(module._parameters.items()):
                if id(value) in own:
                    module._parameters[name] = own[id(value)]
        self._shared = [value for value in self._shared if id(value) not in own]

    def _logits_of(
        self, model: PreTrainedModel, batch: Mapping[str, Any], positions: Tensor | None, device: Any
    ) -> Tensor:
        if any(value.device != device for value in model.parameters()):
            model.to(device)
        given = {name: value for name, value in batch.items() if name != "logits_to_keep"}
        if positions is not None:
            given["logits_to_keep"] = positions
        with give_back(model, self._kept) if self._kept else nullcontext():
            return model(**given).logits

    def predictions(self, logits: Tensor, learned: Learned, extras: Mapping[str, Any]) -> Tensor | None:
        """Return [S, 2]: tokens of each sample that are the likeliest, and tokens; rejected answers have none."""
        weights, owners = _weights(learned, extras.get(WEIGHTS))
        chosen = learned.targets != IGNORE_INDEX
        right = (logits.argmax(-1)[chosen] == learned.targets[chosen]) & (weights > 0)
        counts = torch.zeros(_samples(extras, learned), 2, dtype=torch.long, device=logits.device)
        return counts.index_add_(0, owners, torch.stack([right, weights > 0], 1).long())


def _samples(extras: Mapping[str, Any], learned: Learned) -> int:
    """Return the number of samples in a batch, padded or packed."""
    weights = extras.get(WEIGHTS)
    return len(weights) if weights is not None else int(learned.owners.max()) + 1


def _pair_weights(pairs: Tensor, batch: Mapping[str, Any]) -> Tensor:
    """Return the weight of each pair, [P]: that of its better answer's row."""
    weights = batch.get(WEIGHTS)
    return torch.ones(len(pairs), device=pairs.device) if weights is None else weights[pairs[:, 0]]


def _weights(learned: Learned, weights: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return weight and sample of each learned token, [N] each."""
    owners = learned.owners[learned.targets != IGNORE_INDEX]
    return torch.ones_like(owners, dtype=torch.float32) if weights is None else weights[owners], owners


def _answer_logps(logits: Tensor, learned: Learned, samples: int) -> Tensor:
    """Return the log-likelihood [S] of each sample's learned tokens."""
    chosen = learned.targets != IGNORE_INDEX
    losses = F.cross_entropy(logits[chosen].float(), learned.targets[chosen], reduction="none")
    return -losses.new_zeros(samples).index_add_(0, learned.owners[chosen], losses)


def _frozen(model: PreTrainedModel) -> Any:
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

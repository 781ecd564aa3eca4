"""Balancing by the gradients of single loss terms: PCGrad and GradNorm."""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hfvla.losses.balancing import gradnorm_update, pcgrad_coefficients, pcgrad_orders
from hfvla.training.trainer.balance.balancer import Balancer
from hfvla.training.trainer.balance.terms import TermGradients

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import Trainer

__all__ = ["GradNorm", "PCGrad"]

logger = logging.getLogger(__name__)


class _PerTerm(Balancer):
    """Goes backward once for each term, and decides on the gradients of the whole optimizer step."""

    def __init__(self, names: Sequence[str], accelerator: Accelerator, seed: int = 0) -> None:
        super().__init__(names, accelerator, seed)
        self._terms: dict[str, Tensor] = {}
        self._weights: Mapping[str, float] = {}
        self._shares: Mapping[str, Any] = {}
        self._gradients: TermGradients | None = None
        self._losses = torch.zeros(2, len(self.names))  # sums of shares of terms, and of shares
        self._warned = False

    def factors(self) -> Tensor:
        """Return what each term counts before its weight of the recipe: [T] float64."""
        return torch.ones(len(self.names), dtype=torch.float64)

    @abstractmethod
    def decide(self, gradients: TermGradients, weights: Tensor, losses: Tensor, step: int) -> Tensor:
        """Return what each term's gradient counts at the parameters that terms share: [T] float64.

        Args:
            gradients: averaged over micro-batches and processes.
            weights (`Tensor`): [T] float64, the recipe's.
            losses (`Tensor`): [T], mean loss; NaN for a term that was in no batch.
            step: optimizer steps done.
        """

    def combine(self, terms: Mapping[str, Tensor], weights: Mapping[str, float], shares: Mapping[str, Any]) -> Tensor:
        """See `Balancer.combine`; the value is for the log, gradients are taken term by term."""
        terms = {name: shares[name] * term for name, term in terms.items()}
        self._terms, self._weights, self._shares = terms, weights, shares
        factors = dict(zip(self.names, self.factors().tolist(), strict=True))
        weighted = [weights[name] * factors[name] * term for name, term in terms.items()]
        return torch.stack(weighted).sum() if weighted else torch.zeros((), device=self.accelerator.device)

    def training_step(
        self, trainer: Trainer, model: nn.Module, inputs: dict[str, Any], plain: Callable[[], Tensor]
    ) -> Tensor:
        """See `Balancer.training_step`."""
        model.train()
        if callable(getattr(trainer.optimizer, "train", None)):  # schedule-free optimizers
            trainer.optimizer.train()
        with trainer.compute_loss_context_manager():
            loss = trainer.compute_loss(model, trainer._prepare_inputs(inputs))
        micro_batches, scaler = trainer.current_gradient_accumulation_steps, self.accelerator.scaler
        if self._gradients is None:
            trained = [parameter for parameter in trainer.model.parameters() if parameter.requires_grad]
            self._gradients = TermGradients(self.names, trained)
        counted = {name: term for name, term in self._terms.items() if self._weights[name]}
        self._gradients.add(counted, scale=1 / micro_batches, scaler=scaler, keep_graph=False)
        self._losses = self._losses.to(loss.device)
        for name, term in counted.items():
            index = self.names.index(name)
            self._losses[0, index] += term.detach().float()
            self._losses[1, index] += self._shares[name]
        self._terms = {}
        if self.accelerator.sync_gradients:
            self._finish(trainer.state.global_step)
        return loss.detach() / micro_batches

    def _finish(self, step: int) -> None:
        gradients, self._gradients = self._gradients, None
        sums, counts = self._mean(self._losses).cpu()
        self._losses = torch.zeros_like(self._losses)
        if gradients is None:
            return
        gradients.average(self.accelerator)
        weights = torch.tensor([self._weights.get(name, 0.0) for name in self.names], dtype=torch.float64)
        own = self.factors() * weights
        shared = own
        if gradients.shared():
            shared = self.decide(gradients, weights, sums / counts, step)
        elif int((counts > 0).sum()) > 1 and not self._warned:
            self._warned = True
            logger.warning(
                "loss_weighting: %s has nothing to do: no parameter that trains now serves two loss terms", self.kind
            )
        gradients.write(shared=shared, own=own)
        self._effective = dict(zip(self.names, shared.tolist(), strict=True))


class PCGrad(_PerTerm):
    """Gradients that conflict are projected off each other (Yu et al. 2020); see `pcgrad_coefficients`."""

    kind = "pcgrad"
    needs_positive = False

    def decide(self, gradients: TermGradients, weights: Tensor, losses: Tensor, step: int) -> Tensor:
        """See `_PerTerm.decide`; the order of the terms is drawn by seed and step."""
        gram = weights[:, None] * gradients.gram(only_shared=True) * weights[None, :]
        return weights * pcgrad_coefficients(gram, pcgrad_orders(len(self.names), self.seed, step))


class GradNorm(_PerTerm):
    """Weights learned so that terms train at one pace (Chen et al. 2018); see `gradnorm_update`.

    Attributes:
        learned (`Tensor`): [T] float64; of the terms seen so far the sum is their number.
        first (`Tensor`): [T] float64; mean loss of the first step that had the term, NaN before.
    """

    kind = "gradnorm"

    def __init__(self, names: Sequence[str], accelerator: Accelerator, seed: int = 0) -> None:
        super().__init__(names, accelerator, seed)
        self.learned = torch.ones(len(self.names), dtype=torch.float64)
        self.first = torch.full_like(self.learned, torch.nan)

    def factors(self) -> Tensor:
        """See `_PerTerm.factors`; the learned weights."""
        return self.learned

    def decide(self, gradients: TermGradients, weights: Tensor, losses: Tensor, step: int) -> Tensor:
        """See `_PerTerm.decide`; this step goes by the weights as they are, then they are updated."""
        decided = self.learned * weights
        norms = gradients.gram(only_shared=True).diagonal().sqrt()
        losses = losses.double()
        self.first = torch.where(self.first.isnan(), losses, self.first)
        present = (norms > 0) & (losses >= 0) & (self.first > 0)
        if int(present.sum()) > 1 and bool(norms.isfinite().all()):  # fp16 overflows while its scale is found
            before = self.learned[present]
            after = gradnorm_update(before, norms[present], (losses / self.first)[present])
            self.learned = self.learned.clone()
            self.learned[present] = after * (before.sum() / after.sum())
        return decided

    def state(self) -> dict[str, Tensor]:
        """See `Balancer.state`."""
        return {"learned": self.learned, "first": self.first}

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See `Balancer.load_state`."""
        self.learned, self.first = state["learned"].clone(), state["first"].clone()

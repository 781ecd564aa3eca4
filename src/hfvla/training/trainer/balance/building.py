"""Balances the loss terms of a stage while it trains: uncertainty weighting, GradNorm, PCGrad.

What a term counts in the end is the weight of the recipe times what is found here, so a weight of the recipe says how
much a term counts once all are balanced.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from hfvla.errors import RecipeError
from hfvla.losses.balancing import uncertainty_gradient, uncertainty_loss
from hfvla.training.trainer.balance.balancer import Balancer
from hfvla.training.trainer.balance.gradients import GradNorm, PCGrad
from hfvla.training.trainer.balance.terms import refuse_set_up

if TYPE_CHECKING:
    from accelerate import Accelerator
    from transformers import Trainer

__all__ = ["Uncertainty", "build_balancer"]

LOG_VARIANCE_RATE = 1e-2
"""Adam's learning rate for log-variances; of their own, since a rate made for weights hardly moves them."""


class Uncertainty(Balancer):
    """Each term weighted by a learned variance (Kendall, Gal & Cipolla 2018); see `uncertainty_loss`.

    The log-variances are no part of the model: they have an Adam of their own, so they are neither clipped, decayed
    nor in a checkpoint that others load. They are written into Trainer checkpoints.
    """

    kind = "uncertainty"

    def __init__(self, names: Sequence[str], accelerator: Accelerator, seed: int = 0) -> None:
        super().__init__(names, accelerator, seed)
        self.log_variances = nn.Parameter(torch.zeros(len(self.names), device=accelerator.device))
        self._optimizer = torch.optim.Adam([self.log_variances], lr=LOG_VARIANCE_RATE)
        self._gradient = torch.zeros_like(self.log_variances)
        self._weights: Mapping[str, float] = {}

    def combine(self, terms: Mapping[str, Tensor], weights: Mapping[str, float], shares: Mapping[str, Any]) -> Tensor:
        """See `Balancer.combine`; the sum of `w * (exp(-s) * L + s)`."""
        self._weights = weights
        if not terms:
            return torch.zeros((), device=self.log_variances.device)
        present = [self.names.index(name) for name in terms]
        variances = self.log_variances.detach()[present]
        losses = torch.stack([term.float() for term in terms.values()])
        fixed = torch.tensor([weights[name] for name in terms], device=losses.device)
        fixed = fixed * torch.stack([torch.as_tensor(shares[name], device=losses.device) for name in terms]).float()
        # By hand and not by autograd: neither a loss scale nor DeepSpeed's or DDP's hooks are in it.
        self._gradient[present] += uncertainty_gradient(losses.detach(), variances, fixed)
        return uncertainty_loss(losses, variances, fixed)

    def training_step(
        self, trainer: Trainer, model: nn.Module, inputs: dict[str, Any], plain: Callable[[], Tensor]
    ) -> Tensor:
        """See `Balancer.training_step`."""
        loss = plain()
        if trainer.accelerator.sync_gradients:
            self._update(trainer.current_gradient_accumulation_steps)
        return loss

    def _update(self, micro_batches: int) -> None:
        gradient = self._mean(self._gradient / micro_batches)
        # While fp16 finds its loss scale, losses may overflow.
        self.log_variances.grad = torch.nan_to_num(gradient, nan=0.0, posinf=0.0, neginf=0.0)
        self._optimizer.step()
        self._gradient = torch.zeros_like(self._gradient)

    def logs(self) -> dict[str, float]:
        """See `Balancer.logs`; weight of the recipe times `exp(-s)`."""
        factors = torch.exp(-self.log_variances.detach()).tolist()
        return {name: self._weights.get(name, 0.0) * factor for name, factor in zip(self.names, factors, strict=True)}

    def state(self) -> dict[str, Tensor]:
        """See `Balancer.state`."""
        moments = self._optimizer.state.get(self.log_variances, {})
        empty = torch.zeros_like(self.log_variances.detach())
        return {
            "log_variances": self.log_variances.detach(),
            "step": moments.get("step", torch.tensor(0.0)),
            "exp_avg": moments.get("exp_avg", empty),
            "exp_avg_sq": moments.get("exp_avg_sq", empty.clone()),
        }

    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """See `Balancer.load_state`."""
        device = self.log_variances.device
        with torch.no_grad():
            self.log_variances.copy_(state["log_variances"])
        moments = {name: state[name].to(device) for name in ("exp_avg", "exp_avg_sq")}
        self._optimizer.state[self.log_variances] = {"step": state["step"], **moments}


def build_balancer(trainer: Trainer, stage: Any, names: Sequence[str]) -> Balancer | None:
    """Return what a stage's `loss_weighting` asks for; None for `fixed`.

    Args:
        trainer: its trainer, with `args` and `accelerator`.
        stage: the stage.
        names: its loss terms, those of its phases too.

    Raises:
        RecipeError: a single loss term; PCGrad or GradNorm under DeepSpeed or FSDP.
    """
    kinds: dict[str, type[Balancer]] = {kind.kind: kind for kind in (Uncertainty, GradNorm, PCGrad)}
    if stage.loss_weighting not in kinds:
        return None
    what = f"stage '{stage.name}': loss_weighting: {stage.loss_weighting}"
    if len(names) < 2:
        raise RecipeError(f"{what} balances loss terms against each other, and there is one", got=list(names))
    if stage.loss_weighting != Uncertainty.kind:
        refuse_set_up(trainer, what)
    return kinds[stage.loss_weighting](names, trainer.accelerator, trainer.args.seed)

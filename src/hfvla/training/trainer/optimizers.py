"""transformers' optimizers on the parameter groups of a stage: one for each entry that trains, by phase and decay."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from torch import nn

from hfvla.errors import RecipeError

if TYPE_CHECKING:
    from transformers import Trainer

__all__ = ["stage_optimizer"]

_OWN_GROUPS = ("params", "model", "optimizer_dict")
"""What transformers passes to optimizers that choose their parameters themselves: GaLore, APOLLO, LOMO."""


@contextmanager
def stage_optimizer(trainer: Trainer, model: nn.Module, groups: Sequence[dict[str, Any]]) -> Iterator[None]:
    """While it lasts, `Trainer.create_optimizer` builds the optimizer of `args.optim` on these groups.

    Args:
        trainer: the trainer.
        model: what is optimised.
        groups: parameter groups as torch takes them.

    Raises:
        RecipeError: an optimizer that chooses its parameters itself: frozen parts would train, or parts at another
            learning rate than theirs.
    """
    given = trainer.optimizer_cls_and_kwargs
    kind, settings = given or trainer.get_optimizer_cls_and_kwargs(trainer.args, model)
    if (
        not isinstance(kind, type)
        or any(name in settings for name in _OWN_GROUPS)
        or trainer.args.optim_target_modules
    ):
        raise RecipeError(
            "this optimizer chooses its parameters itself, and a stage has its own: by entry, phase and decay",
            where=f"stage '{trainer.stage.name}'",
            got=f"args.optim {str(trainer.args.optim.value)!r}",
            expected="adamw_torch, adamw_8bit, adafactor, sgd or another that takes parameter groups",
            fix="Choose one of those, and leave optim_target_modules out; for low memory, adamw_8bit or lora.",
        )
    trainer.optimizer_cls_and_kwargs = (kind, {**settings, "params": list(groups)})  # it takes them from there
    try:
        yield
    finally:
        trainer.optimizer_cls_and_kwargs = given

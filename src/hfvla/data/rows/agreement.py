"""What a processor and a config both know must be the same."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from hfvla.errors import CheckpointError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, ProcessorMixin

__all__ = ["check_agreement"]


def check_agreement(processor: ProcessorMixin, config: PreTrainedConfig, names: Sequence[str], where: str) -> None:
    """Compare attributes of a processor with those of a config.

    Args:
        processor: of a checkpoint.
        config: of the model.
        names: attributes that both have.
        where: who asks, for the error.

    Raises:
        CheckpointError: one of them differs.
    """
    for name in names:
        if getattr(processor, name) != getattr(config, name):
            raise CheckpointError(
                f"processor and config disagree about {name}",
                where=where,
                got=getattr(config, name),
                expected=getattr(processor, name),
                fix=f"{name} is decided where the model is built, and kept from then on.",
            )

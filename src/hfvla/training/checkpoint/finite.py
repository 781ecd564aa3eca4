"""Weights that are no numbers are no checkpoint."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor

from hfvla.errors import CheckpointError

__all__ = ["refuse_nonfinite"]

_SHOWN = 4


def refuse_nonfinite(tensors: Mapping[str, Tensor], folder: str | Path) -> None:
    """Refuse weights that are no numbers.

    Args:
        tensors: trained weights by name; of those that FSDP2 splits, this process looks at its own part.
        folder: where they are saved.

    Raises:
        CheckpointError: one of them has NaN or infinity in it.
    """
    parts = {name: value.to_local() if hasattr(value, "to_local") else value for name, value in tensors.items()}
    wrong = [name for name, value in parts.items() if value.is_floating_point() and not value.isfinite().all()]
    if wrong:
        more = f" and {len(wrong) - _SHOWN} more" if len(wrong) > _SHOWN else ""
        raise CheckpointError(
            "trained weights are no numbers",
            where=str(folder),
            got=f"NaN or infinity in {', '.join(wrong[:_SHOWN])}{more}",
            fix="Do not use it. Go on from an earlier checkpoint, with a lower learning rate or args.max_grad_norm.",
        )

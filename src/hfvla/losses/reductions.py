"""What a loss is a mean over; importable without torch, as configs need it."""

from __future__ import annotations

from hfvla.errors import CheckpointError, did_you_mean

__all__ = ["TEXT_REDUCTIONS", "check_text_reduction"]

TEXT_REDUCTIONS: tuple[str, ...] = ("sample", "token")
"""A loss on text is a mean over samples of the mean over each one's tokens ("sample"), so that a long answer counts as
much as a short one; or over all tokens alike ("token"), as transformers and TRL train."""


def check_text_reduction(value: str, where: str) -> None:
    """Raise a CheckpointError that names `where`, unless the value is one of `TEXT_REDUCTIONS`."""
    if value not in TEXT_REDUCTIONS:
        raise CheckpointError(
            "unknown text_loss_reduction",
            where=where,
            got=value,
            expected=" or ".join(map(repr, TEXT_REDUCTIONS)),
            fix=did_you_mean(value, TEXT_REDUCTIONS),
        )

"""A policy's model from a checkpoint."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from hfvla.errors import HfvlaError
from hfvla.serve.policy.runner import can_act

__all__ = ["PretrainedPolicy", "load_acting_model"]


def load_acting_model(checkpoint: str | os.PathLike[str], device: str | None = None) -> tuple[Any, Any]:
    """Load model and processor of a family that predicts actions.

    Args:
        checkpoint: folder, or a hub id.
        device: torch device; a GPU if there is one when not given.

    Raises:
        CheckpointError: it cannot be loaded.
        HfvlaError: its family predicts no actions; said before its weights are read.
    """
    from hfvla.nn.devices import checked_device
    from hfvla.registry import family_of_checkpoint, load_checkpoint

    spec = family_of_checkpoint(Path(checkpoint) if isinstance(checkpoint, os.PathLike) else checkpoint)
    if not can_act(spec.load("model")):
        raise HfvlaError(
            "this family predicts no actions", where=str(checkpoint), got=spec.name, expected="a family of policies",
            fix="Ask it with `hfvla predict`.",
        )  # fmt: skip
    place = checked_device(device)
    _, model, processor = load_checkpoint(Path(checkpoint) if isinstance(checkpoint, os.PathLike) else checkpoint)
    return model.to(place), processor


class PretrainedPolicy:
    """Gives a policy class `from_pretrained`."""

    @classmethod
    def from_pretrained(
        cls, checkpoint: str | os.PathLike[str], options: Any = None, *, device: str | None = None, **arguments: Any
    ) -> Any:
        """Build the policy on a saved checkpoint.

        Args:
            checkpoint: folder, or a hub id.
            options: of the policy.
            device: torch device; a GPU if there is one when not given.
            **arguments: further arguments of the class.

        Raises:
            CheckpointError: it cannot be loaded.
            HfvlaError: its family predicts no actions, or an option does not fit.
        """
        model, processor = load_acting_model(checkpoint, device)
        return cls(model, processor, options, **arguments)  # type: ignore[call-arg]

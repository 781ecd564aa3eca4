"""What a policy refuses, and why it stops a robot."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from hfvla.errors import HfvlaError

__all__ = ["PolicyConnectionError", "PolicyServerError", "PolicyStopped", "ProtocolError"]


class PolicyStopped(HfvlaError):  # noqa: N818 - a stop is a decision, not a fault
    """The policy gives no action, and gives none until it is reset.

    Args:
        what: the reason, one clause.
        safe_action: [A], what the user named as safe to send in place of an action; None where nothing was named.
        **details: see `HfvlaError`.
    """

    def __init__(self, what: str, *, safe_action: Sequence[float] | np.ndarray | None = None, **details: Any) -> None:
        self.safe_action = None if safe_action is None else np.asarray(safe_action)
        super().__init__(what, **details)


class ProtocolError(HfvlaError):
    """A message between policy client and server is not what the protocol says."""


class PolicyConnectionError(HfvlaError):
    """The policy server cannot be reached, did not answer in time, or is gone; no action is known."""


class PolicyServerError(HfvlaError):
    """The policy failed on the server with an error that is none of hfvla's own."""

"""How a model's `generate` is told to write."""

from __future__ import annotations

from typing import Any

__all__ = ["sampling"]

_LEAST = 1e-3


def sampling(temperature: float) -> dict[str, Any]:
    """Return the arguments of `generate` for a temperature: 0 takes the likeliest token each time, above 0 draws.

    Below a thousandth the likeliest token is certain as well, and logits divided by less overflow.
    """
    return {"do_sample": True, "temperature": float(temperature)} if temperature >= _LEAST else {"do_sample": False}

"""How a model's `generate` is told to write."""

from __future__ import annotations

from typing import Any

__all__ = ["sampling"]


def sampling(temperature: float) -> dict[str, Any]:
    """Return the arguments of `generate` for a temperature: 0 takes the likeliest token each time, above 0 draws."""
    return {"do_sample": True, "temperature": float(temperature)} if temperature > 0 else {"do_sample": False}

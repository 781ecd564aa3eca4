"""Random streams of processes that train together: equal while a model is built, different while it trains."""

from __future__ import annotations

from typing import Any

from hfvla.data.rows.epoch import row_seed

__all__ = ["join_streams", "part_streams"]

_PROCESSES = 2  # beside the epochs of `row_seed`, with which a process has nothing in common
_SEED_BITS = 32  # numpy takes no more


def part_streams(args: Any) -> None:
    """Give every process but the first a stream of its own, for dropout and whatever else a forward pass draws.

    Called when training begins, after the model is wrapped; a resumed run then loads the streams of its checkpoint.
    One process, and the first of several, keep the stream they have.
    """
    if args.process_index:
        _seed(row_seed(args.seed, _PROCESSES, args.process_index) & (1 << _SEED_BITS) - 1)


def join_streams(args: Any) -> None:
    """Make the streams of several processes equal again when training is over: they build the next model alike."""
    if args.world_size > 1:
        _seed(args.seed)


def _seed(seed: int) -> None:
    from transformers import set_seed

    set_seed(seed)

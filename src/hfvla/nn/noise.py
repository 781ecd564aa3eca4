"""Random numbers of a training step that belong to rows, not to the batch or the process that holds them."""

from __future__ import annotations

import hashlib
import math

import torch
from torch import Tensor

__all__ = ["GivenNoise", "RowGenerator", "draw_normal", "draw_uniform"]

_GOLDEN = -0x61C8864680B583EB  # 2^64 / golden ratio, as a signed number: the increment of SplitMix64
_FIRST, _SECOND = -0x40A7B892E31B1A47, -0x6B2FB644ECCEEE15  # its two multipliers
_FLOAT_BITS, _DOUBLE_BITS = 24, 53


class RowGenerator:
    """Numbers that are a function of (seed of the row, name of the stream, position), and of nothing else.

    A batch of 8 on one process, 8 batches of 1 and two processes with 4 each draw the same for the same row. Nothing
    is counted: drawing a stream twice gives the same numbers twice (a pass that is computed again sees what it saw),
    so what must be independent has streams of its own.

    Args:
        seeds (`Tensor`): [B] long, one a row; see `hfvla.data.rows.epoch.draw_seed`.
    """

    def __init__(self, seeds: Tensor) -> None:
        if seeds.ndim != 1 or seeds.is_floating_point():
            raise ValueError(f"RowGenerator: seeds {seeds.dtype} {tuple(seeds.shape)}; expected long [B]")
        self.seeds = seeds.long()

    def uniform(self, shape: tuple[int, ...], stream: str) -> Tensor:
        """Return float32 numbers in [0, 1) of `shape`, [B, ...], on the device of the seeds."""
        self._check(shape)
        return self.uniform_at(self._positions(shape, 1, 0), stream)

    def uniform_at(self, positions: Tensor, stream: str) -> Tensor:
        """Return float32 numbers in [0, 1), one for each position of a row.

        Args:
            positions (`Tensor`): [B, ...] long; equal positions of a row get equal numbers, e.g. a word that padding
                moves.
            stream (`str`): name of the stream.
        """
        bits = self._bits(positions, stream) >> (64 - _FLOAT_BITS) & (1 << _FLOAT_BITS) - 1
        return bits.to(torch.float32) * 2.0**-_FLOAT_BITS

    def normal(self, shape: tuple[int, ...], stream: str) -> Tensor:
        """Return standard normal float32 numbers of `shape`, [B, ...], on the device of the seeds (Box-Muller)."""
        self._check(shape)
        first, second = (
            (self._bits(self._positions(shape, 2, odd), stream) >> (64 - _DOUBLE_BITS) & (1 << _DOUBLE_BITS) - 1)
            .double()
            .mul(2.0**-_DOUBLE_BITS)
            for odd in (0, 1)
        )
        return ((-2.0 * torch.log1p(-first)).sqrt() * (2.0 * math.pi * second).cos()).float()

    def generators(self, stream: str) -> list[torch.Generator]:
        """Return a generator of torch's for each row, on the CPU, for a library that takes a list of them."""
        drawn = self._bits(torch.zeros_like(self.seeds), stream).tolist()
        return [torch.Generator().manual_seed(number) for number in drawn]

    def _check(self, shape: tuple[int, ...]) -> None:
        if not shape or shape[0] != len(self.seeds):
            raise ValueError(f"RowGenerator: shape {tuple(shape)} for the seeds of {len(self.seeds)} rows")

    def _positions(self, shape: tuple[int, ...], step: int, start: int) -> Tensor:
        count = math.prod(shape[1:])
        return torch.arange(start, start + step * count, step, device=self.seeds.device).view(shape[1:])[None]

    def _bits(self, positions: Tensor, stream: str) -> Tensor:
        """Return 64 random bits for each position, as signed numbers."""
        name = int.from_bytes(hashlib.blake2b(stream.encode(), digest_size=8).digest(), "little", signed=True)
        keys = _mix(_mix(self.seeds + _GOLDEN) ^ name)
        keys = keys.view(-1, *[1] * (positions.ndim - 1))
        return _mix(keys + (positions + 1) * _GOLDEN)


class GivenNoise(RowGenerator):
    """Noise that is there already, e.g. the input of an exported graph.

    Args:
        noise (`Tensor`): what `normal` returns; the first dimension are the rows.
    """

    def __init__(self, noise: Tensor) -> None:
        self.noise = noise

    def normal(self, shape: tuple[int, ...], stream: str) -> Tensor:
        """Return the noise."""
        return self.noise

    def generators(self, stream: str) -> list[torch.Generator]:
        """Return none: a sampler without noise on its way asks for none."""
        return []


def _mix(value: Tensor) -> Tensor:
    """SplitMix64's finaliser (Steele et al. 2014); products wrap around, and shifts bring in zeros."""
    value = (value ^ (value >> 30 & (1 << 34) - 1)) * _FIRST
    value = (value ^ (value >> 27 & (1 << 37) - 1)) * _SECOND
    return value ^ (value >> 31 & (1 << 33) - 1)


def draw_normal(
    shape: tuple[int, ...], like: Tensor, generator: torch.Generator | RowGenerator | None, stream: str = "noise"
) -> Tensor:
    """Standard normal float32 numbers on the device of `like`, drawn where the generator lives: same on any device.

    Args:
        shape: of the result; its first dimension are the rows.
        like: tells the device.
        generator: torch's own stream when None, which is another one on each process.
        stream: of a `RowGenerator`; a name of its own for everything that a step draws.
    """
    if isinstance(generator, RowGenerator):
        return generator.normal(shape, stream).to(like.device)
    device = like.device if generator is None else generator.device
    return torch.randn(shape, generator=generator, device=device).to(like.device)


def draw_uniform(
    shape: tuple[int, ...], like: Tensor, generator: torch.Generator | RowGenerator | None, stream: str = "uniform"
) -> Tensor:
    """Uniform float32 numbers in [0, 1), as `draw_normal`."""
    if isinstance(generator, RowGenerator):
        return generator.uniform(shape, stream).to(like.device)
    device = like.device if generator is None else generator.device
    return torch.rand(shape, generator=generator, device=device).to(like.device)

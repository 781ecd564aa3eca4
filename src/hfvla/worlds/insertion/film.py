"""A film of episodes: pictures above, the force of each step below."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hfvla.errors import DataError
from hfvla.worlds.insertion.physics import CONTROL_HZ
from hfvla.worlds.insertion.rollout import Rollout
from hfvla.worlds.road.encode import write_mp4

__all__ = ["film_frames", "write_film"]

_TRACE_HEIGHT, _BORDER, _SCALE, _COLUMNS, _HOLD_S = 40, 4, 2, 3, 0.6
_FULL_SCALE_N = 120.0
_GREEN, _RED, _GREY = (60, 180, 90), (210, 60, 50), (120, 120, 120)


def write_film(path: str | os.PathLike[str], rollouts: Sequence[Rollout], fps: int = CONTROL_HZ) -> Path:
    """Write the episodes that have frames as one mp4, side by side, at most three in a row.

    Under each picture runs the largest force of every step, 0 to 120 N; the frame turns green when the peg is in, red
    when the episode has failed.

    Args:
        path: of the file.
        rollouts: from `run_episodes(..., record_frames_for=n)`.
        fps: frames a second.

    Raises:
        DataError: no episode has frames, or the folder cannot be written.
        MissingExtraError: PyAV is not installed.
    """
    target = Path(path)
    shown = [one for one in rollouts if one.frames]
    if not shown:
        raise DataError("no episode has frames", where=str(target), fix="Run it with record_frames_for=3.")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_mp4(target, film_frames(shown, fps), fps)
    except OSError as error:
        raise DataError("the film cannot be written", where=str(target), got=error.strerror or str(error)) from error
    return target


def film_frames(rollouts: Sequence[Rollout], fps: int = CONTROL_HZ) -> list[np.ndarray]:
    """Return the film's frames, [H, W, 3] uint8; episodes that are over stand still until the last one is."""
    length = max(len(one.frames) for one in rollouts) + round(_HOLD_S * fps)
    columns = min(_COLUMNS, len(rollouts))
    frames = []
    for moment in range(length):
        tiles = [_tile(one, min(moment, len(one.frames) - 1)) for one in rollouts]
        tiles += [np.zeros_like(tiles[0])] * (-len(tiles) % columns)
        rows = [np.concatenate(tiles[first : first + columns], axis=1) for first in range(0, len(tiles), columns)]
        frames.append(np.concatenate(rows, axis=0))
    return frames


def _tile(rollout: Rollout, moment: int) -> np.ndarray:
    """Draw one episode at one moment."""
    picture = rollout.frames[moment].repeat(_SCALE, axis=0).repeat(_SCALE, axis=1)
    tile = np.concatenate([picture, _trace(rollout, moment, picture.shape[1])], axis=0)
    over = moment == len(rollout.frames) - 1
    colour = (_GREEN if rollout.success else _RED) if over else _GREY
    framed = np.empty((tile.shape[0] + 2 * _BORDER, tile.shape[1] + 2 * _BORDER, 3), np.uint8)
    framed[:] = colour
    framed[_BORDER:-_BORDER, _BORDER:-_BORDER] = tile
    return framed


def _trace(rollout: Rollout, moment: int, width: int) -> np.ndarray:
    """Draw the forces so far as a filled curve over the episode's whole length."""
    canvas = np.full((_TRACE_HEIGHT, width, 3), 245, np.uint8)
    steps = np.minimum(np.arange(width) * len(rollout.frames) // width, len(rollout.frames) - 1)
    heights = np.clip(np.array(rollout.forces_n)[steps] / _FULL_SCALE_N, 0, 1) * (_TRACE_HEIGHT - 1)
    rows = np.arange(_TRACE_HEIGHT)[:, None]
    filled = (rows >= _TRACE_HEIGHT - np.ceil(heights)[None]) & (steps <= moment)[None]
    canvas[filled] = (200, 90, 40)
    canvas[:, steps == moment] = canvas[:, steps == moment] // 2
    return canvas

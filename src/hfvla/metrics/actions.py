"""Scores of action chunks in physical units, open loop, and the two baselines that any policy must beat.

Shapes: N chunks, H horizon steps, A action channels; a mask [N, H] is True at valid steps. What stands at masked steps
has no influence, NaN included.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

__all__ = ["action_scores", "hold_last", "mean_action", "per_step_errors", "skill"]


def action_scores(
    predicted: np.ndarray, target: np.ndarray, mask: np.ndarray, names: Sequence[str] | None = None
) -> dict[str, float]:
    """Score chunks against what was done.

    Args:
        predicted: [N, H, A], in physical units.
        target: [N, H, A], in the same units.
        mask: [N, H] bool.
        names: A names of the channels, e.g. "x_mm"; their numbers when not given.

    Returns:
        `dict`: `mse` and `mae` over all valid entries, `first_mse` and `first_mae` over first steps, `mse/<name>`,
        `mae/<name>`, `first_mse/<name>`, `first_mae/<name>` and `correlation/<name>` a channel, `correlation` (mean
        over channels that have one), `steps` (valid ones), `chunks`. The means over channels mix units where these
        differ. Pearson's correlation is left out where predictions or targets do not vary, and the first-step scores
        where no first step is valid.

    Raises:
        ValueError: shapes differ, no step is valid, or a valid entry is not finite.
    """
    predicted, target, mask = _checked(predicted, target, mask)
    names = [str(number) for number in range(target.shape[2])] if names is None else list(names)
    if len(names) != target.shape[2]:
        raise ValueError(f"{len(names)} names {names} for {target.shape[2]} action channels")
    scores = _errors("", predicted[mask] - target[mask], names)
    first = mask[:, 0]
    if first.any():
        scores |= _errors("first_", (predicted - target)[first, 0], names)
    found = {
        f"correlation/{name}": value
        for channel, name in enumerate(names)
        if (value := _correlation(predicted[mask][:, channel], target[mask][:, channel])) is not None
    }
    if found:
        scores |= {"correlation": float(np.mean(list(found.values()))), **found}
    return scores | {"steps": float(mask.sum()), "chunks": float(len(mask))}


def per_step_errors(predicted: np.ndarray, target: np.ndarray, mask: np.ndarray) -> dict[str, np.ndarray]:
    """Error by step of the horizon.

    Args:
        predicted: [N, H, A].
        target: [N, H, A].
        mask: [N, H] bool.

    Returns:
        `dict`: `mse` and `mae` [H], `mse_by_channel` and `mae_by_channel` [H, A], `count` [H] valid chunks. NaN at
        steps where no chunk is valid.

    Raises:
        ValueError: see `action_scores`.
    """
    predicted, target, mask = _checked(predicted, target, mask)
    difference = predicted - target  # 0 where masked
    count = mask.sum(0)
    divisor = np.where(count, count, np.nan)[:, None]  # [H, 1]
    squared, absolute = (difference**2).sum(0) / divisor, np.abs(difference).sum(0) / divisor
    return {
        "mse": squared.mean(1),
        "mae": absolute.mean(1),
        "mse_by_channel": squared,
        "mae_by_channel": absolute,
        "count": count,
    }


def hold_last(last_actions: np.ndarray, horizon: int) -> np.ndarray:
    """Baseline: repeat the action before the chunk, [N, A], over the horizon; [N, H, A].

    For absolute targets this is standing still, for deltas going on at the same pace.
    """
    last_actions = np.asarray(last_actions, dtype=np.float64)
    if last_actions.ndim != 2:
        raise ValueError(f"hold_last: last actions {last_actions.shape}; expected [N, A]")
    return np.repeat(last_actions[:, None], horizon, axis=1)


def mean_action(mean: np.ndarray, count: int, horizon: int) -> np.ndarray:
    """Baseline: the mean action of the training split, [A], everywhere; [N, H, A]."""
    mean = np.asarray(mean, dtype=np.float64)
    if mean.ndim != 1:
        raise ValueError(f"mean_action: mean {mean.shape}; expected [A]")
    return np.tile(mean, (count, horizon, 1))


def skill(mse: float, baseline_mse: float) -> float:
    """Share of a baseline's squared error that is gone: 1 is perfect, 0 no better, negative worse.

    Raises:
        ValueError: the baseline's error is not positive.
    """
    if not baseline_mse > 0:
        raise ValueError(f"skill against a baseline with error {baseline_mse} is undefined")
    return 1.0 - mse / baseline_mse


def _errors(prefix: str, difference: np.ndarray, names: Sequence[str]) -> dict[str, float]:
    squared, absolute = (difference**2).mean(0), np.abs(difference).mean(0)  # [A]
    scores = {f"{prefix}mse": float(squared.mean()), f"{prefix}mae": float(absolute.mean())}
    scores |= {f"{prefix}mse/{name}": float(value) for name, value in zip(names, squared, strict=True)}
    return scores | {f"{prefix}mae/{name}": float(value) for name, value in zip(names, absolute, strict=True)}


def _correlation(first: np.ndarray, second: np.ndarray) -> float | None:
    # Against rounding: the mean of equal numbers is not always that number.
    if any(np.ptp(values) <= 1e-12 * max(1.0, np.abs(values).max()) for values in (first, second)):
        return None
    return float(np.corrcoef(first, second)[0, 1])


def _checked(predicted: np.ndarray, target: np.ndarray, mask: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return both arrays as float64 with 0 where masked, and the mask as bool."""
    predicted, target = np.asarray(predicted, dtype=np.float64), np.asarray(target, dtype=np.float64)
    mask = np.asarray(mask, dtype=bool)
    if predicted.shape != target.shape or target.ndim != 3 or mask.shape != target.shape[:2]:
        raise ValueError(
            f"actions {predicted.shape} and {target.shape} with mask {mask.shape}; expected [N, H, A] twice and [N, H]"
        )
    if not mask.any():
        raise ValueError(f"no valid step in {len(mask)} chunks")
    for name, values in (("predicted", predicted), ("target", target)):
        bad = np.argwhere(~np.isfinite(values) & mask[..., None])
        if len(bad):
            chunk, step, channel = bad[0]
            raise ValueError(f"{name} action of chunk {chunk}, step {step}, channel {channel} is not finite")
    return np.where(mask[..., None], predicted, 0.0), np.where(mask[..., None], target, 0.0), mask

"""What a LeRobot data set's meta/ says about a model: cameras, state, action, rate and sensor."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from hfvla.errors import DataError, RecipeError

__all__ = ["config_from_data"]

logger = logging.getLogger(__name__)

_CAMERAS = "observation.images."
_SOURCE = "lerobot"
_ASSUMED_STATE = 7


def config_from_data(options: Mapping[str, Any], sources: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return values of the config that the training data decides, for `model.options.from_data`.

    Args:
        options: the recipe's `model.options`.
        sources: name and options of each training source.

    Returns:
        `dict`: "views", "state_dim", "action" and "sensor" (None without one); {} where nothing is asked for. Where
            the data are not here, a state is assumed, and all else is the config's default: enough for a plan.

    Raises:
        RecipeError: no source has such facts, or two sources have other ones.
        DataError: meta/ is broken, or a feature is not there.
    """
    if not options.get("from_data"):
        return {}
    found = [(given.path, _facts(given)) for name, given in sources if name == _SOURCE and _is_here(given)]
    if not any(name == _SOURCE for name, _ in sources):
        raise RecipeError(
            "from_data: only LeRobot data sets say what they hold (meta/info.json)", where="model.options",
            got=", ".join(name for name, _ in sources) or "no source", fix="Write views, state_dim and action out.",
        )  # fmt: skip
    for path, facts in found[1:]:
        for key, value in facts.items():
            if value != found[0][1][key]:
                raise RecipeError(
                    f"from_data: the sources differ in {key}", where="model.options", got=f"{value} in {path}",
                    expected=f"{found[0][1][key]}, as in {found[0][0]}", fix=f"Write model.config.{key} out.",
                )  # fmt: skip
    if not found:
        logger.info("from_data: no meta/ at %s; a state of %d numbers is assumed", sources[0][1].path, _ASSUMED_STATE)
    return found[0][1] if found else {"state_dim": _ASSUMED_STATE}


def _is_here(options: Any) -> bool:
    return (Path(options.path).expanduser() / "meta").is_dir()


def _facts(options: Any) -> dict[str, Any]:
    from hfvla.data.sources.lerobot.info import load_info

    root = Path(options.path).expanduser()
    info = load_info(root)
    for name in (*options.state, options.action):
        if name not in info.features:
            raise DataError("no such feature", where=str(root), got=name, expected=", ".join(info.features))
    action = info.features[options.action]
    width = _width(action.shape)
    return {
        "views": _views(info.cameras, options.views),
        "state_dim": sum(_width(info.features[name].shape) for name in options.state),
        "action": {
            "dim": width,
            "horizon": options.horizon,
            "fps": info.fps,
            "names": _names(action.names, width),
        },
        "sensor": _sensor(root, info, options.sensor) if options.sensor is not None else None,
    }


def _width(shape: Sequence[int]) -> int:
    width = 1
    for size in shape:
        width *= size
    return width


def _views(cameras: Sequence[str], wanted: Sequence[str] | None) -> list[str]:
    return [name.removeprefix(_CAMERAS) for name in (cameras if wanted is None else wanted)]


def _names(found: Any, width: int) -> list[str] | None:
    """Return the channels' names: a list, or a list in a mapping ({"motors": [...]}); None where they do not fit."""
    while isinstance(found, Mapping) and len(found) == 1:
        found = next(iter(found.values()))
    good = isinstance(found, list) and len(found) == width and all(isinstance(name, str) for name in found)
    return list(found) if good else None


def _sensor(root: Path, info: Any, options: Any) -> dict[str, Any]:
    """Return channels, rate and points of a series: of a feature's shape, or of the first table beside the data."""
    names = None
    if options.name in info.features:
        feature = info.features[options.name]
        samples = feature.shape[0] if len(feature.shape) > 1 else 1
        channels, rate_hz = _width(feature.shape[1:] if len(feature.shape) > 1 else feature.shape), info.fps * samples
        names = _names(feature.names, channels)
    else:
        channels, rate_hz = _of_table(root, options.name)
    points = max(1, round(options.window_s * rate_hz))
    return {"channels": channels, "points": points, "rate_hz": rate_hz, "names": names}


def _of_table(root: Path, name: str) -> tuple[int, float]:
    """Return the channels of a series, and its rate: samples after the first by the time that they take."""
    import pyarrow.parquet as parquet

    from hfvla.data.sources.sensor_series import TIME_COLUMN, VALUE_COLUMN

    tables = sorted((root / "sensors" / name).glob("episode_*.parquet"))
    if not tables:
        raise DataError("no such sensor", where=str(root), got=name, expected="a feature, or a folder under sensors/")
    table = parquet.read_table(tables[0], columns=[TIME_COLUMN, VALUE_COLUMN])
    times_s = table[TIME_COLUMN].to_pylist()
    if len(times_s) < 2 or times_s[-1] <= times_s[0]:
        raise DataError(
            "the series is too short to know its rate", where=str(tables[0]), got=f"{len(times_s)} samples"
        )
    rate_hz = (len(times_s) - 1) / (times_s[-1] - times_s[0])
    return len(table[VALUE_COLUMN][0].as_py()), round(rate_hz, 1)

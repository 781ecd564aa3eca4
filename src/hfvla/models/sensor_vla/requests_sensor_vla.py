"""One prediction for the command line, and example rows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from hfvla.data.observation import Observation
from hfvla.data.samples_actions import FrameRef
from hfvla.data.sensor_loader import SensorSamples
from hfvla.errors import DataError

__all__ = ["fake_rows", "predict"]


def predict(model: Any, processor: Any, request: Mapping[str, Any]) -> dict[str, Any]:
    """Predict a chunk for {"task", "views": {name: picture file}, "state", "time_s", "sensor": {"times_s", "values"}}.

    Returns:
        {"actions": [H][A] in the robot's units, "names", "fps", "sensor": whether one was read}.

    Raises:
        DataError: something is missing or cannot be used.
        PredictionError: the model's actions are not finite.
    """
    missing = [name for name in ("task", "views") if not request.get(name)]
    if processor.state_dim and request.get("state") is None:
        missing.append("state")
    if missing:
        raise DataError("the request is not complete", got=f"no {missing[0]}", expected="task, views and state")
    names = list(request["views"])
    pixels = processor.frames.load([FrameRef(str(request["views"][name])) for name in names])
    given, sensor = request.get("sensor"), None
    if given:
        times_s = _numbers(given, "times_s", np.float64)
        sensor = SensorSamples(times_s, _numbers(given, "values", np.float32))
    now_s = request.get("time_s")
    if now_s is None:
        now_s = sensor.times_s[-1] if sensor is not None and sensor.times_s.size else 0.0
    time_s = float(_numbers({"time_s": now_s}, "time_s", np.float64))
    observation = Observation(
        views=dict(zip(names, pixels, strict=True)),
        state=_numbers({"state": request.get("state") or []}, "state", np.float32),
        task=str(request["task"]),
        time_s=time_s,
        sensor=sensor,
    )
    actions = model.predict_actions(processor, [observation])[0]
    return {
        "actions": actions.tolist(),
        "names": processor.action["names"],
        "fps": processor.fps,
        "sensor": sensor is not None and processor.sensor is not None,
    }


def _numbers(given: Any, name: str, dtype: Any) -> np.ndarray:
    """Return a part of the request as an array.

    Raises:
        DataError: it is missing, or not numbers.
    """
    if not isinstance(given, Mapping) or name not in given:
        raise DataError("the request is not complete", where="sensor", got=f"no {name}", expected="times_s and values")
    try:
        return np.asarray(given[name], dtype=dtype)
    except (TypeError, ValueError) as error:
        raise DataError("not numbers", where=f"{name} of the request", got=str(error)) from None


def fake_rows(n: int, seed: int = 0) -> Any:
    """Return `n` steps of small drawn episodes, every other step; some without a sensor."""
    from hfvla.data.synthetic.reaching import ReachingOptions, build_reaching

    steps = 4
    episodes = max(2, -(-n // steps))
    options = ReachingOptions(episodes=episodes, steps=steps, with_sensor=0.5)
    return build_reaching(options, seed=seed).dataset.shuffle(seed=seed).select(range(n))

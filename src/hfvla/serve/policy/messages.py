"""The messages between a robot and its policy server, version 1.

| from the robot | answer |
|---|---|
| `hello` protocol, client | `welcome` protocol, facts, max_message_bytes |
| `reset` id, seed | `reset` id |
| `plan` id, observation | `actions` id, actions, seconds |
| `ping` id | `pong` id, uptime_s, plans |

Any of them may be answered by `error` (id, error). Every answer carries the id of its question.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from hfvla.data.signals.observation import Observation
from hfvla.data.signals.sensor_loader import SensorSamples
from hfvla.errors import CheckpointError, DataError, HfvlaError, MissingExtraError
from hfvla.serve.policy.arrays import Jpeg
from hfvla.serve.policy.errors import PolicyServerError, PolicyStopped, ProtocolError
from hfvla.serve.policy.runner import PolicyFacts

__all__ = [
    "PROTOCOL",
    "error_from_message",
    "error_to_message",
    "facts_from_message",
    "facts_to_message",
    "observation_from_message",
    "observation_to_message",
    "required",
]

PROTOCOL = 1

_ERRORS: dict[str, type[HfvlaError]] = {
    kind.__name__: kind
    for kind in (
        HfvlaError, CheckpointError, DataError, MissingExtraError, PolicyServerError, PolicyStopped, ProtocolError,
    )
}  # fmt: skip


def required(message: Mapping[str, Any], key: str, kind: type | tuple[type, ...]) -> Any:
    """Return a value of a message.

    Raises:
        ProtocolError: it is missing or of another type.
    """
    value = message.get(key)
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        wanted = kind if isinstance(kind, tuple) else (kind,)
        raise ProtocolError(
            f"'{key}' of message '{message.get('type', '')}'",
            got=type(value).__name__, expected=" or ".join(one.__name__ for one in wanted),
        )  # fmt: skip
    return value


def observation_to_message(observation: Observation, jpeg_quality: int | None = None) -> dict[str, Any]:
    """Return an observation as plain values and arrays.

    Args:
        observation: with its sensor window.
        jpeg_quality: send pictures as JPEG of this quality; None: as they are.

    Raises:
        DataError: a view that is not [H, W, 3] uint8.
    """
    views: dict[str, Any] = {}
    for name, picture in observation.views.items():
        array = np.asarray(picture)
        if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
            raise DataError(
                "picture", where=f"view '{name}'", got=(str(array.dtype), array.shape), expected="uint8 [H, W, 3]"
            )
        views[name] = array if jpeg_quality is None else Jpeg(array, jpeg_quality)
    sensor = observation.sensor
    return {
        "views": views,
        "state": np.asarray(observation.state),
        "task": observation.task,
        "time_s": float(observation.time_s),
        "sensor": None if sensor is None else {"times_s": sensor.times_s, "values": sensor.values},
    }


def observation_from_message(message: Mapping[str, Any]) -> Observation:
    """Rebuild an observation.

    Raises:
        ProtocolError: a part is missing or of another type or shape.
    """
    views = required(message, "views", dict)
    for name, picture in views.items():
        if not isinstance(name, str) or not isinstance(picture, np.ndarray):
            got = (str(name)[:100], type(picture).__name__)
            raise ProtocolError("view of an observation", got=got, expected="a picture")
        if len(name) > 100:
            raise ProtocolError("name of a view", got=f"{len(name)} letters", expected="at most 100")
        if picture.dtype != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3:
            got = (str(picture.dtype), picture.shape)
            raise ProtocolError(
                "picture of an observation", where=f"view '{name}'", got=got, expected="uint8 [H, W, 3]"
            )
    state = required(message, "state", np.ndarray)
    if state.ndim != 1:
        raise ProtocolError("state of an observation", got=state.shape, expected="[S]")
    time_s = float(required(message, "time_s", (float, int)))
    if not math.isfinite(time_s):  # no comparison with it would find a sensor stale
        raise ProtocolError("time of an observation", got=time_s, expected="seconds")
    return Observation(
        views, state, required(message, "task", str), time_s,
        _sensor(message.get("sensor")),
    )  # fmt: skip


def _sensor(message: Any) -> SensorSamples | None:
    if message is None:
        return None
    if not isinstance(message, dict):
        raise ProtocolError("sensor of an observation", got=type(message).__name__, expected="a mapping or nothing")
    times_s, values = required(message, "times_s", np.ndarray), required(message, "values", np.ndarray)
    if times_s.dtype != np.float64 or times_s.ndim != 1 or values.ndim != 2 or len(times_s) != len(values):
        got = (str(times_s.dtype), times_s.shape, values.shape)
        raise ProtocolError("sensor of an observation", got=got, expected="float64 [N] and [N, C]")
    if not np.isfinite(times_s).all():
        raise ProtocolError("times of a sensor", got="one that is not finite", expected="seconds")
    return SensorSamples(times_s, values)


def facts_from_message(message: Mapping[str, Any]) -> PolicyFacts:
    """Rebuild the facts of a welcome.

    Raises:
        ProtocolError: one is missing or of another type.
    """
    views, optional = message.get("views"), {}
    if views is not None and not (isinstance(views, list) and all(isinstance(name, str) for name in views)):
        raise ProtocolError("'views' of a welcome", got=views, expected="names or nothing")
    for key, kind in (("state_size", int), ("max_sensor_age_s", (float, int))):
        optional[key] = None if message.get(key) is None else required(message, key, kind)
    return PolicyFacts(
        horizon=required(message, "horizon", int),
        action_dim=required(message, "action_dim", int),
        window_s=float(required(message, "window_s", (float, int))),
        fps=float(required(message, "fps", (float, int))),
        views=None if views is None else tuple(views),
        **optional,
    )


class _Shown(str):
    """Text that stands for a value that did not travel: its `repr` is the value's."""

    def __repr__(self) -> str:
        return str(self)


def _plain(value: object) -> Any:
    if value is None or isinstance(value, bool | str | float) or (type(value) is int and abs(value) < 2**63):
        return {"value": value}
    return {"shown": repr(value)[:2000]}


def _value(message: Any) -> Any:
    if not isinstance(message, dict):
        return None
    return _Shown(message["shown"]) if "shown" in message else message.get("value")


def error_to_message(error: Exception) -> dict[str, Any]:
    """Return an error with its fields; one that is not hfvla's own becomes a `PolicyServerError`."""
    if not isinstance(error, HfvlaError):
        what = f"the policy failed: {type(error).__name__}: {error}"
        error = PolicyServerError(what, where="server", fix="The server's log has the traceback.")
    kind = next((cls.__name__ for cls in type(error).__mro__ if cls.__name__ in _ERRORS), "HfvlaError")
    message: dict[str, Any] = {"class": kind, "what": error.what, "where": error.where, "fix": error.fix}
    message |= {"got": _plain(error.got), "expected": _plain(error.expected)}
    if isinstance(error, PolicyStopped):
        message["safe_action"] = error.safe_action
    if isinstance(error, MissingExtraError):
        message |= {"package": error.package, "extra": error.extra}
    return message


def error_from_message(message: Mapping[str, Any]) -> HfvlaError:
    """Rebuild an error with its class and fields; it is returned, not raised.

    Raises:
        ProtocolError: not an error message.
    """
    name = required(message, "class", str)
    if name not in _ERRORS:
        raise ProtocolError("class of an error", got=name, expected=", ".join(_ERRORS))
    kind = _ERRORS[name]
    error = kind.__new__(kind)
    for extra in ("safe_action", "package", "extra"):
        if extra in message:
            setattr(error, extra, message[extra])
    HfvlaError.__init__(
        error, required(message, "what", str), where=message.get("where"), got=_value(message.get("got")),
        expected=_value(message.get("expected")), fix=message.get("fix"),
    )  # fmt: skip
    if isinstance(error, PolicyStopped) and not isinstance(message.get("safe_action"), np.ndarray):
        error.safe_action = None
    return error


def facts_to_message(facts: PolicyFacts) -> dict[str, Any]:
    """Return the facts as plain values."""
    return dataclasses.asdict(facts)

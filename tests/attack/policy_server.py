"""Requests to a policy server, three in ten of them malformed, while a robot is at work; all drawn from a seed.

`attack_server(requests, seed)` does them and returns what happened; the test beside this file and
`benchmarks/attack.py` judge it.
"""

from __future__ import annotations

import contextlib
import http.client
import io
import logging
import random
import socket
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import msgpack
import numpy as np
from PIL import Image
from websockets.exceptions import WebSocketException
from websockets.sync.client import connect

from hfvla.data.signals.observation import Observation
from hfvla.data.signals.sensor_loader import SensorSamples
from hfvla.serve.policy import ChunkPolicy, PolicyOptions, PolicyServer, RemotePolicy, ServerLimits
from hfvla.serve.policy.arrays import pack, unpack

__all__ = ["MALFORMED_SHARE", "Outcome", "attack_server"]

MALFORMED_SHARE = 0.3
VIEWS = ("front", "wrist")


@dataclass
class Outcome:
    """What happened.

    Attributes:
        requests: sent in all.
        malformed: of them.
        answers: to malformed ones: the class of the error, "closed", or the type of the answer; counted.
        wrong: answers to the robot that were not what its policy gives.
        crashes: log records with a traceback, and errors that are none of the protocol's.
        threads: of the server, that were left in the end.
    """

    requests: int = 0
    malformed: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)
    threads: list[str] = field(default_factory=list)


class _Model:
    """Actions tell the state that they were made of."""

    def predict_actions(self, processor: Any, observations: Any, **_: Any) -> np.ndarray:
        chunk = np.empty((1, 8, 3), dtype=np.float32)
        chunk[:] = float(observations[0].state[0])
        return chunk


def _check(observation: Observation) -> None:
    from hfvla.errors import DataError

    if set(observation.views) != set(VIEWS) or observation.state.shape != (2,):
        raise DataError("observation", got=sorted(observation.views), expected=VIEWS)


def build_policy() -> ChunkPolicy:
    """Return a policy of no weights."""
    processor = SimpleNamespace(
        horizon=8, action_dim=3, window_s=0.1, fps=10.0, views=VIEWS, state_dim=2, check_observation=_check
    )
    return ChunkPolicy(_Model(), processor, PolicyOptions(n_action_steps=4))


def observe(state: float) -> Observation:
    """Return a valid observation."""
    views = {name: np.full((8, 12, 3), 7, dtype=np.uint8) for name in VIEWS}
    samples = SensorSamples(100.0 - np.arange(4, -1, -1) * 0.01, np.ones((5, 2), dtype=np.float32))
    return Observation(views, np.array([state, 0.0], dtype=np.float32), "insert", 100.0, samples)


def _jpeg(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (90, 10, 10)).save(file, "JPEG")
    return file.getvalue()


BOMB = _jpeg(6000, 6000)


def _plan(draw: random.Random) -> dict[str, Any]:
    views: dict[str, Any] = {name: np.zeros((4, 6, 3), np.uint8) for name in VIEWS}
    seen = {"views": views, "state": np.zeros(2, np.float32), "task": "go", "time_s": 100.0, "sensor": None}
    return {"type": "plan", "id": draw.randrange(10), "observation": seen}


VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 2**63 - 1, -(2**63), 2**64 - 1, 1e308, float("nan"), float("-inf"), "", "x" * 3000),
    *("\x00\n\x1b[31m", "\U0001f916", b"", b"\xff" * 50, [], [[]] * 20, {}, {"type": "plan"}, {1: 2}, {None: []}),
    *(np.zeros(0), np.zeros((2, 2, 2, 2)), np.full(3, np.nan), np.zeros((0, 3), np.uint8), np.ones(5, bool)),
    *(msgpack.ExtType(2, BOMB), msgpack.ExtType(2, BOMB[:2000]), msgpack.ExtType(2, _jpeg(9, 9))),
    *(msgpack.ExtType(1, b""), msgpack.ExtType(1, msgpack.packb(["<f8", [2**40], b""])), msgpack.ExtType(99, b"x")),
)


def _changed(message: Any, draw: random.Random) -> Any:
    """Return a message with one of its values, at any depth, taken away, renamed or replaced."""
    if not isinstance(message, dict) or not message or draw.random() < 0.15:
        return draw.choice(VALUES)
    message = dict(message)
    key = draw.choice(list(message))
    kind = draw.random()
    if kind < 0.15:
        del message[key]
    elif kind < 0.25:
        message[draw.choice(["", "x" * 300, 7, b"k"])] = message.pop(key)
    else:
        message[key] = _changed(message[key], draw)
    return message


def _bytes(message: Any) -> bytes:
    return pack(message) if isinstance(message, dict) else msgpack.packb(message, default=lambda value: repr(value))


def _damaged(data: bytes, draw: random.Random) -> bytes:
    """Return bytes that are cut, flipped, doubled, or others."""
    kind = draw.randrange(5)
    if kind == 0:
        return data[: draw.randrange(len(data) + 1)]
    if kind == 1:
        changed = bytearray(data)
        for _ in range(draw.randrange(1, 6)):
            changed[draw.randrange(len(changed))] = draw.randrange(256)
        return bytes(changed)
    if kind == 2:
        return data * 2
    if kind == 3:
        return b"\x91" * draw.randrange(1, 5000) + b"\xc0"
    return draw.randbytes(draw.randrange(400))


def _malformed(message: dict[str, Any], draw: random.Random) -> bytes:
    data = _bytes(_changed(message, draw) if draw.random() < 0.7 else message)
    return _damaged(data, draw) if draw.random() < 0.4 else data


def _ask(url: str, messages: list[bytes], result: Outcome, patience_s: float = 5.0) -> None:
    """Send messages on a connection of their own, and note the answer to the last."""
    try:
        with connect(url, compression=None, proxy=None, max_size=None, close_timeout=0.2) as connection:
            for data in messages:
                connection.send(data)
                answer = unpack(connection.recv(timeout=patience_s))
                if answer["type"] == "error":
                    break
        error = answer.get("error", {})
        result.answers[error.get("class") or answer["type"]] += 1
        if "the policy failed" in str(error.get("what")):
            result.crashes.append(str(error))
    except (WebSocketException, OSError):
        result.answers["closed"] += 1


def _garbage(server: PolicyServer, result: Outcome, draw: random.Random) -> None:
    """Send what is no websocket at all."""
    kind = draw.randrange(4)
    if kind == 0:
        line = http.client.HTTPConnection(server.host, server.port, timeout=5)
        with contextlib.suppress(OSError, http.client.HTTPException):
            line.request(draw.choice(["GET", "POST", "PUT"]), draw.choice(["/", "/healthz", "/../../etc", "/%00"]))
            line.getresponse().read()
        line.close()
    else:
        with contextlib.suppress(OSError), socket.create_connection((server.host, server.port), timeout=5) as line:
            line.sendall(
                b"" if kind == 1 else draw.randbytes(300) if kind == 2 else b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 40
            )
    result.answers["no websocket"] += 1


def attack_server(requests: int, seed: int) -> Outcome:
    """Send requests: a robot's valid ones, and malformed ones before and in sessions of others.

    Args:
        requests: in all.
        seed: of what is sent and in which order.

    Returns:
        `Outcome`: what happened; the robot's answers are checked one by one.
    """
    draw, result = random.Random(seed), Outcome()
    before = {thread.ident for thread in threading.enumerate()}
    log, handler = logging.getLogger("hfvla.serve"), _Tracebacks(result)
    log.addHandler(handler)
    limits = ServerLimits(penalty_s=0.0, hello_s=2.0, connections=32)
    try:
        with contextlib.ExitStack() as stack:
            busy, open_ = (stack.enter_context(_server(limits)) for _ in range(2))
            robot = stack.enter_context(RemotePolicy(busy.url, timeout_s=20.0))
            robot.reset(0)
            for number in range(requests):
                result.requests += 1
                if draw.random() >= MALFORMED_SHARE:
                    _work(robot, draw, number, result)
                    continue
                result.malformed += 1
                _hostile(draw)(busy, open_, result, draw)
            _work(robot, random.Random(0), requests, result)
            _ask(
                open_.url,
                [pack({"type": "hello", "protocol": 1}), pack({"type": "reset", "id": 1, "seed": 0})],
                result,
            )
    finally:
        log.removeHandler(handler)
    left = [thread for thread in threading.enumerate() if thread.ident not in before]
    for thread in left:
        thread.join(5.0)
    result.threads = [thread.name for thread in left if thread.is_alive() and thread is not threading.current_thread()]
    return result


def _server(limits: ServerLimits) -> PolicyServer:
    policy = build_policy()
    return PolicyServer(policy, policy.facts, port=0, busy_wait_s=0.0, limits=limits)


def _work(robot: RemotePolicy, draw: random.Random, number: int, result: Outcome) -> None:
    """One request of the robot at work."""
    try:
        kind = draw.random()
        if kind < 0.1:
            robot.ping()
        elif kind < 0.2:
            robot.reset(number)
        else:
            actions = robot.plan(observe(float(number)))
            if actions.shape != (4, 3) or not (actions == float(number)).all():
                result.wrong.append(f"request {number}: {actions}")
    except Exception as error:
        result.wrong.append(f"request {number}: {type(error).__name__}: {error}")


_Hostile = Callable[[PolicyServer, PolicyServer, Outcome, random.Random], None]


def _hostile(draw: random.Random) -> _Hostile:
    """Choose a way to be malformed."""
    hello, reset = {"type": "hello", "protocol": 1}, {"type": "reset", "id": 1, "seed": 0}

    def first_message(busy: PolicyServer, _: PolicyServer, result: Outcome, draw: random.Random) -> None:
        _ask(busy.url, [_malformed(hello, draw)], result)

    def large(busy: PolicyServer, _: PolicyServer, result: Outcome, draw: random.Random) -> None:
        _ask(busy.url, [b"\0" * draw.choice([5_000, 200_000, 2_000_000])], result)

    def second(busy: PolicyServer, _: PolicyServer, result: Outcome, draw: random.Random) -> None:
        _ask(busy.url, [pack(hello)], result)

    def session(_: PolicyServer, open_: PolicyServer, result: Outcome, draw: random.Random) -> None:
        message = draw.choice([_plan(draw), dict(reset), {"type": "ping", "id": 3}])
        _ask(open_.url, [pack(hello), pack(reset), _malformed(message, draw)], result)

    def garbage(busy: PolicyServer, _: PolicyServer, result: Outcome, draw: random.Random) -> None:
        _garbage(busy, result, draw)

    return draw.choices([first_message, large, second, session, garbage], [4, 1, 1, 8, 1])[0]


class _Tracebacks(logging.Handler):
    """Keeps log records that carry a traceback."""

    def __init__(self, result: Outcome) -> None:
        super().__init__()
        self.result = result

    def emit(self, record: logging.LogRecord) -> None:
        """Keep it."""
        if record.exc_info:
            self.result.crashes.append(f"{record.getMessage()}: {record.exc_info[1]!r}")

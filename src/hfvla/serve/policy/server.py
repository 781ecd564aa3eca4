"""A policy behind a websocket, for a robot on another machine.

One robot at a time: a policy keeps an episode's state, and two robots would share it. A second one is told that the
server is busy. The messages are those of `hfvla.serve.policy.messages`; `GET /healthz` answers without a session.
What a client may send and how long it may take is in `ServerLimits`. With a token, a client without it gets no further
than the opening handshake; with a certificate the connection is encrypted.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np

from hfvla.data.signals.observation import Policy
from hfvla.errors import HfvlaError, MissingExtraError
from hfvla.serve.policy.arrays import load_msgpack, pack, short, unpack
from hfvla.serve.policy.errors import PolicyServerError, ProtocolError
from hfvla.serve.policy.limits import (
    MAX_MESSAGE_BYTES,
    Doorway,
    ServerLimits,
    check_token,
    given_token,
    server_tls,
    warn_of_strangers,
)
from hfvla.serve.policy.messages import (
    PROTOCOL,
    error_to_message,
    facts_to_message,
    observation_from_message,
    required,
)
from hfvla.serve.policy.runner import PolicyFacts
from hfvla.serve.policy.watchdog import Watchdog

__all__ = ["DEFAULT_PORT", "MAX_MESSAGE_BYTES", "PolicyServer", "cut", "load_websockets"]

logger = logging.getLogger(__name__)

DEFAULT_PORT = 8765
_KEEPALIVE_S = 5.0  # a robot whose cable is pulled frees the server after two of these
_OPEN_TIMEOUT_S = 5.0
_SEEDS = range(-(2**63), 2**63)


def load_websockets(part: str) -> Any:
    """Import `websockets.sync.<part>`, without the websockets library's own log.

    Raises:
        MissingExtraError: it is not installed.
    """
    import importlib

    try:
        module = importlib.import_module(f"websockets.sync.{part}")
    except ImportError:
        raise MissingExtraError("websockets", "serve", "a policy on another machine") from None
    return module


class PolicyServer:
    """Serves one policy; a context manager that listens from its first line to its last.

    Args:
        policy: what answers; called from one thread at a time.
        facts: what a robot is told about it.
        host: address to listen on.
        port: 0 for any free one, see `port`.
        max_message_bytes: a larger message ends its connection; that of `limits` when None.
        busy_wait_s: seconds that a robot waits for the one before it to be gone.
        limits: what a client may ask.
        token: word that a client must know; that of the environment (`TOKEN_VARIABLE`) when None, else none.
        certificate: PEM file; connections are encrypted with it ("wss://").
        key: PEM file of the certificate's key, where it is not in the same file.

    Raises:
        HfvlaError: the address cannot be listened on, or token or certificate cannot be used.
        MissingExtraError: without the packages of the extra "serve".
    """

    def __init__(
        self,
        policy: Policy,
        facts: PolicyFacts,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        max_message_bytes: int | None = None,
        busy_wait_s: float = 1.0,
        limits: ServerLimits | None = None,
        token: str | None = None,
        certificate: str | Path | None = None,
        key: str | Path | None = None,
    ) -> None:
        self.limits = limits or ServerLimits()
        self.policy, self.facts = policy, facts
        self.max_message_bytes = max_message_bytes or self.limits.message_bytes
        self.clients, self.plans, self.busy_wait_s = 0, 0, busy_wait_s
        self._token, tls = given_token(token), server_tls(certificate, key)
        self._scheme, self._ending = "ws" if tls is None else "wss", threading.Event()
        self._planning = Watchdog(self.limits.plan_s, self._too_long)
        self._session = threading.Lock()
        self._connection: Any = None
        self._thread: threading.Thread | None = None
        self._started_s = time.monotonic()
        load_msgpack()
        server = load_websockets("server")
        try:
            door = Doorway.open(host, port, self.limits.connections)
        except (OSError, UnicodeError) as error:
            raise HfvlaError(
                f"cannot listen: {error}", where=f"{host}:{port}", fix="Choose another --port or --host."
            ) from error
        self._server = server.serve(
            self._handle, sock=door, ssl=tls, max_size=self.limits.hello_bytes, max_queue=1, compression=None,
            origins=[None], process_request=self._before_opening, open_timeout=_OPEN_TIMEOUT_S,
            ping_interval=_KEEPALIVE_S, ping_timeout=_KEEPALIVE_S, close_timeout=1.0, logger=_quiet_logger(),
        )  # fmt: skip
        self._door, self._server.handler = door, door.leaving(self._server.handler)
        self.host, self.port = host, int(self._server.socket.getsockname()[1])
        warn_of_strangers(host, self._token, tls is not None)

    @property
    def url(self) -> str:
        """Where clients on this machine connect to."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self._scheme}://{host}:{self.port}"

    def __enter__(self) -> PolicyServer:
        self._thread = threading.Thread(target=self._server.serve_forever, name="hfvla-policy-server", daemon=True)
        self._thread.start()
        self._planning.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the server has ended."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def close(self) -> None:
        """Stop listening and end the session; may be called again."""
        self._door.shut = True
        self._ending.set()
        self._planning.stop()
        connection = self._connection
        if connection is not None:
            connection.close(1001, "the policy server ends")
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        self._server.socket.close()

    def _before_opening(self, connection: Any, request: Any) -> Any:
        if request.path == "/healthz":
            busy = "busy" if self._session.locked() else "free"
            return connection.respond(HTTPStatus.OK, f"ok {busy}, {self.plans} plans\n")
        if not check_token(request.headers.get("Authorization"), self._token):
            logger.warning("robot %s refused: a wrong token, or none", _address(connection))
            self._ending.wait(self.limits.penalty_s)
            return connection.respond(HTTPStatus.UNAUTHORIZED, "The token is wrong, or missing.\n")
        return None

    def _handle(self, connection: Any) -> None:
        """One connection, in a thread of its own."""
        from websockets.exceptions import ConnectionClosed

        who, taken, orderly = _address(connection), False, False
        try:
            self._check_hello(connection)
            taken = self._session.acquire(timeout=self.busy_wait_s)
            orderly = not taken
            self._welcome(connection, taken)
            logger.info("robot %s connected", who)
            self.clients, orderly = self.clients + 1, True
            self._connection = connection
            self._serve(connection)
        except ConnectionClosed as error:
            logger.info("robot %s left: %s", who, error)
            if not orderly:
                cut(connection)  # else what a flood still sends is read to its end
        except HfvlaError as error:
            logger.warning("robot %s refused: %s", who, error)
            orderly = orderly and not isinstance(error, ProtocolError)
            self._refuse(connection, error)
        except Exception:
            logger.exception("the connection of robot %s failed", who)
            raise
        finally:
            if taken:
                self._connection = None
                self._session.release()
            if not orderly:
                self._ending.wait(self.limits.penalty_s)

    def _check_hello(self, connection: Any) -> None:
        try:
            hello = unpack(connection.recv(timeout=self.limits.hello_s), pictures=0)
        except TimeoutError:
            got = f"nothing in {self.limits.hello_s} s"
            raise ProtocolError("first message", got=got, expected="hello") from None
        if hello["type"] != "hello":
            raise ProtocolError("first message", got=hello["type"], expected="hello")
        spoken = hello.get("protocol")
        if type(spoken) is not int or spoken != PROTOCOL:
            raise ProtocolError(
                "protocol version", where="server", got=short(spoken), expected=PROTOCOL,
                fix="Install the same version of hfvla on robot and server.",
            )  # fmt: skip

    def _welcome(self, connection: Any, taken: bool) -> None:
        if not taken:
            raise PolicyServerError(
                "the server is busy with another robot", where=self.url, fix="Close the other client, then try again."
            )
        facts = facts_to_message(self.facts)
        for name in ("max_message_size", "max_size"):  # until here it was that of a hello; older versions name it so
            if hasattr(connection.protocol, name):
                setattr(connection.protocol, name, self.max_message_bytes)
        welcome = {"type": "welcome", "protocol": PROTOCOL, "max_message_bytes": self.max_message_bytes}
        connection.send(pack(welcome | {"facts": facts}))

    @staticmethod
    def _refuse(connection: Any, error: Exception) -> None:
        from websockets.exceptions import ConnectionClosed

        try:
            connection.send(pack({"type": "error", "id": None, "error": error_to_message(error)}))
            connection.close(1002, "refused")
        except ConnectionClosed:
            logger.info("it had left before it was told")

    def _serve(self, connection: Any) -> None:
        """Answer until the robot leaves; a malformed message ends the connection, an error of the policy does not."""
        ready, asked_s = False, time.monotonic()
        while True:
            message = self._next(connection, asked_s)
            number = required(message, "id", int)
            try:
                if message["type"] == "ping":
                    answer: dict[str, Any] = {
                        "type": "pong", "uptime_s": time.monotonic() - self._started_s, "plans": self.plans,
                    }  # fmt: skip
                elif message["type"] == "reset":
                    self.policy.reset(_seed(message))
                    ready, answer = True, {"type": "reset"}
                elif message["type"] == "plan":
                    answer = self._plan(message, ready)
                else:
                    raise ProtocolError("message", got=message["type"], expected="reset, plan or ping")
            except ProtocolError:
                raise
            except Exception as error:
                if not isinstance(error, HfvlaError):
                    logger.exception("the policy failed")
                    ready = False  # what it remembers of the episode may be half written
                answer = {"type": "error", "error": error_to_message(error)}
            connection.send(pack(answer | {"id": number}))
            if message["type"] != "ping":  # a client that only pings holds the robot as one that is silent
                asked_s = time.monotonic()

    def _next(self, connection: Any, asked_s: float) -> dict[str, Any]:
        """Return the next message of a session.

        Raises:
            PolicyServerError: nothing was asked for too long.
        """
        left_s = asked_s + self.limits.idle_s - time.monotonic()
        try:
            if left_s < 0:
                raise TimeoutError
            received = connection.recv(timeout=left_s)
        except TimeoutError:
            raise PolicyServerError(
                "the session was silent, and another robot may have the server now", where=self.url,
                got=f"no reset or plan in {self.limits.idle_s:g} s", fix="Call reset: it connects anew.",
            ) from None  # fmt: skip
        return unpack(received, pictures=self.limits.pictures, pixels=self.limits.pixels)

    def _too_long(self, late_s: float, number: int) -> None:
        """Tell the robot that its plan does not come; the session ends when the policy comes back."""
        connection = self._connection
        error = PolicyServerError(
            "the plan takes too long", where=self.url, got=f"{late_s:.1f} s so far",
            expected=f"at most {self.limits.plan_s:g} s", fix="Use fewer denoising steps or a faster device.",
        )  # fmt: skip
        logger.warning("%s", error)
        if connection is not None:
            self._refuse(connection, error)

    def _plan(self, message: dict[str, Any], ready: bool) -> dict[str, Any]:
        observation = observation_from_message(required(message, "observation", dict))
        if len(observation.views) > self.limits.pictures:
            count, expected = len(observation.views), f"at most {self.limits.pictures}"
            raise ProtocolError("views of an observation", got=count, expected=expected)
        if not ready:
            raise HfvlaError("plan before reset", where="server", fix="Call reset(seed) at the start of each episode.")
        self.limits.check_task(observation.task)
        start = time.perf_counter()
        self._planning.feed()
        try:
            actions = np.asarray(self.policy.plan(observation))
        finally:
            self._planning.disarm()
        self.plans += 1
        return {"type": "actions", "actions": actions, "seconds": time.perf_counter() - start}


def _seed(message: dict[str, Any]) -> int:
    seed = int(required(message, "seed", int))
    if seed not in _SEEDS:
        raise ProtocolError("'seed' of message 'reset'", got=seed, expected="a number of 64 bits")
    return seed


def _address(connection: Any) -> str:
    return ":".join(map(str, connection.remote_address[:2]))


def cut(connection: Any) -> None:
    """End a connection under whoever reads or writes it."""
    with contextlib.suppress(OSError):  # it was cut already
        connection.socket.shutdown(socket.SHUT_RDWR)


def _quiet_logger() -> logging.Logger:
    """Return the log that the websockets library writes to: warnings and worse of its own."""
    quiet = logging.getLogger(f"{__name__}.websockets")
    quiet.setLevel(logging.CRITICAL)
    return quiet

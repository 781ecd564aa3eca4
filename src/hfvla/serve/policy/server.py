"""A policy behind a websocket, for a robot on another machine.

One robot at a time: a policy keeps an episode's state, and two robots would share it. A second one is told that the
server is busy. The messages are those of `hfvla.serve.policy.messages`; `GET /healthz` answers without a session.
There is no password: listen on this machine only, on a network of your own, or behind a tunnel or proxy that has one.
"""

from __future__ import annotations

import logging
import threading
import time
from http import HTTPStatus
from typing import Any

import numpy as np

from hfvla.data.signals.observation import Policy
from hfvla.errors import HfvlaError, MissingExtraError
from hfvla.serve.policy.arrays import load_msgpack, pack, unpack
from hfvla.serve.policy.errors import PolicyServerError, ProtocolError
from hfvla.serve.policy.messages import (
    PROTOCOL,
    error_to_message,
    facts_to_message,
    observation_from_message,
    required,
)
from hfvla.serve.policy.runner import PolicyFacts

__all__ = ["DEFAULT_PORT", "MAX_MESSAGE_BYTES", "PolicyServer", "load_websockets"]

logger = logging.getLogger(__name__)

DEFAULT_PORT = 8765
MAX_MESSAGE_BYTES = 32 * 2**20
"""Five raw views of 640 x 360 are 3.5 MB."""

_KEEPALIVE_S = 5.0  # a robot whose cable is pulled frees the server after two of these
_HELLO_TIMEOUT_S = 10.0


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
        max_message_bytes: a larger message ends its connection.
        busy_wait_s: seconds that a robot waits for the one before it to be gone.

    Raises:
        HfvlaError: the address cannot be listened on.
        MissingExtraError: without the packages of the extra "serve".
    """

    def __init__(
        self,
        policy: Policy,
        facts: PolicyFacts,
        *,
        host: str = "127.0.0.1",
        port: int = DEFAULT_PORT,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        busy_wait_s: float = 1.0,
    ) -> None:
        self.policy, self.facts, self.max_message_bytes = policy, facts, max_message_bytes
        self.clients, self.plans, self.busy_wait_s = 0, 0, busy_wait_s
        self._session = threading.Lock()
        self._connection: Any = None
        self._thread: threading.Thread | None = None
        self._started_s = time.monotonic()
        load_msgpack()
        try:
            self._server = load_websockets("server").serve(
                self._handle, host, port, max_size=max_message_bytes, compression=None, origins=[None],
                process_request=self._health, ping_interval=_KEEPALIVE_S, ping_timeout=_KEEPALIVE_S, close_timeout=1.0,
                logger=_quiet_logger(),
            )  # fmt: skip
        except OSError as error:
            raise HfvlaError(
                f"cannot listen: {error}", where=f"{host}:{port}", fix="Choose another --port or --host."
            ) from error
        self.host, self.port = host, int(self._server.socket.getsockname()[1])

    @property
    def url(self) -> str:
        """Where clients on this machine connect to."""
        return f"ws://{self.host}:{self.port}"

    def __enter__(self) -> PolicyServer:
        self._thread = threading.Thread(target=self._server.serve_forever, name="hfvla-policy-server", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def wait(self, timeout_s: float | None = None) -> None:
        """Wait until the server has ended."""
        if self._thread is not None:
            self._thread.join(timeout_s)

    def close(self) -> None:
        """Stop listening and end the session; may be called again."""
        connection = self._connection
        if connection is not None:
            connection.close(1001, "the policy server ends")
        if self._thread is not None:
            self._server.shutdown()
            self._thread.join()
            self._thread = None
        self._server.socket.close()

    def _health(self, connection: Any, request: Any) -> Any:
        if request.path == "/healthz":
            busy = "busy" if self._session.locked() else "free"
            return connection.respond(HTTPStatus.OK, f"ok {busy}, {self.plans} plans\n")
        return None

    def _handle(self, connection: Any) -> None:
        """One connection, in a thread of its own."""
        from websockets.exceptions import ConnectionClosed

        who, taken = ":".join(map(str, connection.remote_address[:2])), False
        try:
            self._check_hello(connection)
            taken = self._session.acquire(timeout=self.busy_wait_s)
            self._welcome(connection, taken)
            logger.info("robot %s connected", who)
            self.clients += 1
            self._connection = connection
            self._serve(connection)
        except ConnectionClosed as error:
            logger.info("robot %s left: %s", who, error)
        except HfvlaError as error:
            logger.warning("robot %s refused: %s", who, error)
            self._refuse(connection, error)
        except Exception:
            logger.exception("the connection of robot %s failed", who)
            raise
        finally:
            if taken:
                self._connection = None
                self._session.release()

    @staticmethod
    def _check_hello(connection: Any) -> None:
        try:
            hello = unpack(connection.recv(timeout=_HELLO_TIMEOUT_S))
        except TimeoutError:
            raise ProtocolError("first message", got=f"nothing in {_HELLO_TIMEOUT_S} s", expected="hello") from None
        if hello["type"] != "hello":
            raise ProtocolError("first message", got=hello["type"], expected="hello")
        if hello.get("protocol") != PROTOCOL:
            raise ProtocolError(
                "protocol version", where="server", got=hello.get("protocol"), expected=PROTOCOL,
                fix="Install the same version of hfvla on robot and server.",
            )  # fmt: skip

    def _welcome(self, connection: Any, taken: bool) -> None:
        if not taken:
            raise PolicyServerError(
                "the server is busy with another robot", where=self.url, fix="Close the other client, then try again."
            )
        facts = facts_to_message(self.facts)
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
        ready = False
        while True:
            message = unpack(connection.recv())
            number = required(message, "id", int)
            try:
                if message["type"] == "ping":
                    answer: dict[str, Any] = {
                        "type": "pong", "uptime_s": time.monotonic() - self._started_s, "plans": self.plans,
                    }  # fmt: skip
                elif message["type"] == "reset":
                    self.policy.reset(required(message, "seed", int))
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

    def _plan(self, message: dict[str, Any], ready: bool) -> dict[str, Any]:
        observation = observation_from_message(required(message, "observation", dict))
        if not ready:
            raise HfvlaError("plan before reset", where="server", fix="Call reset(seed) at the start of each episode.")
        start = time.perf_counter()
        actions = np.asarray(self.policy.plan(observation))
        self.plans += 1
        return {"type": "actions", "actions": actions, "seconds": time.perf_counter() - start}


def _quiet_logger() -> logging.Logger:
    """Return the log that the websockets library writes to: warnings and worse of its own."""
    quiet = logging.getLogger(f"{__name__}.websockets")
    quiet.setLevel(logging.CRITICAL)
    return quiet

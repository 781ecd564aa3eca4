"""A policy on another machine, as a policy on this one."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np

from hfvla.data.signals.observation import Observation
from hfvla.errors import HfvlaError
from hfvla.serve.policy.arrays import pack, unpack
from hfvla.serve.policy.errors import PolicyConnectionError, ProtocolError
from hfvla.serve.policy.limits import MAX_MESSAGE_BYTES, TOKEN_VARIABLE, client_tls, given_token
from hfvla.serve.policy.messages import (
    PROTOCOL,
    error_from_message,
    facts_from_message,
    observation_to_message,
    required,
)
from hfvla.serve.policy.runner import PolicyFacts
from hfvla.serve.policy.server import cut, load_websockets

__all__ = ["RemotePolicy"]


class RemotePolicy:
    """Asks a `PolicyServer`; for one thread, and a context manager.

    An answer that does not come in time, or a connection that breaks, is an error at once, and the connection is given
    up: a late answer can never be taken for the next one, and no old actions are ever returned. The next `reset`
    connects anew, because the server has forgotten the episode.

    Args:
        url: e.g. "ws://192.168.1.5:8765", or "wss://..." for a server with a certificate.
        jpeg_quality: send pictures as JPEG of this quality (1 to 100), which loses what JPEG loses; None: as they are.
        timeout_s: seconds that an answer may take.
        connect_timeout_s: seconds that connecting may take.
        token: the server's word; that of the environment (`TOKEN_VARIABLE`) when None, else none.
        authority: PEM file of the certificate to trust, for a server whose own no public authority has signed.

    Raises:
        HfvlaError: an option that cannot be used.
        PolicyConnectionError: the server cannot be reached, or wants another token.
        ProtocolError: it speaks another version.
        PolicyServerError: it is busy with another robot.
    """

    def __init__(
        self,
        url: str,
        *,
        jpeg_quality: int | None = None,
        timeout_s: float = 5.0,
        connect_timeout_s: float = 10.0,
        token: str | None = None,
        authority: str | Path | None = None,
    ) -> None:
        if jpeg_quality is not None and not 1 <= jpeg_quality <= 100:
            raise HfvlaError("jpeg_quality", got=jpeg_quality, expected="1 to 100, or None for raw pictures")
        if not timeout_s > 0 or not connect_timeout_s > 0:
            raise HfvlaError("timeout of a remote policy", got=(timeout_s, connect_timeout_s), expected="more than 0")
        self.url, self.jpeg_quality = url, jpeg_quality
        self._token, self._tls = given_token(token), client_tls(url, authority)
        self.timeout_s, self.connect_timeout_s = timeout_s, connect_timeout_s
        self.server_s = 0.0
        self._connection: Any = None
        self._asked = 0
        self._connect()

    def __enter__(self) -> RemotePolicy:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def connected(self) -> bool:
        """Whether there is a connection; it may have broken since the last answer."""
        return self._connection is not None

    def reset(self, seed: int = 0) -> None:
        """Begin an episode; connects anew where the connection is lost.

        Args:
            seed: of the sampling noise on the server.

        Raises:
            PolicyConnectionError: no connection, or no answer in time.
        """
        if self._connection is not None and self._connection.protocol.state.name != "OPEN":
            self._give_up()  # the server has ended between two episodes
        if self._connection is None:
            self._connect()
        self._ask({"type": "reset", "seed": int(seed)}, "reset")

    def plan(self, observation: Observation) -> np.ndarray:
        """Return the server's plan, [n, A]; `server_s` then holds the seconds that the policy itself took.

        Raises:
            PolicyConnectionError: the connection is lost, or no answer came in time.
            HfvlaError: what the policy raised there, as the same class with its fields.
        """
        message = {"type": "plan", "observation": observation_to_message(observation, self.jpeg_quality)}
        answer = self._ask(message, "actions")
        with self._orderly():
            self.server_s = float(required(answer, "seconds", (float, int)))
            actions = required(answer, "actions", np.ndarray)
            if actions.ndim != 2 or not len(actions) or actions.shape[1] != self.facts.action_dim:
                expected = f"[n, {self.facts.action_dim}]"
                raise ProtocolError("actions", where=self.url, got=actions.shape, expected=expected)
            if not np.isfinite(actions).all():
                raise ProtocolError("actions", where=self.url, got=actions.tolist(), expected="finite numbers")
        return actions

    def ping(self) -> dict[str, float]:
        """Return the seconds a message takes there and back, the server's uptime, and how many plans it has made."""
        start = time.perf_counter()
        answer = self._ask({"type": "ping"}, "pong")
        seconds = time.perf_counter() - start
        return {"seconds": seconds, "uptime_s": answer.get("uptime_s", 0.0), "plans": answer.get("plans", 0)}

    def close(self) -> None:
        """End the session, so that another robot may have the server; may be called again."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self) -> None:
        client = load_websockets("client")
        from websockets.exceptions import InvalidStatus, WebSocketException

        options: dict[str, Any] = {} if self._tls is None else {"ssl": self._tls}
        if self._token is not None:
            options["additional_headers"] = {"Authorization": f"Bearer {self._token}"}
        try:
            opening = client.connect(
                self.url, open_timeout=self.connect_timeout_s, close_timeout=1.0, compression=None,
                max_size=MAX_MESSAGE_BYTES, proxy=None, **options,
            )  # fmt: skip
            self._connection = opening.__enter__()
        except (OSError, WebSocketException) as error:
            if isinstance(error, InvalidStatus) and error.response.status_code == HTTPStatus.UNAUTHORIZED:
                raise PolicyConnectionError(
                    "the server wants another token" if self._token else "the server wants a token", where=self.url,
                    fix=f"Give the server's: RemotePolicy(url, token=...), or {TOKEN_VARIABLE} in the environment.",
                ) from None  # fmt: skip
            raise PolicyConnectionError(
                f"no policy server: {type(error).__name__}: {error}", where=self.url,
                fix="Start it with `hfvla serve <checkpoint>`, and check host, port and firewall.",
            ) from error  # fmt: skip
        self.max_message_bytes = MAX_MESSAGE_BYTES
        welcome = self._exchange({"type": "hello", "protocol": PROTOCOL}, None)
        with self._orderly():
            if welcome["type"] != "welcome" or welcome.get("protocol") != PROTOCOL:
                got = (welcome["type"], welcome.get("protocol"))
                raise ProtocolError("answer to hello", where=self.url, got=got, expected=("welcome", PROTOCOL))
            self.facts: PolicyFacts = facts_from_message(required(welcome, "facts", dict))
            self.max_message_bytes = required(welcome, "max_message_bytes", int)

    def _ask(self, message: dict[str, Any], expected: str) -> dict[str, Any]:
        if self._connection is None:
            raise PolicyConnectionError(
                "the connection is lost", where=self.url, fix="Call reset(seed): it connects and begins an episode."
            )
        self._asked += 1
        answer = self._exchange(message | {"id": self._asked}, self._asked)
        with self._orderly():
            if answer["type"] != expected:
                what = f"answer to {message['type']}"
                raise ProtocolError(what, where=self.url, got=answer["type"], expected=expected)
        return answer

    @contextlib.contextmanager
    def _orderly(self) -> Iterator[None]:
        """Give the connection up where the other side breaks the protocol."""
        try:
            yield
        except ProtocolError:
            self._give_up()
            raise

    def _exchange(self, message: dict[str, Any], number: int | None) -> dict[str, Any]:
        """Send a message and return its answer; anything but an orderly answer or error gives the connection up."""
        from websockets.exceptions import ConnectionClosed

        data = pack(message)
        if len(data) > self.max_message_bytes:
            raise ProtocolError(
                "size of the message", where=self.url, got=f"{len(data)} bytes",
                expected=f"at most {self.max_message_bytes} bytes", fix="Send smaller pictures, or use jpeg_quality.",
            )  # fmt: skip
        end_s = time.monotonic() + self.timeout_s
        try:
            # A send has no time limit of its own, and blocks where the other side has stopped to read.
            limit = threading.Timer(self.timeout_s, cut, [self._connection])
            limit.start()
            try:
                self._connection.send(data)
            finally:
                limit.cancel()
            received = self._connection.recv(timeout=max(end_s - time.monotonic(), 0.0))
        except (TimeoutError, ConnectionClosed, OSError) as lost:
            self._give_up()
            if time.monotonic() < end_s:
                fix = "Start it again, then call reset."
                raise PolicyConnectionError(f"the policy server is gone: {lost}", where=self.url, fix=fix) from lost
            raise PolicyConnectionError(
                "no answer in time", where=self.url, got=f"nothing in {self.timeout_s} s",
                fix="Look at the server's log; give a larger timeout_s if the model needs it.",
            ) from lost  # fmt: skip
        with self._orderly():
            answer = unpack(received)
            if answer["type"] == "error":
                error = error_from_message(required(answer, "error", dict))
                if answer.get("id") is None:  # the server has ended the session
                    self._give_up()
                raise error
            if answer.get("id") != number:
                raise ProtocolError("id of the answer", where=self.url, got=answer.get("id"), expected=number)
        return answer

    def _give_up(self) -> None:
        """Drop the connection without waiting for the other side."""
        connection, self._connection = self._connection, None
        if connection is not None:
            cut(connection)

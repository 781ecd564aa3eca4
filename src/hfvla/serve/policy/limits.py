"""What a policy server allows whom: sizes, times, connections, the token and the certificate."""

from __future__ import annotations

import hmac
import logging
import os
import socket
import ssl
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hfvla.errors import DataError, HfvlaError

__all__ = [
    "MAX_MESSAGE_BYTES",
    "TOKEN_VARIABLE",
    "Doorway",
    "ServerLimits",
    "check_token",
    "client_tls",
    "given_token",
    "server_tls",
    "warn_of_strangers",
]

logger = logging.getLogger(__name__)

MAX_MESSAGE_BYTES = 32 * 2**20
"""Five raw views of 640 x 360 are 3.5 MB."""

TOKEN_VARIABLE = "HFVLA_POLICY_TOKEN"
"""Environment variable that robot and server read the token from; a word on the command line shows in `ps`."""

_SHORT_TOKEN = 16
_AT_HOME = ("127.", "::1", "localhost")


@dataclass(frozen=True, kw_only=True)
class ServerLimits:
    """What a client may ask of a server.

    Attributes:
        message_bytes: of a message of a session; a larger one ends the connection before it is read.
        hello_bytes: of the first message, which anybody may send.
        pictures: of an observation.
        pixels: of all pictures of an observation together; read from their headers before one is decoded.
        task_words: of a task; also a 16th of the characters that it may have.
        plan_s: seconds that the policy may think; then the robot is told, and the session ends.
        idle_s: seconds between two resets or plans; then the session ends, and another robot may have the server.
        connections: open at once, sessions and refused ones together; others wait to be let in.
        hello_s: seconds until the first message.
        penalty_s: seconds that a refused connection keeps its place, so that who floods the server waits.
    """

    message_bytes: int = MAX_MESSAGE_BYTES
    hello_bytes: int = 4096
    pictures: int = 16
    pixels: int = 16_000_000
    task_words: int = 256
    plan_s: float = 30.0
    idle_s: float = 60.0
    connections: int = 16
    hello_s: float = 5.0
    penalty_s: float = 0.5

    def __post_init__(self) -> None:
        """Refuse limits that are none.

        Raises:
            HfvlaError: one that is not positive.
        """
        for name, value in vars(self).items():
            if not value > 0 and name != "penalty_s":
                raise HfvlaError(f"limit '{name}' of a policy server", got=value, expected="more than 0")

    def check_task(self, task: str) -> None:
        """Refuse a task that would take the text encoder long.

        Raises:
            DataError: with the number of words.
        """
        words = len(task.split()) if len(task) <= 16 * self.task_words else None
        if words is None or words > self.task_words:
            got = f"{len(task)} characters" if words is None else f"{words} words"
            raise DataError(
                "the task is too long", where="task", got=got,
                expected=f"at most {self.task_words} words and {16 * self.task_words} characters",
            )  # fmt: skip


def given_token(token: str | None) -> str | None:
    """Return the token to use: the one given, else that of the environment, else none.

    Raises:
        HfvlaError: it cannot travel in a header.
    """
    token = os.environ.get(TOKEN_VARIABLE) or None if token is None else token
    if token is not None and not (token and token.isascii() and token.isprintable() and " " not in token):
        raise HfvlaError("the token", got=f"{len(token)} characters", expected="ASCII letters, digits and signs")
    return token


def check_token(header: str | None, token: str | None) -> bool:
    """Return whether an Authorization header carries the token; takes equally long however much of it is right."""
    if token is None:
        return True
    return hmac.compare_digest((header or "").encode("utf-8", "replace"), f"Bearer {token}".encode())


def server_tls(certificate: str | Path | None, key: str | Path | None) -> ssl.SSLContext | None:
    """Return how a server encrypts, or None for not at all.

    Args:
        certificate: PEM file with the certificate and those above it.
        key: PEM file with its key; None where it is in the same file.

    Raises:
        HfvlaError: a key without a certificate, or files that cannot be used.
    """
    if certificate is None:
        if key is not None:
            raise HfvlaError("a key without a certificate", where="--tls-key", fix="Add --tls-cert FILE.")
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ValueError) as error:
        raise HfvlaError(
            f"the certificate cannot be used: {error}", where=f"{certificate}, {key or certificate}",
            expected="PEM files of a certificate and its key, without a password",
        ) from error  # fmt: skip
    return context


def _no_password() -> str:
    raise ValueError("the key has a password")


def client_tls(url: str, authority: str | Path | None) -> ssl.SSLContext | None:
    """Return how a robot checks the server it connects to, or None for a "ws://" address.

    Args:
        url: of the server.
        authority: PEM file of the certificate to trust, for one that no public authority has signed.

    Raises:
        HfvlaError: a file that cannot be used.
    """
    if not url.startswith("wss://"):
        return None
    try:
        return ssl.create_default_context(cafile=None if authority is None else str(authority))
    except (OSError, ValueError) as error:
        raise HfvlaError(f"the certificate cannot be used: {error}", where=str(authority)) from error


def warn_of_strangers(host: str, token: str | None, encrypted: bool) -> None:
    """Say who else may drive the robot when a server listens to more than its own machine."""
    if token is not None and len(token) < _SHORT_TOKEN:
        logger.warning("the token is short: %d characters; use at least %d", len(token), _SHORT_TOKEN)
    if host.startswith(_AT_HOME):
        return
    if token is None:
        logger.warning(
            "listening on %s without a token: whoever reaches this port drives the robot. Set %s (or --token)",
            host or "every network", TOKEN_VARIABLE,
        )  # fmt: skip
    if not encrypted:
        what = "pictures" if token is None else "pictures and the token"
        logger.warning(
            "listening on %s without encryption: %s can be read on the way. Use --tls-cert and --tls-key, or a tunnel",
            host or "every network", what,
        )  # fmt: skip


class Doorway(socket.socket):
    """A listening socket that lets in only so many at once; the others wait in the system's queue and cost nothing."""

    places: threading.Semaphore
    shut = False
    """Set it to let in nobody any more."""

    @classmethod
    def open(cls, host: str, port: int, places: int) -> Doorway:
        """Listen.

        Raises:
            OSError: the address cannot be listened on.
        """
        plain = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        door = cls(plain.family, plain.type, plain.proto, fileno=plain.detach())
        door.places = threading.Semaphore(places)
        return door

    def accept(self) -> tuple[socket.socket, Any]:
        """Return the next connection once there is a place for it.

        Raises:
            OSError: the door was closed.
        """
        while not self.places.acquire(timeout=0.1):
            if self.shut:
                raise OSError("the server has ended")
        try:
            if self.shut:
                raise OSError("the server has ended")
            return super().accept()
        except BaseException:
            self.places.release()
            raise

    def leaving(self, handler: Callable[[socket.socket, Any], None]) -> Callable[[socket.socket, Any], None]:
        """Return a handler of connections that frees the place when it is done."""

        def handle(connection: socket.socket, address: Any) -> None:
            try:
                handler(connection, address)
            finally:
                self.places.release()

        return handle

"""What an HTTP server allows whom: sizes, times, how many at once, keys and origins."""

from __future__ import annotations

import hmac
import os
from dataclasses import dataclass

from hfvla.errors import HfvlaError

__all__ = ["API_KEY_VARIABLE", "HttpLimits", "given_key", "holds_key"]

API_KEY_VARIABLE = "HFVLA_API_KEY"
"""Environment variable that the server reads its key from; a word on the command line shows in `ps`."""


@dataclass(frozen=True, kw_only=True)
class HttpLimits:
    """What a client may ask of a server.

    Attributes:
        body_bytes: of one request.
        all_body_bytes: of all requests that are being read or answered; more are told to come back.
        header_s: seconds until a connection has sent the head of a request.
        body_s: seconds until its body has come.
        request_s: seconds that an answer may take, the queue included.
        connections: open at once.
        requests: being read or answered at once; more are told to come back.
        queue: requests that wait for the model; more are told to come back.
        batch: most requests that the model answers together.
        wait_s: seconds that a request waits for others to be answered with it.
        pictures: of one request.
        pixels: of all pictures of a request together; read from their headers before one is decoded.
        all_pixels: of all pictures that are being answered.
        text_letters: of one text.
        numbers: of one list of numbers, those of lists inside it included.
        new_tokens: that an answer may have.
        drain_s: seconds that requests have to end when the server does.
    """

    body_bytes: int = 32 * 2**20
    all_body_bytes: int = 512 * 2**20
    header_s: float = 10.0
    body_s: float = 30.0
    request_s: float = 120.0
    connections: int = 512
    requests: int = 256
    queue: int = 128
    batch: int = 16
    wait_s: float = 0.005
    pictures: int = 16
    pixels: int = 64_000_000
    all_pixels: int = 256_000_000
    text_letters: int = 20_000
    numbers: int = 1_000_000
    new_tokens: int = 2048
    drain_s: float = 20.0

    def __post_init__(self) -> None:
        """Refuse limits that are none.

        Raises:
            HfvlaError: one that is not positive.
        """
        for name, value in vars(self).items():
            if not value > 0 and name not in ("wait_s", "drain_s"):
                raise HfvlaError(f"limit '{name}' of a server", got=value, expected="more than 0")


def given_key(key: str | None) -> str | None:
    """Return the key to use: the one given, else that of the environment, else none.

    Raises:
        HfvlaError: it cannot travel in a header.
    """
    key = os.environ.get(API_KEY_VARIABLE) or None if key is None else key
    if key is not None and not (key and key.isascii() and key.isprintable() and " " not in key):
        raise HfvlaError("the API key", got=f"{len(key)} characters", expected="ASCII letters, digits and signs")
    return key


def holds_key(authorization: str | None, api_key: str | None, key: str | None) -> bool:
    """Tell whether a request may come in; takes equally long however much of its key is right.

    Args:
        authorization: its Authorization header.
        api_key: its X-API-Key header.
        key: what must be known; None lets everybody in.
    """
    if key is None:
        return True
    scheme, _, word = (authorization or "").partition(" ")
    found = word.strip() if scheme.lower() == "bearer" else api_key or ""
    return hmac.compare_digest(found.encode("utf-8", "replace"), key.encode())

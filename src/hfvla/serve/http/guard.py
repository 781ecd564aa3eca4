"""The door of the HTTP server: every request passes it before anything looks at what it holds.

```text
place free? -> host, origin, key -> body within bytes and seconds -> app, until the client leaves -> log, metrics
```

The body is read whole before the app sees it: a slow client costs a few bytes here, and neither a thread nor a place
in the queue.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

from hfvla.errors import HfvlaError
from hfvla.serve.http.errors import BusyError, RequestError, refusal
from hfvla.serve.http.limits import HttpLimits, holds_key
from hfvla.serve.http.logs import access_logger
from hfvla.serve.http.metrics import ServerMetrics

__all__ = ["Budget", "Guard"]

logger = logging.getLogger(__name__)

_OPEN = ("/health", "/healthz")
_REQUEST_ID = re.compile(r"[\w.-]{1,64}")
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_LEFT = 499  # as nginx writes it: the client left before the answer

Scope = Mapping[str, Any]
Send = Callable[[Any], Awaitable[None]]


class Budget:
    """So much of something for all requests together.

    Args:
        what: its name, for the refusal.
        total: how much there is.
        retry_after_s: what the refused are told.
    """

    def __init__(self, what: str, total: int, retry_after_s: Callable[[], float] = lambda: 1.0) -> None:
        self.what, self.total, self.used, self._retry = what, total, 0, retry_after_s

    def take(self, amount: int) -> None:
        """Take some of it.

        Raises:
            BusyError: so much is not left.
        """
        if self.used + amount > self.total:
            raise BusyError(
                f"too many {self.what} at once", got=self.used + amount, expected=f"at most {self.total}",
                retry_after_s=self._retry(),
            )  # fmt: skip
        self.used += amount

    def give_back(self, amount: int) -> None:
        """Return what was taken."""
        self.used -= amount


class Guard:
    """ASGI application around the app.

    Args:
        app: what answers.
        limits: see there.
        metrics: counts requests.
        key: word that a client must know; None lets everybody in.
        origins: pages in browsers that may ask; others are refused.
        loopback: whether the server listens to its own machine only: then it answers to no other name.
        paths: label of a path for logs and metrics; others are "other", so that nobody can make up labels.
        retry_after_s: seconds after which there may be room.
    """

    def __init__(
        self,
        app: Any,
        *,
        limits: HttpLimits,
        metrics: ServerMetrics,
        key: str | None = None,
        origins: Iterable[str] = (),
        loopback: bool = True,
        paths: Iterable[str] = (),
        retry_after_s: Callable[[], float] = lambda: 1.0,
    ) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self._key, self._origins, self._loopback = key, frozenset(origins), loopback
        self._paths = frozenset(paths)
        self._places = Budget("requests", limits.requests, retry_after_s)
        self._bytes = Budget("bytes of requests", limits.all_body_bytes, retry_after_s)

    async def __call__(self, scope: Any, receive: Any, send: Send) -> None:
        """Answer one request, or refuse it."""
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":  # there is no websocket here
            return await send({"type": "websocket.close", "code": 1000})
        visit = _Visit(scope, send)
        places = bytes_ = 0
        self.metrics.in_flight.inc()
        try:
            if visit.path not in _OPEN:
                self._places.take(1)
                places = 1
            self._check_stranger(scope, visit)
            body, bytes_ = await self._read(visit, receive)
            await self._answer(visit, body, receive)
        except _ClientLeftError:
            visit.status = _LEFT
        except Exception as error:
            if not isinstance(error, HfvlaError):
                logger.exception("request %s failed", visit.id, extra={"request_id": visit.id})
            await visit.refuse(error)
        finally:
            self._places.give_back(places)
            self._bytes.give_back(bytes_)
            self.metrics.in_flight.dec()
            self._note(visit)

    def _check_stranger(self, scope: Scope, visit: _Visit) -> None:
        """Refuse who may not ask.

        Raises:
            RequestError: a foreign host or origin, or no key.
        """
        host, origin = visit.header("host"), visit.header("origin")
        name = host.rpartition(":")[0] if re.search(r":\d+$", host) else host
        if self._loopback and host and name.lower() not in _LOOPBACK:
            raise RequestError(  # a page whose name was made to point here (DNS rebinding)
                "this server answers on its own machine only", status=403, where="Host", got=host,
                expected=", ".join(_LOOPBACK),
            )  # fmt: skip
        own = f"{scope['scheme']}://{host}"
        if origin and origin != own and origin not in self._origins:
            raise RequestError(
                "a page of another origin may not ask", status=403, where="Origin", got=origin,
                fix="Name it when the server is started: --cors-origin.",
            )  # fmt: skip
        if visit.path in _OPEN or scope["method"] == "OPTIONS":
            return
        if not holds_key(visit.header("authorization"), visit.header("x-api-key"), self._key):
            raise RequestError(
                "the API key is wrong, or missing", status=401, expected="Authorization: Bearer KEY, or X-API-Key: KEY"
            )

    async def _read(self, visit: _Visit, receive: Any) -> tuple[bytes, int]:
        """Return a request's body, and how much of the budget it takes.

        Raises:
            RequestError: too large, or too slow.
            BusyError: too much is being read.
        """
        most, taken, body = self.limits.body_bytes, 0, bytearray()
        length = visit.header("content-length")
        if length.isdigit() and int(length) > most:
            raise _too_large(f"{length} bytes", most)
        try:
            async with asyncio.timeout(self.limits.body_s):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise _ClientLeftError
                    part = message.get("body", b"")
                    if len(body) + len(part) > most:
                        raise _too_large(f"more than {len(body)} bytes", most)
                    self._bytes.take(len(part))
                    taken += len(part)
                    body += part
                    if not message.get("more_body", False):
                        return bytes(body), taken
        except BaseException as error:
            self._bytes.give_back(taken)
            if isinstance(error, TimeoutError):
                raise RequestError(
                    "the request came too slowly", status=408, got=f"{len(body)} bytes in {self.limits.body_s:g} s"
                ) from None
            raise

    async def _answer(self, visit: _Visit, body: bytes, receive: Any) -> None:
        """Let the app answer; cancel it when the client leaves."""
        gone, given = asyncio.Event(), False

        async def watch() -> None:
            while (await receive())["type"] != "http.disconnect":
                pass
            gone.set()

        async def replay() -> Any:
            nonlocal given
            if not given:
                given = True
                return {"type": "http.request", "body": body, "more_body": False}
            await gone.wait()
            return {"type": "http.disconnect"}

        watcher = asyncio.ensure_future(watch())
        work = asyncio.ensure_future(self.app(visit.scope, replay, visit.send))
        try:
            await asyncio.wait({watcher, work}, return_when=asyncio.FIRST_COMPLETED)
            if not work.done() and not visit.ended:
                raise _ClientLeftError
            await work
        finally:
            for task in (watcher, work):
                task.cancel()
            with suppress(asyncio.CancelledError, Exception):
                await asyncio.gather(watcher, work, return_exceptions=True)

    def _note(self, visit: _Visit) -> None:
        """Count and log a request that has ended."""
        seconds = time.perf_counter() - visit.start_s
        path = visit.path if visit.path in self._paths else "other"
        if visit.status == _LEFT:
            self.metrics.dropped.inc()
        self.metrics.requests.labels(path, str(visit.status)).inc()
        self.metrics.seconds.labels(path).observe(seconds)
        if visit.reason:
            self.metrics.refused.labels(visit.reason).inc()
        known = {"request_id": visit.id, "method": visit.scope["method"], "path": visit.path[:200]}
        known |= {
            "status": visit.status,
            "ms": round(1000 * seconds, 2),
            "client": (visit.scope["client"] or ("",))[0],
        }
        access_logger.info(
            "%s %s %d", known["method"], ascii(known["path"])[1:-1], visit.status, extra=known | visit.notes
        )


class _ClientLeftError(Exception):
    """Nobody waits for the answer."""


class _Visit:
    """One request on its way: what it says of itself, and what it was answered."""

    def __init__(self, scope: Any, send: Send) -> None:
        self.start_s = time.perf_counter()
        self._headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        given = self.header("x-request-id")
        self.id = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        self.path: str = scope["path"]
        self.notes: dict[str, Any] = {}
        self.scope = {**scope, "state": {**scope.get("state", {}), "request_id": self.id, "notes": self.notes}}
        self.status, self.reason = 0, ""
        self._send, self._begun, self.ended = send, False, False

    def header(self, name: str) -> str:
        """Return a header, or ""."""
        return self._headers.get(name, "")

    async def send(self, message: Any) -> None:
        """Hand a part of the answer on; its head gets the request's id."""
        if message["type"] == "http.response.start":
            self.status, self._begun = message["status"], True
            headers = [*message.get("headers", []), (b"x-request-id", self.id.encode())]
            message = {**message, "headers": [*headers, (b"x-content-type-options", b"nosniff")]}
        elif message["type"] == "http.response.body" and not message.get("more_body", False):
            self.ended = True
        await self._send(message)

    async def refuse(self, error: BaseException) -> None:
        """Answer with an error, unless an answer has begun; one that is cut says itself that it is not whole."""
        if self._begun:
            raise error
        status, body, headers = refusal(error, self.id, self.path)
        self.reason = type(error).__name__ if status < 500 else ""
        head = [(name.encode(), value.encode()) for name, value in headers.items()]
        head.append((b"content-length", str(len(body)).encode()))
        await self.send({"type": "http.response.start", "status": status, "headers": head})
        await self.send({"type": "http.response.body", "body": body})


def _too_large(got: str, most: int) -> RequestError:
    return RequestError("the request is too large", status=413, got=got, expected=f"at most {most} bytes")

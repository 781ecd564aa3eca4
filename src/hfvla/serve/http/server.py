"""Runs the application: one socket, connections that must say what they want, and an end that loses no answer."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from hfvla.errors import HfvlaError, MissingExtraError
from hfvla.serve.http.app import build_app
from hfvla.serve.http.limits import API_KEY_VARIABLE, HttpLimits, given_key
from hfvla.serve.http.service import Service

__all__ = ["DEFAULT_PORT", "HttpServer", "bind", "is_loopback"]

logger = logging.getLogger(__name__)

DEFAULT_PORT = 8000
_SHORT_KEY = 16
_KEEP_ALIVE_S = 15
_MOST_HEAD_BYTES = 32 * 2**10


def is_loopback(host: str) -> bool:
    """Tell whether an address is reached from its own machine only."""
    return host.startswith("127.") or host in ("::1", "localhost")


def bind(host: str, port: int) -> socket.socket:
    """Take an address, without listening yet: a port that is in use is said before a model is loaded.

    Raises:
        HfvlaError: it cannot be taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    taken = socket.socket(family, socket.SOCK_STREAM)
    try:
        taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        taken.bind((host, port))
    except (OSError, UnicodeError, OverflowError) as error:
        taken.close()
        raise HfvlaError(
            f"cannot listen: {error}", where=f"{host}:{port}", fix="Choose another --port or --host."
        ) from error
    return taken


class HttpServer:
    """Serves one checkpoint over HTTP; a context manager that runs in a thread, or `run` in this one.

    Args:
        service: what is served.
        limits: what a client may ask.
        taken: socket of `bind`; closed at the end.
        host: its address.
        key: word that a client must know; that of the environment when None, else none.
        origins: pages in browsers that may ask.
        hosts: from which pictures of conversations may be fetched.
        certificate: PEM file; connections are encrypted with it.
        certificate_key: PEM file of its key, where it is not in the same file.

    Raises:
        HfvlaError: the key cannot be used.
        MissingExtraError: without the packages of the extra "serve".
    """

    def __init__(
        self,
        service: Service,
        limits: HttpLimits,
        taken: socket.socket,
        *,
        host: str = "127.0.0.1",
        key: str | None = None,
        origins: Iterable[str] = (),
        hosts: Iterable[str] = (),
        certificate: str | Path | None = None,
        certificate_key: str | Path | None = None,
    ) -> None:
        try:
            import uvicorn
        except ImportError:
            raise MissingExtraError("uvicorn", "serve", "the HTTP server") from None
        key, here = given_key(key), is_loopback(host)
        self.app = build_app(service, limits, key=key, origins=origins, loopback=here, hosts=hosts)
        config = uvicorn.Config(
            self.app, log_config=None, access_log=False, lifespan="on", ws="none", http=_patient_protocol(limits),
            timeout_keep_alive=_KEEP_ALIVE_S, timeout_graceful_shutdown=max(1, round(limits.drain_s)),
            server_header=False, h11_max_incomplete_event_size=_MOST_HEAD_BYTES,
            ssl_certfile=certificate, ssl_keyfile=certificate_key,
        )  # fmt: skip
        self._server, self._socket = uvicorn.Server(config), taken
        self._thread: threading.Thread | None = None
        scheme, port = "http" if certificate is None else "https", taken.getsockname()[1]
        self.url = f"{scheme}://{f'[{host}]' if ':' in host else host}:{port}"
        _warn_of_strangers(host, key, certificate is not None)

    @property
    def answered(self) -> int:
        """How many requests were answered rightly."""
        samples = [sample for metric in self.app.metrics.requests.collect() for sample in metric.samples]
        return int(sum(s.value for s in samples if s.name.endswith("_total") and s.labels["status"] == "200"))

    def run(self) -> None:
        """Serve until SIGINT or SIGTERM; requests that are there are answered first."""
        try:
            self._server.run(sockets=[self._socket])
        finally:
            self._socket.close()

    def __enter__(self) -> HttpServer:
        """Serve in a thread; return once requests are taken.

        Raises:
            HfvlaError: it did not start.
        """
        self._thread = thread = threading.Thread(target=self.run, name="hfvla-http", daemon=True)
        thread.start()
        while not self._server.started:
            thread.join(0.01)
            if not thread.is_alive():
                raise HfvlaError("the server did not start", where=self.url)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        if self._thread is not None:
            self._thread.join()


def _patient_protocol(limits: HttpLimits) -> type:
    """Return uvicorn's protocol with two more limits: open connections, and seconds until a request's head is there.

    uvicorn itself waits for ever for the head of a first request, and answers 503 to connections beyond its own limit.
    """
    from uvicorn.protocols.http.h11_impl import H11Protocol

    class PatientProtocol(H11Protocol):
        _timer: Any = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                body = b'{"error": {"type": "BusyError", "message": "too many connections"}}'
                head = "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
                transport.write(f"{head}content-length: {len(body)}\r\nconnection: close\r\n\r\n".encode() + body)
                transport.close()
                return
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.cycle is not None and not self.cycle.response_complete:
                self._head_is_there()
            elif self._timer is None and not self.transport.is_closing():
                self._expect_head()  # of a further request, half of which has come

        def connection_lost(self, exc: Exception | None) -> None:
            self._head_is_there()
            super().connection_lost(exc)

        def _expect_head(self) -> None:
            self._timer = asyncio.get_running_loop().call_later(limits.header_s, self._too_slow)

        def _head_is_there(self) -> None:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None

        def _too_slow(self) -> None:
            self._timer = None
            if self.cycle is None or self.cycle.response_complete:
                self.transport.close()

    return PatientProtocol


def _warn_of_strangers(host: str, key: str | None, encrypted: bool) -> None:
    """Say who else may ask when a server listens to more than its own machine."""
    if key is not None and len(key) < _SHORT_KEY:
        logger.warning("the API key is short: %d characters; use at least %d", len(key), _SHORT_KEY)
    if is_loopback(host):
        return
    where = host or "every network"
    if key is None:
        logger.warning(
            "listening on %s without an API key: whoever reaches this port uses the model. Set %s (or --api-key)",
            where, API_KEY_VARIABLE,
        )  # fmt: skip
    if not encrypted:
        logger.warning(
            "listening on %s without encryption: pictures and texts can be read on the way. Use --tls-cert and "
            "--tls-key, or a proxy that encrypts", where,
        )  # fmt: skip

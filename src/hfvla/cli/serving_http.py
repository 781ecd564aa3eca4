"""What `hfvla serve` does over HTTP: load a checkpoint, listen, and end without losing an answer."""

from __future__ import annotations

import logging
import signal
import threading
from collections.abc import Mapping
from typing import Any

from hfvla.cli.output import chosen_device

__all__ = ["serve_http"]

logger = logging.getLogger(__name__)


def serve_http(
    checkpoint: str, device: str | None, limits: Mapping[str, Any], place: Mapping[str, Any], served: Mapping[str, Any]
) -> dict[str, Any]:
    """Serve a checkpoint until the process is interrupted.

    Args:
        checkpoint: folder, or a hub id.
        device: torch device; a GPU if there is one when None.
        limits: of `HttpLimits`.
        place: host, port, and what else `HttpServer` takes.
        served: what else `load_service` takes.

    Returns:
        {"answered": how many requests were answered rightly}.

    Raises:
        HfvlaError: an address, key, certificate, limit or checkpoint that cannot be used.
    """
    from hfvla.serve.http import HttpLimits, HttpServer, bind, load_service
    from hfvla.serve.http.exported import chosen_engine
    from hfvla.serve.http.limits import given_key
    from hfvla.serve.policy.limits import server_tls

    allowed, rest = HttpLimits(**limits), dict(place)
    host, port = rest.pop("host"), rest.pop("port")
    given_key(rest["key"])  # what is wrong with these is said before a model is loaded
    server_tls(rest["certificate"], rest["certificate_key"])
    taken = bind(host, port)
    try:
        graphs = chosen_engine(checkpoint, served.get("engine", "auto")) != "pytorch"
        service = load_service(checkpoint, (device or "cpu") if graphs else chosen_device(device), **served)
        server = HttpServer(service, allowed, taken, host=host, **rest)
    except BaseException:
        taken.close()
        raise
    logger.info("serving %s on %s; /docs shows its endpoints; end with Ctrl-C", service.name, server.url)
    _run(server)
    return {"answered": server.answered}


def _serve_here(server: Any) -> None:
    server.run()


def _run(server: Any) -> None:
    """Serve until Ctrl-C or SIGTERM; the server itself lets requests end, then raises the signal again."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if main else None
    try:
        _serve_here(server)
    except KeyboardInterrupt:
        logger.info("ended")
    finally:
        if main:
            signal.signal(signal.SIGTERM, before)

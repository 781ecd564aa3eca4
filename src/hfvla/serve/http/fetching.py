"""Pictures from hosts that the server's owner has named; from nowhere else."""

from __future__ import annotations

import asyncio
import urllib.error
import urllib.request
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from hfvla.serve.http.errors import RequestError

__all__ = ["Fetcher"]

_SECONDS = 10.0


class _Nowhere(urllib.request.HTTPRedirectHandler):
    """Follows no redirection: it could lead to another host."""

    def redirect_request(self, *_: Any) -> None:
        """Refuse."""
        return


class Fetcher:
    """Fetches pictures over HTTPS from named hosts.

    Args:
        hosts: exact names; none for no fetching at all.
        most_bytes: of a picture.
    """

    def __init__(self, hosts: Iterable[str], most_bytes: int) -> None:
        self._hosts, self._most = frozenset(host.lower() for host in hosts), most_bytes
        self._opener = urllib.request.build_opener(_Nowhere(), urllib.request.ProxyHandler({}))

    async def get(self, url: str) -> bytes:
        """Return what lies at an address.

        Raises:
            RequestError: it may not be fetched, or cannot.
        """
        try:
            parts = urlsplit(url)
            allowed = parts.scheme == "https" and (parts.hostname or "").lower() in self._hosts
            allowed = allowed and parts.port in (None, 443) and not parts.username
        except ValueError:
            allowed = False
        if not allowed:
            expected = f"https from {', '.join(sorted(self._hosts))}, or a data URI" if self._hosts else "a data URI"
            raise RequestError("this address is not fetched", where="image_url", got=url[:100], expected=expected)
        return await asyncio.to_thread(self._fetch, url)

    def _fetch(self, url: str) -> bytes:
        try:
            with self._opener.open(url, timeout=_SECONDS) as answer:
                content = answer.read(self._most + 1)
        except (OSError, ValueError, urllib.error.URLError) as error:
            raise RequestError("the picture cannot be fetched", where="image_url", got=f"{error}"[:200]) from None
        if len(content) > self._most:
            raise RequestError("the picture is too large", status=413, expected=f"at most {self._most} bytes")
        return content

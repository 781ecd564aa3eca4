"""What a client is told when there is no answer: a status, and one object that says what, where, got and expected."""

from __future__ import annotations

import json
import math
from typing import Any

from hfvla.errors import DataError, HfvlaError, MissingExtraError

__all__ = ["BusyError", "RequestError", "error_body", "openai_body", "refusal", "status_of"]

_MOST_LETTERS = 500


class RequestError(HfvlaError):
    """A request that cannot be answered as it is.

    Args:
        what: see `HfvlaError`.
        status: of HTTP.
        retry_after_s: seconds after which it may be sent again.
        **details: see `HfvlaError`.
    """

    def __init__(self, what: str, *, status: int = 400, retry_after_s: float | None = None, **details: Any) -> None:
        self.status, self.retry_after_s = status, retry_after_s
        super().__init__(what, **details)


class BusyError(RequestError):
    """The server has too much to do; the request may come again."""

    def __init__(self, what: str, *, retry_after_s: float, **details: Any) -> None:
        super().__init__(what, status=429, retry_after_s=retry_after_s, **details)


def status_of(error: BaseException) -> int:
    """Return the HTTP status of an error: the client's fault 4xx, ours 5xx."""
    if isinstance(error, RequestError):
        return error.status
    if isinstance(error, DataError):
        return 422
    if isinstance(error, MissingExtraError):
        return 501
    return 500


def error_body(error: BaseException, request_id: str) -> dict[str, Any]:
    """Return {"error": {...}}; of an error that is not one of hfvla's, nothing but where to look it up."""
    if not isinstance(error, HfvlaError):
        told = {"type": "ServerError", "message": "the server failed; its log says why, under this request id"}
        return {"error": {**told, "request_id": request_id}}
    parts = {name: getattr(error, name) for name in ("what", "where", "got", "expected", "fix")}
    details = {name: _short(value) for name, value in parts.items() if value is not None}
    return {
        "error": {"type": type(error).__name__, "message": _short(error), **details, "request_id": request_id},
    }


def openai_body(error: BaseException, request_id: str) -> dict[str, Any]:
    """Return an error as clients of OpenAI's protocol read it."""
    status = status_of(error)
    kinds = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
    kind = kinds.get(status, "invalid_request_error" if status < 500 else "server_error")
    found = error_body(error, request_id)["error"]
    return {"error": {"message": found["message"], "type": kind, "param": found.get("where"), "code": None}}


def refusal(error: BaseException, request_id: str, path: str) -> tuple[int, bytes, dict[str, str]]:
    """Return status, body and headers of the answer to a request that has none.

    Args:
        error: why.
        request_id: of the request.
        path: that was asked; below /v1/ errors are told as OpenAI's clients read them.
    """
    status, tell = status_of(error), openai_body if path.startswith("/v1/") else error_body
    body = json.dumps(tell(error, request_id), ensure_ascii=True, default=str).encode()
    headers = {"content-type": "application/json"}
    retry_s = getattr(error, "retry_after_s", None)
    if retry_s is not None:
        headers["retry-after"] = str(max(1, math.ceil(retry_s)))
    if status in (408, 413):
        headers["connection"] = "close"  # what it still sends is not read
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    return status, body, headers


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= _MOST_LETTERS else f"{text[:_MOST_LETTERS]}... ({len(text)} characters)"

"""The HTTP application around one checkpoint: its endpoints, by what the checkpoint can do."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from hfvla import __version__
from hfvla.errors import HfvlaError, MissingExtraError
from hfvla.serve.http.asking import Asking, lane_of, read_json
from hfvla.serve.http.batching import BatchQueue
from hfvla.serve.http.chat import ChatDesk
from hfvla.serve.http.errors import RequestError, refusal
from hfvla.serve.http.guard import Guard
from hfvla.serve.http.limits import HttpLimits
from hfvla.serve.http.media import Media
from hfvla.serve.http.metrics import ServerMetrics
from hfvla.serve.http.pages import CHAT_BODY, SEARCH_BODY, answers, ask_body
from hfvla.serve.http.service import CHAT, PREDICT, SEARCH, Service

__all__ = ["build_app"]

logger = logging.getLogger(__name__)

_MOST_RESULTS = 1000


def build_app(
    service: Service,
    limits: HttpLimits | None = None,
    *,
    key: str | None = None,
    origins: Iterable[str] = (),
    loopback: bool = True,
    hosts: Iterable[str] = (),
) -> Guard:
    """Return the ASGI application of a service.

    Args:
        service: what is served.
        limits: what a client may ask.
        key: word that a client must know; None lets everybody in.
        origins: pages in browsers that may ask.
        loopback: whether the server listens to its own machine only.
        hosts: hosts from which pictures of conversations may be fetched.

    Raises:
        MissingExtraError: without the packages of the extra "serve".
    """
    try:
        from fastapi import FastAPI
        from fastapi.middleware.cors import CORSMiddleware
        from starlette.exceptions import HTTPException as StarletteHTTPException
    except ImportError:
        raise MissingExtraError("fastapi", "serve", "the HTTP server") from None
    limits, origins = limits or HttpLimits(), tuple(origins)
    server = _Server(service, limits, hosts)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        server.queue.start()
        try:
            yield
        finally:
            await server.queue.close(limits.drain_s)
            server.media.close()

    app = FastAPI(
        title=f"hfvla: {service.name}", version=__version__, lifespan=lifespan,
        description=f"{service.family}: {service.summary}" if service.summary else service.family,
    )  # fmt: skip
    server.add_routes(app)
    app.add_exception_handler(StarletteHTTPException, _no_such_place)
    if origins:
        app.add_middleware(CORSMiddleware, allow_origins=list(origins), allow_methods=["GET", "POST"],
                           allow_headers=["Authorization", "X-API-Key", "Content-Type"])  # fmt: skip
    paths = [route.path for route in app.routes if hasattr(route, "path")]
    return Guard(
        app, limits=limits, metrics=server.metrics, key=key, origins=origins, loopback=loopback, paths=paths,
        retry_after_s=server.queue.retry_after_s,
    )  # fmt: skip


async def _no_such_place(http: Any, error: Any) -> Any:
    """Tell of a path or a method that is not there as of any other error."""
    from fastapi import Response

    told = RequestError(str(error.detail), status=error.status_code, got=f"{http.method} {http.url.path}"[:200])
    status, body, headers = refusal(told, http.scope["state"]["request_id"], http.scope["path"])
    return Response(body, status, {**headers, **(error.headers or {})})


async def _told(work: Any, http: Any) -> Any:
    """Return an endpoint's answer, or its error in our words: FastAPI would answer before the guard hears of it."""
    from fastapi import Response

    try:
        return await work(http)
    except Exception as error:
        if not isinstance(error, HfvlaError):
            logger.exception("request failed", extra={"request_id": http.scope["state"]["request_id"]})
        status, body, headers = refusal(error, http.scope["state"]["request_id"], http.scope["path"])
        http.scope["state"]["notes"]["error"] = type(error).__name__
        return Response(body, status, headers)


class _Server:
    """The endpoints and what they share."""

    def __init__(self, service: Service, limits: HttpLimits, hosts: Iterable[str]) -> None:
        self.service, self.limits, self.started_s = service, limits, time.monotonic()
        self.metrics = ServerMetrics(lambda: len(self.queue))
        self.queue = BatchQueue(
            service.work, batch=limits.batch, wait_s=limits.wait_s, queue=limits.queue, alone=[(CHAT,)],
            seen=self.metrics.saw_batch,
        )  # fmt: skip
        self.media = Media(limits)
        self.asking = Asking(service.request, limits, self.media) if service.request is not None else None
        self.chat = ChatDesk(service, limits, self.media, self.queue, self.metrics, hosts)

    def add_routes(self, app: Any) -> None:
        """Add the endpoints that this service has."""
        from fastapi import Request, Response
        from fastapi.responses import JSONResponse

        service = self.service

        def get(path: str, answer: Any, summary: str) -> None:
            async def endpoint():
                return JSONResponse(answer())

            app.add_api_route(path, endpoint, methods=["GET"], summary=summary, name=path, response_model=None)

        def post(path: str, work: Any, summary: str, body: Mapping[str, Any], example: Any = None) -> None:
            async def endpoint(http):
                return await _told(work, http)

            # Not written in the signature: FastAPI would look this local name up in the module.
            endpoint.__annotations__ = {"http": Request}
            app.add_api_route(
                path, endpoint, methods=["POST"], summary=summary, openapi_extra=dict(body),
                responses=answers(example), name=path, response_model=None,
            )  # fmt: skip

        for path in ("/health", "/healthz"):
            app.add_api_route(
                path, self._health, methods=["GET"], summary="Whether it answers.", name=path, response_model=None
            )

        async def numbers():
            text, kind = self.metrics.text()
            return Response(text, headers={"content-type": kind})

        app.add_api_route(
            "/metrics", numbers, methods=["GET"], summary="Numbers for Prometheus.", name="/metrics",
            response_model=None,
        )  # fmt: skip
        get("/model_info", self._info, "The checkpoint, its engine, its limits.")
        for name in service.facts:
            get(f"/{name}", lambda name=name: {name: service.facts[name]}, f"The {name} of this checkpoint.")
        if self.asking is not None and service.engine is not None:
            request = self.asking.request
            get("/schema", request.schema, "JSON schema of a request.")
            for path in dict.fromkeys((f"/{getattr(request, 'path', 'predict')}", "/predict")):
                post(path, self._predict, request.description or "An answer.", ask_body(request))
        if service.search is not None:
            post("/search", self._search, "The pictures of the index that fit a text.", SEARCH_BODY)
        if service.chat is not None:
            get("/v1/models", self.chat.models, "The model, as OpenAI's API lists it.")
            post("/v1/chat/completions", self.chat.complete, "An answer in a conversation.", CHAT_BODY)

    async def _health(self) -> Any:
        from fastapi.responses import JSONResponse

        stuck = self.queue.busy_s > 2 * self.limits.request_s or not self.queue.alive
        known = {"status": "stuck" if stuck else "ok", "queue": len(self.queue), "uptime_s": self._uptime_s()}
        return JSONResponse(known, status_code=503 if stuck else 200)

    def _uptime_s(self) -> float:
        return round(time.monotonic() - self.started_s, 1)

    def _info(self) -> dict[str, Any]:
        service, limits = self.service, self.limits
        shown = ("body_bytes", "pictures", "pixels", "text_letters", "numbers", "new_tokens", "request_s", "batch")
        return {
            "model": service.name,
            "family": service.family,
            "summary": service.summary,
            "hfvla": __version__,
            **service.info,
            **(service.engine.facts if service.engine is not None else {}),
            **service.facts,
            "limits": {name: getattr(limits, name) for name in shown},
        }

    async def _predict(self, http: Any) -> Any:
        assert self.asking is not None
        held = self.media.hold()
        try:
            asked = await self.asking.read(http, held)
            lane = (PREDICT, lane_of(self.asking.request, asked))
            return await self._submit(http, lane, asked)
        finally:
            held.release()

    async def _search(self, http: Any) -> Any:
        given = read_json(await http.body(), self.limits)
        unknown = sorted(set(given) - {"text", "top_k"})
        text, count = given.get("text"), given.get("top_k", 5)
        if unknown or not isinstance(text, str) or not text.strip():
            got = unknown[0] if unknown else text
            raise RequestError("not a search", status=422, got=got, expected='{"text": "words", "top_k": 5}')
        if len(text) > self.limits.text_letters:
            raise RequestError("the text is too long", status=413, got=f"{len(text)} letters",
                               expected=f"at most {self.limits.text_letters}")  # fmt: skip
        if type(count) is not int or not 1 <= count <= _MOST_RESULTS:
            raise RequestError("how many", status=422, where="top_k", got=count, expected=f"1 to {_MOST_RESULTS}")
        return await self._submit(http, (SEARCH,), (text, count))

    async def _submit(self, http: Any, lane: tuple[Any, ...], asked: Any) -> Any:
        """Return the model's answer as JSON; what is not finite in it is a failure, never null."""
        from fastapi.responses import Response

        answer, job = await self.queue.submit(lane, asked, self.limits.request_s)
        self.metrics.waited.observe(job.waited_s)
        http.scope["state"]["notes"] |= {"queue_ms": round(1000 * job.waited_s, 2), "batch": job.shared}
        try:
            body = json.dumps(answer, ensure_ascii=False, allow_nan=False)
        except ValueError as error:
            raise HfvlaError("the answer has numbers that are not finite") from error
        return Response(body.encode(), media_type="application/json")

"""`/v1/chat/completions`: whole, or in pieces as server-sent events."""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator, Iterable
from typing import Any

from hfvla.serve.http.asking import read_json
from hfvla.serve.http.batching import BatchQueue
from hfvla.serve.http.errors import RequestError, openai_body
from hfvla.serve.http.fetching import Fetcher
from hfvla.serve.http.limits import HttpLimits
from hfvla.serve.http.media import Held, Media, from_base64
from hfvla.serve.http.metrics import ServerMetrics
from hfvla.serve.http.openai import ChatAsked, chunk, completion, parse_chat
from hfvla.serve.http.service import CHAT, ChatJob, Service
from hfvla.serve.http.writing import Answer, Writing

__all__ = ["ChatDesk"]


class ChatDesk:
    """Answers conversations of one service.

    Args:
        service: with `chat`.
        limits: see there.
        media: decodes pictures.
        queue: of the model.
        metrics: counts tokens.
        hosts: from which pictures may be fetched.
    """

    def __init__(
        self,
        service: Service,
        limits: HttpLimits,
        media: Media,
        queue: BatchQueue,
        metrics: ServerMetrics,
        hosts: Iterable[str] = (),
    ) -> None:
        self._service, self._limits, self._media = service, limits, media
        self._queue, self._metrics = queue, metrics
        self._fetcher = Fetcher(hosts, limits.body_bytes)
        self._created = int(time.time())

    def models(self) -> dict[str, Any]:
        """Return the list of the one model."""
        model = {"id": self._service.name, "object": "model", "created": self._created, "owned_by": "hfvla"}
        return {"object": "list", "data": [model]}

    async def complete(self, http: Any) -> Any:
        """Return the answer to a request.

        Raises:
            RequestError: another model, or a request that cannot be answered.
            BusyError: too much to do.
        """
        from fastapi.responses import JSONResponse, StreamingResponse

        asked = parse_chat(read_json(await http.body(), self._limits), self._limits)
        if asked.model not in ("", self._service.name):
            raise RequestError(
                "no such model", status=404, where="model", got=asked.model, expected=self._service.name
            )
        held, name = self._media.hold(), f"chatcmpl-{uuid.uuid4().hex}"
        try:
            pieces = await self._begin(asked, held)
            first = await anext(pieces)  # until here an error has a status of its own
            if asked.stream:
                body = self._events(name, asked, first, pieces, held)
                return StreamingResponse(body, media_type="text/event-stream", headers={"Cache-Control": "no-cache"})
            text = ""
            while not isinstance(first, Answer):
                text += first
                first = await anext(pieces)
        except BaseException:
            held.release()
            raise
        held.release()
        self._count(first)
        known = (text, first.finish, first.prompt_tokens, first.tokens)
        return JSONResponse(completion(name, self._service.name, *known))

    async def _begin(self, asked: ChatAsked, held: Held) -> AsyncIterator[Any]:
        """Put a conversation in the queue; return the pieces of its answer."""
        images = []
        for number, source in enumerate(asked.pictures):
            where = f"picture {number + 1}"
            content = await self._fetcher.get(source) if "://" in source[:20] else from_base64(source, where)
            images.append(await self._media.picture(content, where, held))
        videos = [await self._clip(source, f"video {n + 1}", held) for n, source in enumerate(asked.videos)]
        writing = Writing(asked.settings, self._limits.request_s)
        job = ChatJob(asked.turns, tuple(images), writing, tuple(videos))
        task = asyncio.create_task(self._queue.submit((CHAT,), job, self._limits.request_s))

        def ended(task: asyncio.Task[Any]) -> None:
            if not task.cancelled() and task.exception() is not None:
                writing.put(task.exception())

        task.add_done_callback(ended)
        return _until_left(writing, task)

    async def _clip(self, source: str, where: str, held: Held) -> str:
        if not self._service.takes_videos:
            raise RequestError("this model is shown no videos here", where=where, fix="Show pictures: image_url.")
        content = await self._fetcher.get(source) if "://" in source[:20] else from_base64(source, where)
        return await self._media.clip(content, held)

    async def _events(
        self, name: str, asked: ChatAsked, piece: Any, pieces: AsyncIterator[Any], held: Held
    ) -> AsyncIterator[str]:
        model = self._service.name
        try:
            yield _event(chunk(name, model, first=True))
            while not isinstance(piece, Answer):
                yield _event(chunk(name, model, text=piece))
                piece = await anext(pieces)
            self._count(piece)
            yield _event(chunk(name, model, finish=piece.finish))
            if asked.usage:
                yield _event(chunk(name, model, tokens=(piece.prompt_tokens, piece.tokens)))
            yield "data: [DONE]\n\n"
        except Exception as error:  # the head has gone out: the stream itself says that it is not whole
            yield _event(openai_body(error, name))
        finally:
            held.release()
            await pieces.aclose()  # type: ignore[attr-defined]

    def _count(self, answer: Answer) -> None:
        self._metrics.tokens.labels("prompt").inc(answer.prompt_tokens)
        self._metrics.tokens.labels("written").inc(answer.tokens)


async def _until_left(writing: Writing, task: asyncio.Task[Any]) -> AsyncIterator[Any]:
    """Yield the pieces of an answer; when nobody reads on, its place in the queue is free again."""
    try:
        async for piece in writing.pieces():
            yield piece
    finally:
        writing.leave()
        task.cancel()


def _event(content: dict[str, Any]) -> str:
    return f"data: {json.dumps(content, ensure_ascii=False)}\n\n"

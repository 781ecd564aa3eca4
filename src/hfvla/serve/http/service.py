"""What one server serves: a checkpoint's answers, its search, its conversations, and what it says of itself."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from hfvla.data.samples.chat import Turn
from hfvla.errors import HfvlaError
from hfvla.family import Request
from hfvla.nn.chat_prompt import ChatPrompt
from hfvla.serve.http.engine import Engine
from hfvla.serve.http.writing import Writing, write

__all__ = ["CHAT", "PREDICT", "SEARCH", "ChatJob", "PictureSearch", "Service"]

logger = logging.getLogger(__name__)

PREDICT, SEARCH, CHAT = "predict", "search", "chat"
"""Kinds of work; the first part of a lane's key."""

Chat = Callable[..., ChatPrompt]


@dataclass(frozen=True)
class ChatJob:
    """A conversation to be continued."""

    turns: tuple[Turn, ...]
    images: tuple[Any, ...]
    writing: Writing
    videos: tuple[str, ...] = ()


@dataclass(frozen=True)
class PictureSearch:
    """Texts against an index of pictures.

    Attributes:
        index: `hfvla.serve.index.PictureIndex`.
        embed_texts: unit vectors [T, D] of texts.
    """

    index: Any
    embed_texts: Callable[[Sequence[str]], Any]

    def find(self, asked: Sequence[tuple[str, int]]) -> list[dict[str, Any]]:
        """Return {"text", "searched", "results": [{"rank", "id", "score"}]} for each (text, how many)."""
        vectors = self.embed_texts([text for text, _ in asked])
        scores, numbers = self.index.search(vectors, max(count for _, count in asked))
        answers = []
        for (text, count), row, places in zip(asked, scores.tolist(), numbers.tolist(), strict=True):
            found = zip(row[:count], places[:count], strict=True)
            results = [
                {"rank": rank, "id": self.index.pictures[number].id, "score": score}
                for rank, (score, number) in enumerate(found, 1)
            ]
            answers.append({"text": text, "searched": len(self.index.pictures), "results": results})
        return answers


@dataclass(frozen=True)
class Service:
    """One checkpoint as the server sees it.

    Attributes:
        name: of the model, for clients.
        family: of the checkpoint.
        summary: one line about the family.
        engine: answers the family's requests; None for one that only chats.
        request: what these are.
        chat: makes turns and pictures the arguments of `generate`; None where the model does not write.
        takes_videos: whether `chat` also takes `videos=`, paths of clips.
        search: over the pictures of an index, or None.
        facts: what the family tells of this checkpoint; each has an address of its own.
        info: more about the checkpoint, for `/model_info`.
    """

    name: str
    family: str
    summary: str = ""
    engine: Engine | None = None
    request: Request | None = None
    chat: Chat | None = None
    takes_videos: bool = False
    search: PictureSearch | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)
    info: Mapping[str, Any] = field(default_factory=dict)

    def work(self, key: Hashable, items: list[Any]) -> Sequence[Any]:
        """Answer the items of one lane of the queue; called in the model's thread."""
        kind = key[0] if isinstance(key, tuple) else key
        if kind == CHAT:
            for job in items:
                self._write(job)
            return [None] * len(items)
        if kind == SEARCH and self.search is not None:
            return _each_or_all(self.search.find, items)
        if self.engine is None:
            raise RuntimeError(f"no engine for {kind!r}")
        return self.engine.answer(items)

    def _write(self, job: ChatJob) -> None:
        """Write one answer; whatever happens, its reader hears of it."""
        try:
            if self.chat is None:
                raise RuntimeError("this model does not write")
            shown = {"videos": job.videos} if job.videos else {}
            job.writing.put(write(self.chat(job.turns, job.images, **shown), job.writing))
        except Exception as error:
            if not isinstance(error, HfvlaError):
                logger.exception("an answer failed")
            job.writing.put(error)


def _each_or_all(call: Callable[[list[Any]], list[Any]], items: list[Any]) -> list[Any]:
    """Return the answers of one call, or of a call each where one of the items spoils it."""
    try:
        return call(items)
    except HfvlaError as error:
        if len(items) == 1:
            return [error]
    return [_each_or_all(call, [item])[0] for item in items]

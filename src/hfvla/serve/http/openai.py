"""The chat protocol of OpenAI's API: from a request to turns and pictures, and from an answer to its objects."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from hfvla.data.samples.chat import Part, Role, Turn
from hfvla.serve.http.errors import RequestError
from hfvla.serve.http.limits import HttpLimits

__all__ = ["ChatAsked", "ChatSettings", "chunk", "completion", "parse_chat"]

_IGNORED = {"user", "metadata", "store", "service_tier", "stream_options", "safety_identifier", "prompt_cache_key"}
_NEUTRAL: Mapping[str, tuple[Any, ...]] = {
    "n": (1, None),
    "frequency_penalty": (0, 0.0, None),
    "presence_penalty": (0, 0.0, None),
    "logprobs": (False, None),
    "top_logprobs": (0, None),
    "logit_bias": ({}, None),
    "tools": ([], None),
    "tool_choice": ("none", "auto", None),
    "parallel_tool_calls": (True, False, None),
    "response_format": ({"type": "text"}, None),
    "modalities": (["text"], None),
    "reasoning_effort": (None,),
}
_SHOWN: Mapping[Any, str] = {"image_url": "picture", "video_url": "video"}
"""Parts that show something; `video_url` is the form of vLLM's and sglang's servers, of which OpenAI's has none."""

_MOST_STOPS, _MOST_STOP_LETTERS, _MOST_TURNS = 4, 64, 256
_ROLES: Mapping[Any, Role] = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_SEEDS = range(-(2**63), 2**63)


@dataclass(frozen=True)
class ChatSettings:
    """How an answer is written.

    Attributes:
        max_tokens: of the answer.
        temperature: 0 takes the likeliest token; None does what the model's generation config says.
        top_p: share of the probability that is drawn from; None as above.
        stop: texts that end the answer, and are not part of it.
        seed: of what is drawn; None for another each time.
    """

    max_tokens: int
    temperature: float | None = None
    top_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None


@dataclass(frozen=True)
class ChatAsked:
    """A request for a chat completion.

    Attributes:
        turns: the conversation.
        pictures: what stands for each picture: a data URI, or an address.
        videos: the same of each video.
        settings: how the answer is written.
        stream: send it in pieces.
        usage: also tell how many tokens a stream has had.
        model: the name that was asked for.
    """

    turns: tuple[Turn, ...]
    pictures: tuple[str, ...]
    settings: ChatSettings
    stream: bool = False
    usage: bool = False
    model: str = ""
    videos: tuple[str, ...] = ()


@dataclass
class _Reader:
    """Reads messages, and gathers their pictures and videos."""

    limits: HttpLimits
    pictures: list[str] = field(default_factory=list)
    videos: list[str] = field(default_factory=list)

    def turn(self, message: Any, where: str) -> Turn:
        if not isinstance(message, Mapping):
            raise RequestError("not a message", where=where, expected="an object with role and content")
        said = message.get("role")
        if said not in _ROLES:
            raise RequestError("no such role", where=where, got=said, expected="system, user or assistant")
        role = _ROLES[said]
        content = message.get("content")
        if isinstance(content, str):
            return Turn(role, (Part("text", self._text(content, where)),))
        if not isinstance(content, list) or not content:
            raise RequestError("no content", where=where, expected="a text, or a list of parts")
        return Turn(role, tuple(self._part(part, role, f"{where}.content[{n}]") for n, part in enumerate(content)))

    def _part(self, part: Any, role: str, where: str) -> Part:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "text":
            return Part("text", self._text(part.get("text"), where))
        if kind not in _SHOWN:
            raise RequestError("no such part", where=where, got=kind, expected="text, image_url or video_url")
        name = _SHOWN[kind]
        if role != "user":
            raise RequestError(f"a {name} of another than the user", where=where, got=role)
        url = part.get(kind)
        url = url.get("url") if isinstance(url, Mapping) else url
        if not isinstance(url, str) or not url:
            expected = f'{{"url": "data:{str(kind).removesuffix("_url")}/...;base64,..."}}'
            raise RequestError(f"no {name}", where=where, expected=expected)
        if len(self.pictures) + len(self.videos) >= self.limits.pictures:
            raise RequestError(f"too many {name}s", status=413, expected=f"at most {self.limits.pictures}")
        (self.videos if kind == "video_url" else self.pictures).append(url)
        return Part("video" if kind == "video_url" else "image")

    def _text(self, text: Any, where: str) -> str:
        if not isinstance(text, str):
            raise RequestError("not a text", where=where, got=type(text).__name__)
        if len(text) > self.limits.text_letters:
            got, most = f"{len(text)} letters", self.limits.text_letters
            raise RequestError("the text is too long", status=413, where=where, got=got, expected=f"at most {most}")
        return text


def parse_chat(given: Mapping[str, Any], limits: HttpLimits) -> ChatAsked:
    """Return what a body asks for.

    Raises:
        RequestError: an unknown or unsupported field, or a value that is not allowed.
    """
    for name, value in given.items():
        if name in _NEUTRAL and not any(value is same or value == same for same in _NEUTRAL[name]):
            raise RequestError("not supported", where=name, got=value, fix="Leave it away.")
        if name not in _NEUTRAL and name not in _IGNORED and name not in _KNOWN:
            raise RequestError("no such field", where=name)
    messages = given.get("messages")
    if not isinstance(messages, list) or not 0 < len(messages) <= _MOST_TURNS:
        raise RequestError("no conversation", where="messages", expected=f"a list of 1 to {_MOST_TURNS} messages")
    reader = _Reader(limits)
    turns = tuple(reader.turn(message, f"messages[{number}]") for number, message in enumerate(messages))
    options = given.get("stream_options") or {}
    return ChatAsked(
        turns=turns,
        pictures=tuple(reader.pictures),
        videos=tuple(reader.videos),
        settings=_settings(given, limits),
        stream=_switch(given.get("stream"), "stream"),
        usage=_switch(options.get("include_usage") if isinstance(options, Mapping) else None, "stream_options"),
        model=str(given.get("model") or ""),
    )


_KNOWN = {"messages", "model", "stream", "max_tokens", "max_completion_tokens", "temperature", "top_p", "stop", "seed"}


def _settings(given: Mapping[str, Any], limits: HttpLimits) -> ChatSettings:
    wanted = given.get("max_completion_tokens") or given.get("max_tokens")
    stop = given.get("stop") or []
    stop = (stop,) if isinstance(stop, str) else tuple(stop) if isinstance(stop, list) else (None,)
    if len(stop) > _MOST_STOPS or not all(isinstance(s, str) and 0 < len(s) <= _MOST_STOP_LETTERS for s in stop):
        expected = f"at most {_MOST_STOPS} texts of 1 to {_MOST_STOP_LETTERS} letters"
        raise RequestError("not texts that end an answer", where="stop", expected=expected)
    seed = given.get("seed")
    if seed is not None and (type(seed) is not int or seed not in _SEEDS):
        raise RequestError("not a seed", where="seed", got=seed, expected="an integer of 64 bits")
    return ChatSettings(
        max_tokens=int(
            _number(limits.new_tokens if wanted is None else wanted, "max_tokens", 1, limits.new_tokens, int)
        ),
        temperature=_number(given.get("temperature"), "temperature", 0, 2),
        top_p=_number(given.get("top_p"), "top_p", 0, 1),
        stop=stop,
        seed=seed,
    )


def _number(value: Any, where: str, least: float, most: float, kind: Any = (int, float)) -> Any:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, kind) or not least <= value <= most:
        raise RequestError("not allowed", where=where, got=value, expected=f"{least} to {most}")
    return value


def _switch(value: Any, where: str) -> bool:
    if value is not None and not isinstance(value, bool):
        raise RequestError("not a switch", where=where, got=value, expected="true or false")
    return bool(value)


def completion(name: str, model: str, text: str, finish: str, prompt: int, written: int) -> dict[str, Any]:
    """Return a whole answer.

    Args:
        name: of the answer, "chatcmpl-...".
        model: of the model.
        text: the answer.
        finish: "stop" or "length".
        prompt: tokens of the conversation.
        written: tokens of the answer.
    """
    message = {"role": "assistant", "content": text, "refusal": None}
    choice = {"index": 0, "message": message, "finish_reason": finish, "logprobs": None}
    return _head(name, model, "chat.completion") | {"choices": [choice], "usage": _usage(prompt, written)}


def chunk(
    name: str,
    model: str,
    *,
    text: str | None = None,
    first: bool = False,
    finish: str | None = None,
    tokens: tuple[int, int] | None = None,
) -> dict[str, Any]:
    """Return a piece of an answer: its beginning, more text, its end, or (`tokens`) what it has cost."""
    delta: dict[str, Any] = {"role": "assistant", "content": ""} if first else {}
    delta = {"content": text} if text is not None else delta
    choices = [] if tokens else [{"index": 0, "delta": delta, "finish_reason": finish, "logprobs": None}]
    found = _head(name, model, "chat.completion.chunk") | {"choices": choices}
    return found | ({"usage": _usage(*tokens)} if tokens else {})


def _head(name: str, model: str, kind: str) -> dict[str, Any]:
    return {"id": name, "object": kind, "created": int(time.time()), "model": model}


def _usage(prompt: int, written: int) -> dict[str, int]:
    return {"prompt_tokens": prompt, "completion_tokens": written, "total_tokens": prompt + written}

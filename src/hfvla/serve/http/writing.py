"""Answers that are written token by token: in the model's thread, read from the event loop as they come."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hfvla.nn.chat_prompt import ChatPrompt
from hfvla.serve.http.errors import BusyError
from hfvla.serve.http.openai import ChatSettings

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = ["Answer", "Writing", "write", "written"]


@dataclass(frozen=True)
class Answer:
    """How an answer ended.

    Attributes:
        finish: "stop" or "length".
        prompt_tokens: of the conversation.
        tokens: that were written.
    """

    finish: str
    prompt_tokens: int
    tokens: int


class Writing:
    """One answer on its way from the model's thread to the event loop.

    Args:
        settings: of the answer.
        timeout_s: seconds that it may take, the queue included.
    """

    def __init__(self, settings: ChatSettings, timeout_s: float) -> None:
        self.settings = settings
        self.due_s = time.monotonic() + timeout_s
        self._loop = asyncio.get_running_loop()
        self._pieces: asyncio.Queue[Any] = asyncio.Queue()
        self._left = threading.Event()

    @property
    def unwanted(self) -> bool:
        """Whether nobody waits for it any more, or its time is over."""
        return self._left.is_set() or time.monotonic() > self.due_s

    def leave(self) -> None:
        """Stop it: nobody waits."""
        self._left.set()

    def put(self, piece: Any) -> None:
        """Hand on a piece of text, the `Answer` at the end, or an error; from any thread."""
        self._loop.call_soon_threadsafe(self._pieces.put_nowait, piece)

    async def pieces(self) -> AsyncIterator[Any]:
        """Yield pieces of text, and the `Answer` at the end.

        Raises:
            Exception: what went wrong.
        """
        try:
            while True:
                piece = await self._pieces.get()
                if isinstance(piece, BaseException):
                    raise piece
                yield piece
                if isinstance(piece, Answer):
                    return
        finally:
            self.leave()


class _Gathered:
    """Takes an answer in this thread; see `Writing`."""

    def __init__(self, settings: ChatSettings) -> None:
        self.settings, self.unwanted, self.text = settings, False, ""

    def put(self, piece: str) -> None:
        self.text += piece


def written(prompt: ChatPrompt, settings: ChatSettings) -> str:
    """Return the whole answer to a conversation, written in this thread."""
    gathered = _Gathered(settings)
    write(prompt, gathered)
    return gathered.text


class _Sink:
    """The streamer of `generate`: tokens in, text out, up to the first of the texts that end the answer."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, writing: Writing | _Gathered) -> None:
        from transformers import TextStreamer

        class Streamer(TextStreamer):
            def on_finalized_text(inner, text: str, stream_end: bool = False) -> None:  # noqa: N805
                self._add(text, stream_end)

        self._text = Streamer(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._writing, self._kept = writing, ""
        self._hold = max((len(stop) for stop in writing.settings.stop), default=1) - 1
        self.tokens, self.last_token, self.stopped, self._prompt_seen = 0, -1, False, False

    def put(self, value: Any) -> None:
        """Take the prompt once, then each token."""
        if self._prompt_seen:
            self.tokens += int(value.numel())
            self.last_token = int(value.flatten()[-1])
        self._prompt_seen = True
        self._text.put(value)

    def end(self) -> None:
        """Hand on what was held back."""
        self._text.end()

    def _add(self, text: str, last: bool) -> None:
        if self.stopped:
            return
        self._kept += text
        places = [place for stop in self._writing.settings.stop if (place := self._kept.find(stop)) >= 0]
        if places:
            self.stopped, self._kept, last = True, self._kept[: min(places)], True
        ready = len(self._kept) if last else max(0, len(self._kept) - self._hold)
        if ready:
            self._writing.put(self._kept[:ready])
        self._kept = self._kept[ready:]


def write(prompt: ChatPrompt, writing: Writing | _Gathered) -> Answer:
    """Write an answer; called in the model's thread.

    What does not end by itself ends with its tokens or its time, and says "length".

    Raises:
        BusyError: its time was over before the first token.
    """
    import torch
    from transformers import StoppingCriteria, StoppingCriteriaList

    settings = writing.settings
    if writing.unwanted:
        raise BusyError("the request's turn did not come", retry_after_s=5)
    sink = _Sink(prompt.tokenizer, writing)

    class Enough(StoppingCriteria):
        def __call__(self, input_ids: Any, scores: Any, **kwargs: Any) -> Any:
            end = sink.stopped or writing.unwanted
            return torch.full((input_ids.shape[0],), end, device=input_ids.device, dtype=torch.bool)

    most = settings.max_tokens if prompt.room is None else max(1, min(settings.max_tokens, prompt.room))
    options: dict[str, Any] = {**prompt.generation, "max_new_tokens": most, "streamer": sink}
    if settings.temperature is not None:
        options["do_sample"] = settings.temperature > 0
        if settings.temperature > 0:
            options["temperature"] = float(settings.temperature)
    if settings.top_p is not None and options.get("do_sample", True):
        options["top_p"] = float(settings.top_p)
    with torch.inference_mode(), torch.random.fork_rng(enabled=settings.seed is not None):
        if settings.seed is not None:
            torch.manual_seed(settings.seed)
        prompt.model.generate(**prompt.inputs, **options, stopping_criteria=StoppingCriteriaList([Enough()]))
    ends = options.get("eos_token_id", prompt.model.generation_config.eos_token_id)
    whole = sink.stopped or sink.last_token in (ends if isinstance(ends, list | tuple) else [ends])
    return Answer("stop" if whole else "length", prompt.prompt_tokens, sink.tokens)

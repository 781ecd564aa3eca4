"""`hfvla chat`: a conversation with a checkpoint in the terminal, with pictures and videos by their path."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hfvla.cli.output import importing, run_command
from hfvla.errors import HfvlaError
from hfvla.paths import expand_user

if TYPE_CHECKING:
    from hfvla.data.samples.chat import ImageRef
    from hfvla.family import ChatSystem

__all__ = ["chat", "converse"]

_HELP = (
    "A path alone, /image PATH or /video PATH shows a picture or video with the next question; "
    "/new begins anew, /quit ends."
)
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}
_VIDEOS = {".mp4", ".mov", ".m4v", ".mkv", ".webm", ".avi"}


def chat(
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", metavar="DIR", parser=expand_user, help="Checkpoint folder, or a hub id.")
    ],
    system: Annotated[str | None, typer.Option(help="What the model is told before the conversation.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 256,
    temperature: Annotated[float, typer.Option(min=0, help="0 writes the likeliest words; above 0 draws them.")] = 0.0,
    seed: Annotated[int, typer.Option(min=0, help="Seed of words that are drawn.")] = 0,
    device: Annotated[str | None, typer.Option(help="Torch device; default: a GPU if there is one.")] = None,
) -> None:
    """Talk with a checkpoint that answers about pictures."""

    def work() -> Any:
        if not math.isfinite(temperature):
            raise HfvlaError("a temperature is a number", where="--temperature", got=str(temperature))
        with importing():
            from transformers import set_seed

            from hfvla.evaluation.chat_system import load_chat_system

        answers = load_chat_system(checkpoint, device)
        set_seed(seed)
        typer.echo(_HELP, err=True)
        settings: dict[str, Any] = {"max_new_tokens": max_new_tokens, "temperature": temperature}
        converse(answers, _lines(), typer.echo, told=system, **settings)

    run_command(work, lambda _: None, as_json=False)


def _lines() -> Iterable[str]:
    """Yield what is typed, a line at a time, until the input ends."""
    while True:
        typer.echo("> ", nl=False, err=True)
        line = sys.stdin.readline()
        if not line:
            return
        yield line


def converse(
    system: ChatSystem,
    lines: Iterable[str],
    say: Callable[[str], object],
    *,
    told: str | None = None,
    max_new_tokens: int = 256,
    temperature: float = 0.0,
) -> None:
    """Answer lines one by one, each in the light of those before.

    What cannot be answered is said and left out of the conversation: a picture or video that cannot be read or that
    the model does not take, a question without room in the context.

    Args:
        system: how the model answers.
        lines: what the user says.
        say: takes each answer.
        told: system turn.
        max_new_tokens: of an answer.
        temperature: 0 writes the likeliest words; above 0 draws them.
    """
    from hfvla.data.samples.chat import ChatSample, Turn, text_turn

    drawn = {"temperature": temperature} if temperature > 0 else {}
    first: list[Turn] = [text_turn("system", told)] if told else []
    turns, seen, shown = list(first), _Shown(), _Shown()
    for line in map(str.strip, lines):
        if line == "/quit":
            return
        if line == "/new":
            turns, seen, shown = list(first), _Shown(), _Shown()
            continue
        try:
            if not line or shown.takes(line):
                continue
            asked = text_turn("user", line, images=len(shown.images), videos=len(shown.videos))
            together, shown = seen + shown, _Shown()
            sample = ChatSample("chat", (*turns, asked), tuple(together.images), tuple(together.videos))
            answer = system.write([sample], max_new_tokens, **drawn)[0]
        except HfvlaError as error:
            say(f"error: {error}")
            continue
        say(answer)
        turns, seen = [*turns, asked, text_turn("assistant", answer)], together


@dataclass(frozen=True)
class _Shown:
    """Pictures and videos of a conversation, or of its next question."""

    images: list[ImageRef] = field(default_factory=list)
    videos: list[str] = field(default_factory=list)

    def __add__(self, other: _Shown) -> _Shown:
        return _Shown([*self.images, *other.images], [*self.videos, *other.videos])

    def takes(self, line: str) -> bool:
        """Take the picture or video that a line names, and tell whether it names one.

        Raises:
            DataError: it cannot be read.
        """
        from hfvla.data.samples.chat import ImageRef
        from hfvla.data.samples.chat_pictures import load_reference
        from hfvla.data.video import probe

        if (path := _file_of(line, "/video ", _VIDEOS)) is not None:
            probe(path)
            self.videos.append(path)
        elif (path := _file_of(line, "/image ", _PICTURES)) is not None:
            load_reference(ImageRef(path=path), path)
            self.images.append(ImageRef(path=path))
        return path is not None


def _file_of(line: str, command: str, suffixes: Container[str]) -> str | None:
    """Return the path of a picture or video that a line names, or None where it is said to the model."""
    if line.startswith(command):
        return expand_user(line.removeprefix(command).strip().strip("'\""))
    path = Path(expand_user(line.strip("'\"")))
    try:
        return str(path) if path.suffix.lower() in suffixes and path.is_file() else None
    except (OSError, ValueError):
        return None

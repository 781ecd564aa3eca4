"""`hfvla chat`: a conversation with a checkpoint in the terminal, with pictures by their path."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from hfvla.cli.output import importing, run_command
from hfvla.paths import expand_user

if TYPE_CHECKING:
    from hfvla.family import ChatSystem

__all__ = ["chat", "converse"]

_HELP = "A path alone, or /image PATH, shows a picture with the next question; /new begins anew, /quit ends."
_PICTURES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"}


def chat(
    checkpoint: Annotated[
        str, typer.Option("--checkpoint", metavar="DIR", parser=expand_user, help="Checkpoint folder, or a hub id.")
    ],
    system: Annotated[str | None, typer.Option(help="What the model is told before the conversation.")] = None,
    max_new_tokens: Annotated[int, typer.Option(min=1, help="Most tokens of an answer.")] = 256,
    device: Annotated[str | None, typer.Option(help="Torch device; default: a GPU if there is one.")] = None,
) -> None:
    """Talk with a checkpoint that answers about pictures."""

    def work() -> Any:
        with importing():
            from hfvla.evaluation.chat_system import load_chat_system

        answers = load_chat_system(checkpoint, device)
        typer.echo(_HELP, err=True)
        converse(answers, _lines(), typer.echo, told=system, max_new_tokens=max_new_tokens)

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
) -> None:
    """Answer lines one by one, each in the light of those before.

    A line that cannot be answered (a picture that cannot be read, no room in the context) is said and left out of the
    conversation.

    Args:
        system: how the model answers.
        lines: what the user says.
        say: takes each answer.
        told: system turn.
        max_new_tokens: of an answer.
    """
    from hfvla.data.samples.chat import ChatSample, ImageRef, Turn, text_turn
    from hfvla.data.samples.chat_pictures import load_reference
    from hfvla.errors import HfvlaError

    first: list[Turn] = [text_turn("system", told)] if told else []
    turns: list[Turn] = list(first)
    images: list[ImageRef] = []
    shown: list[ImageRef] = []
    for line in map(str.strip, lines):
        if line == "/quit":
            return
        if line == "/new":
            turns, images, shown = list(first), [], []
        elif (path := _picture_of(line)) is not None:
            try:
                load_reference(ImageRef(path=path), path)
                shown.append(ImageRef(path=path))
            except HfvlaError as error:
                say(f"error: {error}")
        elif line:
            asked = text_turn("user", line, images=len(shown))
            sample = ChatSample("chat", (*turns, asked), images=(*images, *shown))
            try:
                answer = system.write([sample], max_new_tokens)[0]
            except HfvlaError as error:
                say(f"error: {error}")
                continue
            say(answer)
            turns += [asked, text_turn("assistant", answer)]
            images, shown = [*images, *shown], []


def _picture_of(line: str) -> str | None:
    """Return the path of a picture that a line names, or None where it is said to the model."""
    if line.startswith("/image "):
        return expand_user(line.removeprefix("/image ").strip().strip("'\""))
    path = Path(expand_user(line.strip("'\"")))
    try:
        return str(path) if path.suffix.lower() in _PICTURES and path.is_file() else None
    except (OSError, ValueError):
        return None

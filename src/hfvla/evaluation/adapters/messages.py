"""Messages of evaluation packages as `ChatSample`s."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from hfvla.data.samples.chat import ChatSample, ImageRef, Part, Turn
from hfvla.data.samples.chat_pictures import reference_of
from hfvla.errors import DataError

__all__ = ["chat_sample", "picture_reference"]


def picture_reference(value: Any, where: str) -> ImageRef:
    """Return the reference of a picture as packages give it: a PIL image, encoded bytes, or a path.

    Raises:
        DataError: something else, an address on the web included.
    """
    from PIL import Image

    if isinstance(value, Image.Image):
        return reference_of(value)
    if isinstance(value, bytes):
        return ImageRef(data=value)
    if isinstance(value, str | os.PathLike) and "://" not in str(value):
        return ImageRef(path=str(value))
    raise DataError("no picture", where=where, got=str(value)[:80], expected="a PIL image, encoded bytes or a path")


def chat_sample(name: str, messages: Iterable[Mapping[str, Any]]) -> ChatSample:
    """Return a conversation that waits for its answer.

    Args:
        name: for errors.
        messages: {"role", "content"}, content a text or parts {"type": "text", "text"} and {"type": "image"} with the
            picture as "image", "url" or "value".

    Raises:
        DataError: a video or sound, or no question at the end.
    """
    turns: list[Turn] = []
    images: list[ImageRef] = []
    for message in messages:
        content = message["content"]
        parts = []
        for part in [{"type": "text", "text": content}] if isinstance(content, str) else content:
            kind = part["type"]
            if kind == "text":
                parts.append(Part("text", str(part.get("text", part.get("value", "")))))
            elif kind == "image":
                value = next((part[key] for key in ("image", "url", "value") if part.get(key) is not None), None)
                images.append(picture_reference(value, f"{name}, picture {len(images)}"))
                parts.append(Part("image"))
            else:
                raise DataError("this adapter shows pictures and texts only", where=name, got=str(kind))
        turns.append(Turn(message["role"], tuple(parts)))
    if not turns or turns[-1].role != "user":
        raise DataError("a conversation that does not end in a question", where=name)
    return ChatSample(id=name, turns=tuple(turns), images=tuple(images))

"""What a row of any source holds for people: pictures, boxes in them, texts, and which of these are learned.

Rows are told by their columns: conversations (`messages`), steps of robot episodes (`views`), questions on video, and
anything else that has a picture's bytes or path.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL import Image

from hfvla.data.pictures import load_picture, picture_size
from hfvla.data.samples.chat import Box, ChatSample, ImageRef
from hfvla.data.samples.chat_pictures import encoded_bytes

__all__ = ["Said", "is_chat", "picture_sources", "row_boxes", "row_name", "row_pictures", "row_texts"]

PictureSource = str | bytes

_PICTURE_COLUMNS = ("image", "image_path", "picture", "path_of_image")
_PASSED_OVER = frozenset({"id", "group", "source", "split", "episode", "video", "details", "weight"})


@dataclass(frozen=True)
class Said:
    """A text of a row.

    Attributes:
        who: role of a turn, or name of a column.
        text: what it says.
        learned: whether a model learns to say it.
    """

    who: str
    text: str
    learned: bool = False


def is_chat(row: Mapping[str, Any]) -> bool:
    """Tell whether a row is of `hfvla.data.samples.chat.chat_features`."""
    return {"messages", "images", "boxes", "rejected"} <= set(row)


def row_name(row: Mapping[str, Any], number: int) -> str:
    """Return how a row is called: its id, else its episode and step, else its number."""
    if row.get("id"):
        return str(row["id"])
    if row.get("episode"):
        return f"{row['episode']}:{row.get('index', number)}"
    return f"row {number}"


def picture_sources(row: Mapping[str, Any]) -> list[PictureSource]:
    """Return what `hfvla.data.pictures` opens for each encoded picture of a row: a path or bytes.

    Pictures that lie inside a shard are read into memory; frames of videos are none.

    Raises:
        DataError: a shard cannot be read.
    """
    if is_chat(row):
        return [_of_reference(ref) for ref in row["images"]]
    found: list[PictureSource] = []
    for name in _PICTURE_COLUMNS:
        value = row.get(name)
        if isinstance(value, Mapping):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, bytes) and value or isinstance(value, str) and value and os.path.isfile(value):
            found.append(value)
    return found


def _of_reference(ref: Mapping[str, Any]) -> PictureSource:
    reference = ImageRef(ref["path"] or "", ref["bytes"] or b"", ref["offset"] or 0, ref["size"] or 0)
    whole_file = not reference.data and not reference.size
    return reference.path if whole_file else encoded_bytes(reference, reference.path or "picture")


def sizes_of(row: Mapping[str, Any], name: str) -> Iterator[tuple[int, int]]:
    """Yield width and height of each encoded picture, from its header.

    Raises:
        DataError: one cannot be read.
    """
    for number, source in enumerate(picture_sources(row)):
        yield picture_size(source, f"{name}, picture {number}")


def row_pictures(row: Mapping[str, Any], name: str, frames: Any = None) -> list[Image.Image]:
    """Return the pictures of a row, decoded: encoded ones, or the cameras' at a step.

    Args:
        row: the row.
        name: in errors.
        frames: a `FrameLoader` for rows with `views`; without one these have none.

    Raises:
        DataError: one cannot be read.
    """
    views = row.get("views")
    if views and frames is not None and isinstance(views, list) and isinstance(views[0], Mapping):
        from hfvla.data.samples.actions import ActionSample

        found = frames.load(list(ActionSample.from_row(row).views.values()))
        return [Image.fromarray(array) for array in found]
    return [load_picture(source, f"{name}, picture {number}") for number, source in enumerate(picture_sources(row))]


def row_boxes(row: Mapping[str, Any]) -> tuple[Box, ...]:
    """Return the boxes of a conversation; rows of other kinds have none that are known here."""
    return ChatSample.from_row(dict(row)).boxes if is_chat(row) else ()


def row_texts(row: Mapping[str, Any]) -> list[Said]:
    """Return the texts of a row in order; of a conversation, the assistant's trained turns are learned."""
    if is_chat(row):
        sample = ChatSample.from_row(dict(row))
        return [Said(turn.role, turn.text, turn.role == "assistant" and turn.train) for turn in sample.turns]
    found = []
    for name, value in row.items():
        if name in _PASSED_OVER:
            continue
        if isinstance(value, str) and value and not os.path.isabs(value):
            found.append(Said(name, value))
        elif isinstance(value, Sequence) and value and all(isinstance(part, str) for part in value):
            found.append(Said(name, "; ".join(value)))
    return found

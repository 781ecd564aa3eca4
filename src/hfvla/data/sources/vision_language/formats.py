"""The formats of vision-language sets: how each is told by its content, and what reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from hfvla.data.samples.chat import ChatSample
from hfvla.data.sources.vision_language import coco, conversations, generic
from hfvla.data.sources.vision_language.heads import Head
from hfvla.data.sources.vision_language.reading import Reading
from hfvla.data.sources.vision_language.records import Taken

__all__ = ["FORMATS", "Format", "recognise"]


@dataclass(frozen=True)
class Format:
    """A format.

    Attributes:
        name: as recipes have it.
        files: what its files hold, for the docs.
        becomes: what a record becomes, for the docs.
        told: says by the head of a file whether it is of this format.
        read: yields the samples of files.
    """

    name: str
    files: str
    becomes: str
    told: Callable[[Head], bool]
    read: Callable[[Taken, Reading], Iterator[ChatSample]]


def _has(head: Head, *keys: str) -> bool:
    return all(key in head.first for key in keys)


def _is_preference(head: Head) -> bool:
    return _has(head, "chosen", "rejected")


def _said(head: Head) -> Mapping[str, Any]:
    """Return the first message of the first record."""
    for key in ("messages", "conversations", "conversation"):
        value = head.first.get(key)
        if isinstance(value, list) and value and isinstance(value[0], Mapping):
            return value[0]
    return {}


FORMATS: tuple[Format, ...] = (
    Format(
        "coco_captions",
        "`captions_*.json`: `images`, `annotations` with `caption`",
        "a caption of a picture, all its captions as references",
        lambda head: "caption" in head.section("annotations") and "image_id" in head.section("annotations"),
        coco.read_captions,
    ),
    Format(
        "coco_instances",
        "`instances_*.json`: `images`, `annotations` with `bbox`, `categories`",
        "a question for the boxes of a category in a picture; crowds marked",
        lambda head: "bbox" in head.section("annotations") and "category_id" in head.section("annotations"),
        coco.read_instances,
    ),
    Format(
        "preference",
        "TRL: `prompt`, `chosen`, `rejected`, `images`",
        "a conversation with the rejected turns beside it",
        _is_preference,
        conversations.read_conversations,
    ),
    Format(
        "llava",
        "LLaVA-Instruct, ShareGPT: `conversations` of `from` and `value`, `image`",
        "a conversation",
        lambda head: "from" in _said(head),
        conversations.read_conversations,
    ),
    Format(
        "messages",
        "OpenAI, TRL: `messages` of `role` and `content`, `images`",
        "a conversation",
        lambda head: "role" in _said(head),
        conversations.read_conversations,
    ),
    Format(
        "table",
        "JSON list, JSON lines, Parquet, TSV or CSV with pictures and texts",
        "a caption or a question with its answer, by `mapping` or the usual names",
        lambda head: generic.guess_columns(head.first) is not None,
        generic.read_table,
    ),
)
"""The first that tells a file is its format."""


def recognise(head: Head) -> Format | None:
    """Return the format of a file, None where nothing tells it."""
    return next((one for one in FORMATS if one.told(head)), None)

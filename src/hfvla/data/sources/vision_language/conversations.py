r"""Conversations: LLaVA-Instruct and ShareGPT (`conversations`), OpenAI, TRL (`messages`, `chosen` and `rejected`).

    {"id": "0001", "image": "000000033471.jpg", "conversations": [{"from": "human", "value": "<image>\nWhat"}, ...]}
    {"images": ["a.jpg"], "messages": [{"role": "user", "content": [{"type": "image"}, {"type": "text", ...}]}]}
    {"images": [...], "texts": [{"user": "What ...", "assistant": "A dog."}]}
    {"prompt": [...], "chosen": [...], "rejected": [...], "images": [...]}

Where a conversation has pictures and no place for them, they come first in the first turn of the user.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from hfvla.data.samples.chat import Box, ChatSample, ImageRef, Part, Role, Turn
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.json_files import parse_json
from hfvla.data.sources.vision_language.image_files import check_bytes
from hfvla.data.sources.vision_language.reading import Reading, optional_text, record_id, spelled, text_of, weight_of
from hfvla.data.sources.vision_language.records import Taken, iterate_records
from hfvla.data.sources.vision_language.splits import image_group, split_of_path
from hfvla.data.text import text_problem
from hfvla.errors import DataError

__all__ = ["Named", "conversation_sample", "pictures_of", "read_conversations", "reference_of", "turns_of"]

_ROLES: Mapping[str, Role] = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "chatgpt": "assistant",
    "bing": "assistant",
    "bard": "assistant",
    "system": "system",
    "developer": "system",
}
_PLACES = re.compile(r"(<image>|<video>)\n?")
_TURNS = ("conversations", "conversation", "messages")
_PICTURES = ("images", "image", "image_path", "img")
_DATA_URI = re.compile(r"^data:image/[\w.+-]+;base64,", re.ASCII)


@dataclass
class Named:
    """What messages themselves name.

    Attributes:
        pictures: in their order.
        videos: in their order.
    """

    pictures: list[Any] = field(default_factory=list)
    videos: list[Any] = field(default_factory=list)


def conversation_sample(
    record: Any, where: str, path: Path, reading: Reading, source: str, split: str = ""
) -> ChatSample:
    """Return the sample of a record with a conversation or a preference pair.

    Args:
        record: as the file has it.
        where: its place, which is its id where it has none.
        path: of the file, which pictures are looked for beside.
        reading: of the source.
        source: name of the set.
        split: official one, "" where there is none.

    Raises:
        UnusableError: turns of no known form, a missing picture or video.
    """
    if not isinstance(record, Mapping):
        raise UnusableError("not an object", f"got {type(record).__name__}")
    said, worse, named = _both_sides(record)
    given = pictures_of(record)
    images = tuple(reference_of(one, path, reading) for one in [*given, *named.pictures])
    videos = tuple(_video(one, path, reading) for one in [*videos_of(record), *named.videos])
    system = optional_text(record.get("system"), "system")
    head = (Turn("system", (Part("text", system),)),) if system and (not said or said[0].role != "system") else ()
    said, worse = (*head, *said), (*head, *worse) if worse else ()
    first = next((one for one in [*given, *videos_of(record)] if isinstance(one, str)), "")
    identity = record.get("id", record.get("question_id"))
    return ChatSample(
        id=str(identity) if isinstance(identity, str | int) and str(identity) else where,
        turns=_placed(said, len(images), len(videos)),
        images=images,
        videos=videos,
        rejected=_placed(worse, len(images), len(videos)) if worse else (),
        source=_own(record, "source") or source,
        split=split,
        kind=optional_text(record.get("kind", record.get("type")), "kind"),
        references=spelled(_listed(record, "references")),
        boxes=_own_boxes(record),
        weight=weight_of(record.get("weight")),
        group=_own(record, "group")
        or (image_group(first) if first else f"{source}/{identity if identity is not None else where}"),
    )


def _own(record: Mapping[str, Any], key: str) -> str:
    """Return a text that a record of ours has beside the conversation (`hfvla data convert`); "" in other sets."""
    value = record.get(key)
    return value if isinstance(value, str) and not text_problem(value) else ""


def _listed(record: Mapping[str, Any], key: str) -> list[Any]:
    value = record.get(key)
    if isinstance(value, str) and value.startswith("["):  # in a table
        try:
            value = parse_json(value, key)
        except DataError as error:
            raise UnusableError(f"{key} that are no JSON", value[:120]) from error
    return list(value) if isinstance(value, list | tuple) else []


def _own_boxes(record: Mapping[str, Any]) -> tuple[Box, ...]:
    """Return boxes as `hfvla data convert` writes them; what other programs call boxes is passed over."""
    found = []
    for one in _listed(record, "boxes"):
        if isinstance(one, Mapping) and {"image", "label", "xyxy", "size"} <= one.keys():
            found.append(
                Box(one["image"], one["label"], tuple(one["xyxy"]), tuple(one["size"]), bool(one.get("crowd")))
            )
    return tuple(found)


def _both_sides(record: Mapping[str, Any]) -> tuple[tuple[Turn, ...], tuple[Turn, ...], Named]:
    """Return the turns, those of the worse answer, and the pictures and videos that messages bring with them."""
    named = Named()
    if "chosen" in record and "rejected" in record:
        prompt = record.get("prompt") if record.get("prompt") is not None else record.get("question")
        before = turns_of(prompt, "user", named) if prompt else ()
        return (
            (*before, *turns_of(record["chosen"], "assistant", named)),
            (*before, *turns_of(record["rejected"], "assistant", Named())),
            named,
        )
    for key in _TURNS:
        if record.get(key) is not None:
            return turns_of(record[key], "user", named), (), named
    if isinstance(record.get("texts"), list):
        return _pairs(record["texts"]), (), named
    raise UnusableError("no conversation", f"keys {sorted(map(str, record))}")


def _pairs(value: list[Any]) -> tuple[Turn, ...]:
    """Return the turns of questions and answers as the Cauldron and FineVision have them."""
    turns: list[Turn] = []
    for number, pair in enumerate(value):
        if not isinstance(pair, Mapping) or not {"user", "assistant"} <= pair.keys():
            raise UnusableError("no question with its answer", f"text {number}: {pair!r}"[:120])
        turns += [Turn("user", _parts(text_of(pair["user"], "turn")))]
        turns += [Turn("assistant", _parts(text_of(pair["assistant"], "turn")))]
    return tuple(turns)


def turns_of(value: Any, role: Role, named: Named) -> tuple[Turn, ...]:
    """Return the turns of a list of messages; a text alone is one turn of `role`.

    Args:
        value: messages, or a text.
        role: of a text alone.
        named: takes the pictures and videos that messages themselves name.

    Raises:
        UnusableError: a message of no known form or role.
    """
    if isinstance(value, str):
        return (Turn(role, _parts(text_of(value, "turn"))),)
    if not isinstance(value, list | tuple):
        raise UnusableError("messages are not a list", f"got {type(value).__name__}")
    turns = []
    for number, message in enumerate(value):
        if not isinstance(message, Mapping):
            raise UnusableError("message is not an object", f"message {number}: {message!r}"[:120])
        spoken = message.get("role", message.get("from"))
        speaker = _ROLES.get(spoken.casefold()) if isinstance(spoken, str) else None
        if speaker is None:
            raise UnusableError("unknown role", f"message {number}: {spoken!r}")
        content = message.get("content", message.get("value"))
        train = message.get("train", message.get("weight", True)) not in (False, 0)
        turns.append(Turn(speaker, _content(content, number, named), train=train))
    return tuple(turns)


def _content(content: Any, number: int, named: Named) -> tuple[Part, ...]:
    if isinstance(content, str):
        return _parts(text_of(content, "turn"))
    if not isinstance(content, list | tuple):
        raise UnusableError("turn is not text", f"message {number}: {content!r}"[:120])
    parts: list[Part] = []
    for piece in content:
        kind = piece.get("type") if isinstance(piece, Mapping) else None
        if isinstance(piece, str) or kind in ("text", "input_text", "output_text"):
            words = optional_text(piece if isinstance(piece, str) else piece.get("text"), "turn")
            parts += [Part("text", words)] if words else []
        elif kind in ("image", "image_url", "input_image"):
            parts.append(Part("image"))
            place = piece.get("image", piece.get("image_url", piece.get("url", piece.get("path"))))
            place = place.get("url") if isinstance(place, Mapping) and "url" in place else place
            named.pictures += [place] if place is not None else []
        elif kind in ("video", "video_url", "input_video"):
            parts.append(Part("video"))
            place = piece.get("video", piece.get("video_url", piece.get("url", piece.get("path"))))
            place = place.get("url") if isinstance(place, Mapping) and "url" in place else place
            named.videos += [place] if place is not None else []
        else:
            raise UnusableError("part of a message that is not read", f"message {number}: {kind!r}")
    return tuple(parts)


def _parts(text: str) -> tuple[Part, ...]:
    """Return a text cut at its placeholders."""
    if "<image>" not in text and "<video>" not in text:
        return (Part("text", text),)
    parts: list[Part] = []
    for piece in _PLACES.split(text):
        if piece in ("<image>", "<video>"):
            parts.append(Part("image" if piece == "<image>" else "video"))
        elif piece.strip():
            parts.append(Part("text", piece.strip("\n")))
    return tuple(parts)


def _placed(turns: tuple[Turn, ...], images: int, videos: int = 0) -> tuple[Turn, ...]:
    """Put pictures, and videos, before the first turn of the user where a conversation has no place for any."""
    there = {part.type for turn in turns for part in turn.content}
    shown_first: tuple[Part, ...] = (Part("image"),) * (0 if "image" in there else images)
    shown_first += (Part("video"),) * (0 if "video" in there else videos)
    if not shown_first:
        return turns
    first = next((number for number, turn in enumerate(turns) if turn.role == "user"), None)
    if first is None:
        return turns
    shown = replace(turns[first], content=(shown_first + turns[first].content))
    return (*turns[:first], shown, *turns[first + 1 :])


def pictures_of(record: Mapping[str, Any]) -> list[Any]:
    """Return the pictures that a record names or brings, in their order."""
    for key in _PICTURES:
        value = record.get(key)
        if value is not None and value != "":
            return list(value) if isinstance(value, list | tuple) else [value]
    return []


def videos_of(record: Mapping[str, Any]) -> list[Any]:
    """Return the videos that a record names, in their order."""
    for key in ("videos", "video"):
        value = record.get(key)
        if value is not None and value != "":
            return list(value) if isinstance(value, list | tuple) else [value]
    return []


def _video(value: Any, path: Path, reading: Reading) -> str:
    """Return the place of a video; bytes and addresses are not read."""
    if isinstance(value, Mapping):
        value = value.get("path") or value.get("url")
    if not isinstance(value, str):
        raise UnusableError("no video path", f"got {type(value).__name__}")
    if re.match(r"https?://", value):
        raise UnusableError("only the address of a video", value[:120])
    return reading.video(value.removeprefix("file://"), path)


def reference_of(value: Any, path: Path, reading: Reading) -> ImageRef:
    """Return the place or the bytes of a picture in any of the forms that sets have."""
    if isinstance(value, str) and not value.startswith(("data:", "http")):
        return reading.picture(value, path)
    if isinstance(value, Mapping):  # a picture of `datasets`
        value = value.get("bytes") or value.get("path") or value.get("url")
    if isinstance(value, ImageRef):
        return value
    if isinstance(value, str) and _DATA_URI.match(value):
        try:
            value = base64.b64decode(value.partition(",")[2], validate=True)
        except (binascii.Error, ValueError) as error:
            raise UnusableError("picture cannot be read", f"data URI: {error}") from error
    if isinstance(value, bytes):
        check_bytes(value, "picture in the record", reading.options.check_images)
        return ImageRef(data=value)
    if isinstance(value, str) and re.match(r"https?://", value):
        raise UnusableError("only the address of a picture", value[:120])
    if not isinstance(value, str):
        raise UnusableError("no image path", f"got {value!r}"[:120])
    return reading.picture(value, path)


def read_conversations(taken: Taken, reading: Reading) -> Iterator[ChatSample]:
    """Yield the samples of files of conversations or preference pairs."""
    for head in taken.heads:
        split = split_of_path(head.name)
        for where, record in iterate_records(head, reading):
            own = record.get("split") if isinstance(record, Mapping) else None
            told = own if isinstance(own, str) and own else split
            if not reading.wants(told):
                continue
            with reading.record(where, record_id(record, "id", "question_id")):
                sample = conversation_sample(record, where, head.path, reading, taken.source, told)
                yield from reading.take(sample, again="keep")

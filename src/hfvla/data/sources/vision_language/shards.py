"""Tars of samples (webdataset, img2dataset): pictures stay in their shard, and are read from it by offset and size.

    000000000.jpg, 000000000.txt, 000000000.json, 000000001.jpg, ...

Files of one sample follow each other and share their name up to the first dot. A text is the caption; without one, the
JSON's `caption`, or the conversation that it holds.
"""

from __future__ import annotations

import tarfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import IO, Any

from hfvla.data.samples.chat import ChatSample, ImageRef, text_turn
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.json_files import parse_json
from hfvla.data.sources.vision_language.conversations import conversation_sample
from hfvla.data.sources.vision_language.heads import Head
from hfvla.data.sources.vision_language.image_files import PICTURE_SUFFIXES, check_bytes
from hfvla.data.sources.vision_language.reading import Reading, text_of
from hfvla.data.sources.vision_language.records import Taken
from hfvla.data.sources.vision_language.splits import split_of_path
from hfvla.data.sources.vision_language.tar_members import iterate_members
from hfvla.errors import DataError

__all__ = ["is_shard", "read_shards"]

_TEXTS = ("txt", "caption", "text")
_HEADER_BYTES = 1 << 16
_LARGEST = 1 << 29  # bytes of a member that is read
_FORGET = 1000
_BUFFER = 1 << 18
_READ = frozenset((*_TEXTS, "json"))
_PICTURES = frozenset(suffix[1:] for suffix in PICTURE_SUFFIXES)


def is_shard(head: Head) -> bool:
    """Tell whether a tar holds pictures with texts."""
    if head.kind != "tar":
        return False
    suffixes = {suffix for record in head.records for suffix in record}
    return any(f".{suffix}" in PICTURE_SUFFIXES for suffix in suffixes) and bool(suffixes & {*_TEXTS, "json"})


@dataclass
class _Group:
    """The files of one sample."""

    key: str
    picture: ImageRef | None = None
    picture_name: str = ""
    texts: dict[str, bytes] = field(default_factory=dict)


def read_shards(taken: Taken, reading: Reading) -> Iterator[ChatSample]:
    """Yield a sample a group of files; a shard that is cut short is counted, and the next one is read."""
    for head in taken.heads:
        name, split = reading.name(head.path), split_of_path(head.name)
        if not reading.wants_file(head.path, split):
            continue
        groups = _groups(head, reading)
        while True:
            try:
                group = next(groups)
            except StopIteration:
                break
            except (tarfile.TarError, OSError, EOFError) as error:
                reading.reject(name, "", UnusableError("tar that is cut short or damaged", str(error)))
                break
            told = _own_split(group) or split
            if not reading.wants(told):
                continue
            with reading.record(f"{name}:{group.key}", group.key):
                sample = _sample(group, f"{name}:{group.key}", head, taken.source, reading)
                yield from reading.take(replace(sample, split=told))


def _groups(head: Head, reading: Reading) -> Iterator[_Group]:
    """Yield groups; streamed, with the pictures' bytes, or else with their places in the shard."""
    with open(head.path, "rb", buffering=_BUFFER) as file:
        packed = file.read(2) == b"\x1f\x8b"
        if packed and not reading.options.streaming:
            raise DataError(
                "a compressed tar has no places of pictures",
                where=str(head.path),
                fix="Unpack it to a plain .tar, or say streaming: true.",
            )
        group = _Group("")
        for name, picture, text in _packed_files(head) if packed else _files(file, head, reading.options.streaming):
            folder, slash, last = name.rpartition("/")
            if last.startswith("."):
                continue
            stem, _, suffix = last.partition(".")
            key = f"{folder}{slash}{stem}"
            if key != group.key:
                if group.key:
                    yield group
                group = _Group(key)
            if picture is not None and group.picture is None:  # others are masks and the like
                group.picture, group.picture_name = picture, name
            elif text is not None:
                group.texts[suffix.casefold()] = text
        if group.key:
            yield group


_File = tuple[str, ImageRef | None, bytes | None]  # name; a picture, or the bytes of a text


def _files(file: IO[bytes], head: Head, streamed: bool) -> Iterator[_File]:
    path = str(head.path)
    for name, offset, size in iterate_members(file):
        kind = _kind(name)
        if kind == "picture" and not streamed:
            yield name, ImageRef(path, offset=offset, size=size), None
        elif kind and size <= _LARGEST:
            file.seek(offset)
            data = file.read(size)
            yield (name, ImageRef(data=data), None) if kind == "picture" else (name, None, data)


def _packed_files(head: Head) -> Iterator[_File]:
    with tarfile.open(head.path, "r|*") as archive:
        for number, member in enumerate(archive):
            if number % _FORGET == 0:
                archive.members = []  # type: ignore[attr-defined]  # it would remember every file of the shard
            kind = _kind(member.name) if member.isfile() and member.size <= _LARGEST else ""
            content = archive.extractfile(member) if kind else None
            if content is not None:
                data = content.read()
                yield (member.name, ImageRef(data=data), None) if kind == "picture" else (member.name, None, data)


def _kind(name: str) -> str:
    """Return what a file of a sample is by its name: "picture", "text", or "" for what is passed over."""
    suffix = name.rpartition(".")[2].casefold()
    if suffix in _PICTURES:
        return "picture"
    return "text" if name.rpartition("/")[2].partition(".")[2].casefold() in _READ else ""


def _sample(group: _Group, where: str, head: Head, source: str, reading: Reading) -> ChatSample:
    facts = _facts(group, where)
    if group.picture is None:
        raise UnusableError("annotation without its picture", where)
    _check(group.picture, f"{where} ({group.picture_name})", reading)
    name = facts.get("sha256") or facts.get("url")
    same = f"{source}/{name if isinstance(name, str) else group.key}"
    text = next((group.texts[kind] for kind in _TEXTS if kind in group.texts), None)
    if text is None and any(key in facts for key in ("conversations", "messages", "chosen")):
        own = facts.get("group")
        same = own if isinstance(own, str) and own else same
        given = {**facts, "images": None, "image": group.picture, "id": group.key}
        return replace(conversation_sample(given, where, head.path, reading, source), id=group.key, group=same)
    caption = text.decode("utf-8-sig", "surrogateescape") if text is not None else facts.get("caption")
    return ChatSample(
        id=group.key,
        turns=(
            text_turn("user", reading.options.prompts.caption, images=1),
            text_turn("assistant", text_of(caption, "caption")),
        ),
        images=(group.picture,),
        references=(text_of(caption, "caption"),),
        kind="caption",
        source=source,
        group=same,
        details={"url": facts["url"]} if isinstance(facts.get("url"), str) else {},
    )


def _facts(group: _Group, where: str) -> Mapping[str, Any]:
    given = group.texts.get("json")
    if given is None:
        return {}
    try:
        found = parse_json(given.decode("utf-8-sig", "surrogateescape"), where)
    except DataError as error:
        raise UnusableError("JSON that cannot be read", error.what) from error
    return found if isinstance(found, Mapping) else {}


def _own_split(group: _Group) -> str:
    """Return the official split that a sample's JSON names, as `hfvla data convert` writes it; "" for none."""
    if b'"split"' not in group.texts.get("json", b""):
        return ""
    try:
        own = _facts(group, "").get("split")
    except UnusableError:  # counted where the sample is made
        return ""
    return own if isinstance(own, str) else ""


def _check(picture: ImageRef, where: str, reading: Reading) -> None:
    """Look at a picture in its shard as far as the recipe says; of a header, a part of the bytes mostly tells."""
    level = reading.options.check_images
    if picture.data or picture.size == 0:
        check_bytes(picture.data, where, level)
        return
    with open(picture.path, "rb") as file:
        file.seek(0, 2)
        if picture.offset + picture.size > file.tell():
            raise UnusableError("picture is cut off", f"{where}: {picture.size} bytes at {picture.offset}")
        if level == "exists":
            return
        file.seek(picture.offset)
        data = file.read(picture.size if level == "decode" else min(picture.size, _HEADER_BYTES))
        try:
            check_bytes(data, where, level)
        except UnusableError:
            if len(data) == picture.size:
                raise
            check_bytes(data + file.read(picture.size - len(data)), where, level)

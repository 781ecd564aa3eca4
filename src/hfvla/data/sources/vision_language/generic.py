"""Any list, JSON lines or table with pictures and texts: by a mapping of the recipe, or by the usual names."""

from __future__ import annotations

import re
import string
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from hfvla.data.samples.chat import ChatSample, Part, Turn, text_turn
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.vision_language.answers import majority
from hfvla.data.sources.vision_language.conversations import conversation_sample, reference_of
from hfvla.data.sources.vision_language.heads import Head
from hfvla.data.sources.vision_language.options import Columns
from hfvla.data.sources.vision_language.reading import (
    Reading,
    field_of,
    optional_text,
    record_id,
    text_of,
    texts_of,
    weight_of,
)
from hfvla.data.sources.vision_language.records import Taken, iterate_records
from hfvla.data.sources.vision_language.splits import image_group, split_of_path

__all__ = ["columns_of", "guess_columns", "mapped_sample", "read_table"]

_IMAGES = (
    *("image", "images", "image_path", "file_name", "filename", "filepath", "img", "img_path", "picture", "path"),
    *("jpg", "png", "webp", "url", "URL", "image_url", "1"),
)
_TEXTS = ("caption", "text", "TEXT", "txt", "description", "title", "0")
_QUESTIONS = ("question", "query", "instruction")
_ANSWERS = ("answers", "answer", "label", "multiple_choice_answer", "response", "output")
_IDS = ("id", "question_id", "key", "uid", "sample_id")


def guess_columns(record: Mapping[str, Any]) -> Columns | None:
    """Return which fields of a record hold what by the usual names; None where they tell nothing."""

    def first(names: tuple[str, ...]) -> str | None:
        return next((name for name in names if record.get(name) not in (None, "")), None)

    question, answer, text = first(_QUESTIONS), first(_ANSWERS), first(_TEXTS)
    image = first(_IMAGES)
    facts = {"image": image, "id": first(_IDS), "split": first(("split",)), "kind": first(("question_type",))}
    if question and answer:
        return Columns(question=question, answer=answer, **facts)
    if text and image and text != image:
        return Columns(text=text, **facts)
    return None


def columns_of(head: Head) -> tuple[Columns | None, str]:
    """Return which fields of a file's records hold what, and the part of an object that they are in."""
    if head.kind != "object":
        return guess_columns(head.first), ""
    lists = [name for name in head.sections if head.section(name)]
    told = next((name for name in lists if guess_columns(head.section(name))), "")
    return guess_columns(head.section(told)), told or next(iter(lists), "")


def read_table(taken: Taken, reading: Reading) -> Iterator[ChatSample]:
    """Yield the samples of files of records."""
    for head in taken.heads:
        columns, section = columns_of(head)
        columns = reading.options.mapping or columns
        if not reading.alone and columns and _addresses_alone(head, columns, reading):
            reading.address_files.append(head.name)
            continue
        split = split_of_path(head.name)
        for where, record in iterate_records(head, reading, section):
            own = record.get(columns.split) if columns and columns.split and isinstance(record, Mapping) else None
            told = str(own) if isinstance(own, str | int) and str(own) else split
            if not reading.wants(told):
                continue
            with reading.record(where, record_id(record, *_IDS)):
                chosen = columns or guess_columns(record if isinstance(record, Mapping) else {})
                if chosen is None:
                    raise UnusableError("no picture and text by any usual name", f"{record!r}"[:120])
                record = _with_picture(record, chosen, where, head, reading)
                sample = mapped_sample(record, where, head.path, reading, chosen, taken.source)
                yield from reading.take(replace(sample, split=told), again="keep")


def _is_address(value: Any) -> bool:
    return isinstance(value, str) and value.startswith(("http://", "https://"))


def _with_picture(record: Any, columns: Columns, where: str, head: Head, reading: Reading) -> Any:
    """Return a record of Conceptual Captions with the name under which its own script keeps the picture.

    That is the row's number and the checksum of the address, without a suffix.
    """
    if not isinstance(record, Mapping) or not columns.image or not _is_address(record.get(columns.image)):
        return record
    address = record[columns.image]
    row = int(where.rpartition(":")[2]) - (head.kind in ("tsv", "csv", "jsonl"))
    name = f"{row}_{zlib.crc32(address.encode(errors='surrogateescape'))}"
    try:
        reading.picture([name, f"{name}.jpg"], head.path)
    except UnusableError as problem:
        if problem.reason != "annotation without its picture":
            raise
        raise UnusableError("only the address of a picture", address[:120]) from None
    return {**record, columns.image: name}


def _addresses_alone(head: Head, columns: Columns, reading: Reading) -> bool:
    """Tell whether the first records of a file all name pictures that nobody fetched."""
    if not columns.image or not head.records:
        return False
    for number, record in enumerate(head.records):
        try:
            place = f":{number + (head.kind in ('tsv', 'csv', 'jsonl'))}"
            if _with_picture(record, columns, place, head, reading) is record:
                return False
        except UnusableError:
            continue
        return False
    return True


def mapped_sample(record: Any, where: str, path: Path, reading: Reading, columns: Columns, source: str) -> ChatSample:
    """Return the sample of a record by a mapping.

    Raises:
        UnusableError: a field that is missing or of another kind, or a missing picture.
    """
    if not isinstance(record, Mapping):
        raise UnusableError("not an object", f"got {type(record).__name__}")
    named = _pictures(record, columns)
    if columns.messages:
        given = {"messages": field_of(record, columns.messages), "images": named}
        given["id"] = record_id(record, columns.id or "id")
        given["weight"] = field_of(record, columns.weight) if columns.weight else None
        given = {key: value for key, value in given.items() if value or key == "weight"}
        return conversation_sample(given, where, path, reading, source)
    images = tuple(reference_of(one, path, reading) for one in named)
    turns, references, kind = _said(record, columns, reading, len(images))
    if columns.system:
        turns = (Turn("system", (Part("text", text_of(field_of(record, columns.system), columns.system)),)), *turns)
    name = next((one for one in named if isinstance(one, str)), "")
    identity = record_id(record, *((columns.id,) if columns.id else _IDS)) or where
    group = record_id(record, columns.group) if columns.group else ""
    return ChatSample(
        id=identity,
        turns=turns,
        images=images,
        references=references,
        kind=optional_text(record.get(columns.kind), "kind") if columns.kind else kind,
        source=source,
        weight=weight_of(field_of(record, columns.weight)) if columns.weight else 1.0,
        group=group or (image_group(name) if name else f"{source}/{identity}"),
    )


def _said(
    record: Mapping[str, Any], columns: Columns, reading: Reading, images: int
) -> tuple[tuple[Turn, ...], tuple[str, ...], str]:
    prompts = reading.options.prompts
    if columns.text:
        value = field_of(record, columns.text)
        texts = texts_of(value, columns.text) if isinstance(value, list | tuple) else (text_of(value, columns.text),)
        return (text_turn("user", prompts.caption, images=images), text_turn("assistant", texts[0])), texts, "caption"
    question = text_of(field_of(record, columns.question or ""), "question")
    value = field_of(record, columns.answer or "")
    answers = texts_of(value, "answers") if isinstance(value, list | tuple) else (text_of(value, "answer"),)
    asked = "\n".join(part for part in (question, prompts.answer) if part)
    turns = (text_turn("user", asked, images=images), text_turn("assistant", majority(answers)))
    return turns, answers, "vqa"


def _pictures(record: Mapping[str, Any], columns: Columns) -> list[Any]:
    """Return what the record's picture field holds, or the template's names."""
    if not columns.image:
        return []
    if "{" in columns.image:
        return [_filled(columns.image, record)]
    value = field_of(record, columns.image)
    return list(value) if isinstance(value, list | tuple) else [value]


class _Fields(string.Formatter):
    """Fills a template with a record's fields, and reaches for nothing inside of them."""

    def get_field(self, name: str, args: Any, kwargs: Any) -> Any:
        if not re.fullmatch(r"\w+", name):
            raise UnusableError("template of a picture with more than a field's name", name)
        return field_of(kwargs, name), name


def _filled(template: str, record: Mapping[str, Any]) -> str:
    try:
        return _Fields().vformat(template, (), record)
    except (ValueError, TypeError, IndexError) as error:
        raise UnusableError("template of a picture that does not fit", f"{template}: {error}") from error

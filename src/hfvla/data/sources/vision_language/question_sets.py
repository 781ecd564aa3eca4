"""Question sets of one file: A-OKVQA, GQA, OCR-VQA, TextVQA; and TextCaps, which shares TextVQA's pictures."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from hfvla.data.samples.chat import ChatSample, text_turn
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.vision_language.answers import majority
from hfvla.data.sources.vision_language.json_stream import iterate_json
from hfvla.data.sources.vision_language.questions import question_sample
from hfvla.data.sources.vision_language.reading import (
    Reading,
    field_of,
    optional_text,
    record_id,
    spelled,
    text_of,
    texts_of,
)
from hfvla.data.sources.vision_language.records import Taken, iterate_records
from hfvla.data.sources.vision_language.splits import image_group, split_of_path

__all__ = ["read_aokvqa", "read_gqa", "read_ocr_vqa", "read_textcaps", "read_textvqa"]

_OCR_SPLITS = {1: "train", 2: "val", 3: "test"}


def _split(record: Any, key: str, otherwise: str) -> str:
    told = record.get(key) if isinstance(record, Mapping) else None
    return told if isinstance(told, str) and told else otherwise


def _samples(
    taken: Taken,
    reading: Reading,
    make: Callable[[Any, str, Path], ChatSample],
    *,
    name: str,
    split: str,
    section: str = "",
) -> Iterator[ChatSample]:
    """Yield what `make(record, split, file)` makes of each record that is wanted.

    Args:
        taken: the files.
        reading: counts what cannot be used.
        make: one sample.
        name: field of a record's id.
        split: field of its split; else its file says.
        section: of a JSON object, the list that is read.
    """
    for head in taken.heads:
        for where, record in iterate_records(head, reading, section):
            found = _split(record, split, split_of_path(head.name))
            if not reading.wants(found):
                continue
            with reading.record(where, record_id(record, name)):
                yield from reading.take(make(record, found, head.path))


def read_aokvqa(taken: Taken, reading: Reading) -> Iterator[ChatSample]:
    """Yield a sample a question: the right choice is the answer, direct answers are the references."""

    def make(record: Any, split: str, file: Path) -> ChatSample:
        question = text_of(field_of(record, "question"), "question")
        choices = texts_of(record["choices"], "choices") if record.get("choices") else ()
        direct = spelled(record.get("direct_answers") or ())
        number = field_of(record, "image_id")
        if isinstance(number, bool) or not isinstance(number, int):
            raise UnusableError("image_id is no number", repr(number))
        name = f"{number:012d}.jpg"
        return question_sample(
            reading,
            name=record_id(record, "question_id"),
            question=question,
            answer=_chosen(choices, record.get("correct_choice_idx"), direct),
            picture=reading.picture([name, f"COCO_{split}2014_{name}"], file, split),
            references=direct,
            choices=choices,
            rationales=spelled(record.get("rationales") or ()),
            source=taken.source,
            split=split,
            group=image_group(name),
            details={"difficult_direct_answer": record.get("difficult_direct_answer")},
        )

    yield from _samples(taken, reading, make, name="question_id", split="split")


def _chosen(choices: tuple[str, ...], place: Any, direct: tuple[str, ...]) -> str:
    if place is not None:
        if isinstance(place, bool) or not isinstance(place, int) or not 0 <= place < len(choices):
            raise UnusableError("correct choice that is none", f"{place!r} of {len(choices)} choices")
        return choices[place]
    if not direct:
        raise UnusableError("question without its answer", "neither correct_choice_idx nor direct_answers")
    return majority(direct)


def read_gqa(taken: Taken, reading: Reading) -> Iterator[ChatSample]:
    """Yield a sample a question; the full answer is kept as a detail."""
    for head in taken.heads:
        split, name = split_of_path(os.path.basename(head.name)) or split_of_path(head.name), reading.name(head.path)
        if not reading.wants_file(head.path, split):
            continue
        for key, _, record in iterate_json(head.path):
            with reading.record(f"{name}:{key}", key):
                picture = f"{text_of(str(field_of(record, 'imageId')), 'imageId')}.jpg"
                types = record.get("types") if isinstance(record.get("types"), Mapping) else {}
                sample = question_sample(
                    reading,
                    name=key,
                    question=text_of(field_of(record, "question"), "question"),
                    answer=text_of(field_of(record, "answer"), "answer"),
                    picture=reading.picture(picture, head.path, split),
                    kind=optional_text(types.get("structural"), "type"),
                    source=taken.source,
                    split=split,
                    group=image_group(picture, "vg"),
                    details={"full_answer": record.get("fullAnswer"), "balanced": record.get("isBalanced")},
                )
                yield from reading.take(sample)


def read_ocr_vqa(taken: Taken, reading: Reading) -> Iterator[ChatSample]:
    """Yield a sample a question of each book's cover."""
    for head in taken.heads:
        name = reading.name(head.path)
        for key, _, record in iterate_json(head.path):
            told = record.get("split") if isinstance(record, Mapping) else None
            split = _OCR_SPLITS.get(told, "") if isinstance(told, int) else ""
            if split and not reading.wants(split):
                continue
            with reading.record(f"{name}:{key}", key):
                if not split:
                    raise UnusableError("unknown split", f"{told!r}, expected 1, 2 or 3")
                questions, answers = record.get("questions"), record.get("answers")
                if not isinstance(questions, list) or not isinstance(answers, list) or len(questions) != len(answers):
                    raise UnusableError("questions and answers differ in number", f"{questions!r}, {answers!r}"[:120])
                suffix = os.path.splitext(str(record.get("imageURL", "")))[1] or ".jpg"
                picture = reading.picture([f"images/{key}{suffix}", f"images/{key}.jpg", f"{key}{suffix}"], head.path)
                for number, (question, answer) in enumerate(zip(questions, answers, strict=True)):
                    sample = question_sample(
                        reading,
                        name=f"{key}-{number}",
                        question=text_of(question, "question"),
                        answer=text_of(str(answer), "answer"),
                        picture=picture,
                        source=taken.source,
                        split=split,
                        group=image_group(key, "ocr_vqa"),
                        details={"title": record.get("title"), "genre": record.get("genre")},
                    )
                    yield from reading.take(sample)


def _openimages(record: Any) -> list[str]:
    """Return the names of a picture of Open Images: its folders are not those that records of TextCaps name."""
    name = text_of(field_of(record, "image_id"), "image_id")
    told = record.get("image_path")
    folders = ["train_images", "test_images"]
    return [*([told] if isinstance(told, str) else []), *(f"{folder}/{name}.jpg" for folder in folders), f"{name}.jpg"]


def read_textvqa(taken: Taken, reading: Reading) -> Iterator[ChatSample]:
    """Yield a sample a question; the answer of most is learned, all are references."""

    def make(record: Any, split: str, file: Path) -> ChatSample:
        question = text_of(field_of(record, "question"), "question")
        answers = texts_of(field_of(record, "answers"), "answers")
        return question_sample(
            reading,
            name=record_id(record, "question_id"),
            question=question,
            answer=majority(answers),
            picture=reading.picture(_openimages(record), file, split),
            references=answers,
            source=taken.source,
            split=split,
            group=image_group(str(record["image_id"]), "openimages"),
        )

    yield from _samples(taken, reading, make, name="question_id", split="set_name", section="data")


def read_textcaps(taken: Taken, reading: Reading) -> Iterator[ChatSample]:
    """Yield a sample a caption; its references are all captions of the picture."""

    def make(record: Any, split: str, file: Path) -> ChatSample:
        caption = text_of(field_of(record, "caption_str"), "caption")
        asked = text_turn("user", reading.options.prompts.caption, images=1)
        return ChatSample(
            id=record_id(record, "caption_id"),
            turns=(asked, text_turn("assistant", caption)),
            images=(reading.picture(_openimages(record), file, split),),
            references=spelled(record.get("reference_strs") or ()) or (caption,),
            kind="caption",
            source=taken.source,
            split=split,
            group=image_group(str(record["image_id"]), "openimages"),
        )

    yield from _samples(taken, reading, make, name="caption_id", split="set_name", section="data")

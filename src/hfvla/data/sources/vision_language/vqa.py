"""VQAv2 and OK-VQA: question files joined with answer files by question and picture.

    {"data_subtype": "train2014", "questions": [{"question_id", "image_id", "question"}]}
    {"data_subtype": "train2014", "annotations": [{"question_id", "image_id", "multiple_choice_answer",
     "answers": [{"answer", "answer_confidence", "answer_id"}], "question_type", "answer_type"}]}

OK-VQA's annotations have no `multiple_choice_answer`, and each answer its `raw_answer`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

from hfvla.data.samples.chat import ChatSample
from hfvla.data.sources.census import UnusableError
from hfvla.data.sources.vision_language.answers import majority
from hfvla.data.sources.vision_language.heads import Head
from hfvla.data.sources.vision_language.questions import question_sample
from hfvla.data.sources.vision_language.reading import Reading, field_of, optional_text, record_id, spelled, text_of
from hfvla.data.sources.vision_language.records import Taken, iterate_records
from hfvla.data.sources.vision_language.splits import image_group, split_of_path
from hfvla.data.sources.vision_language.store import Store

__all__ = ["is_answers", "is_questions", "read_vqa", "subtype_of"]

_SUBTYPE = re.compile(r"(train|val|test(-dev)?)20\d\d")


def is_questions(head: Head) -> bool:
    """Tell whether a file holds the questions."""
    first = head.section("questions")
    return {"question_id", "image_id", "question"} <= first.keys()


def is_answers(head: Head) -> bool:
    """Tell whether a file holds the answers."""
    first = head.section("annotations")
    return {"question_id", "image_id", "answers"} <= first.keys()


def subtype_of(head: Head) -> str:
    """Return "train2014" and the like: as the file says, or as its name does, or the split alone."""
    told = next(iter(head.sections.get("data_subtype", ())), None)
    if isinstance(told, str) and told:
        return told
    named = _SUBTYPE.search(head.path.name)
    return named[0] if named else split_of_path(head.name)


def read_vqa(taken: Taken, reading: Reading) -> Iterator[ChatSample]:
    """Yield a sample a question."""
    questions = [head for head in taken.heads if is_questions(head)]
    with Store() as answers:
        wanted = [head for head in questions if reading.wants_file(head.path, split_of_path(subtype_of(head)))]
        for head in taken.heads if wanted else ():
            if is_answers(head):
                for _, record in iterate_records(head, reading, "annotations"):
                    if isinstance(record, Mapping):
                        answers.put(_key(record), json.dumps(_kept(record)))
        answers.sort()
        for head in wanted:
            subtype = subtype_of(head)
            split = split_of_path(subtype)
            for where, record in iterate_records(head, reading, "questions"):
                with reading.record(where, record_id(record, "question_id")):
                    yield from reading.take(_sample(record, head, subtype, split, answers, reading))


def _key(record: Any) -> str:
    return f"{record_id(record, 'question_id')}/{record_id(record, 'image_id')}"


def _kept(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is needed of an annotation."""
    given = record.get("answers")
    listed = given if isinstance(given, list) else []
    return {
        "best": record.get("multiple_choice_answer"),
        "answers": [one.get("answer") if isinstance(one, Mapping) else one for one in listed],
        "raw": any(isinstance(one, Mapping) and "raw_answer" in one for one in listed),
        "type": record.get("question_type"),
        "kind": record.get("answer_type"),
    }


def _sample(record: Any, head: Head, subtype: str, split: str, answers: Store, reading: Reading) -> ChatSample:
    question = text_of(field_of(record, "question"), "question")
    number = field_of(record, "image_id")
    found = [json.loads(one) for one in answers.get(_key(record))]
    if not found:
        raise UnusableError("question without its answer", f"question_id {record.get('question_id')!r}")
    if len(found) > 1:
        raise UnusableError("question with several annotations", f"question_id {record.get('question_id')!r}")
    given = spelled(found[0]["answers"])
    best = optional_text(found[0]["best"], "answer")
    if not given and not best:
        raise UnusableError("no answers", repr(found[0]["answers"])[:120])
    names = _names(number, subtype)
    # OK-VQA's types are numbers of its ten topics.
    kind, topic = ("", found[0]["type"]) if found[0]["raw"] else (optional_text(found[0]["type"], "question_type"), "")
    return question_sample(
        reading,
        name=record_id(record, "question_id"),
        question=question,
        answer=best or majority(given),
        picture=reading.picture(names, head.path, split),
        references=given,
        kind=kind,
        source="okvqa" if found[0]["raw"] else "vqav2",
        split=split,
        group=image_group(names[0]),
        details={"answer_type": found[0]["kind"], "topic": topic},
    )


def _names(number: Any, subtype: str) -> list[str]:
    """Return the names under which a picture of COCO may lie: of 2014 and of 2017."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 0:
        raise UnusableError("image_id is no number", repr(number))
    folder = subtype.replace("test-dev", "test").replace("dev", "")
    years = [folder] if folder[-4:].isdigit() else [f"{folder}2014"]
    return [f"COCO_{years[0]}_{number:012d}.jpg", f"{number:012d}.jpg"]

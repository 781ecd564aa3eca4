"""What a sample asks for, told from the sample itself: that decides how its answer is scored."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from hfvla.data.samples.chat import ChatSample
from hfvla.errors import DataError

__all__ = [
    "TASKS",
    "Task",
    "asked",
    "choices_of",
    "gold_choice",
    "question_of",
    "references_of",
    "task_of",
    "tasks_of",
]

Task = Literal["choice", "box", "vqa", "exact", "caption", "text"]
TASKS: tuple[Task, ...] = ("vqa", "exact", "choice", "box", "caption", "text")

_PEOPLE = 4  # answers to a question from which on they are a vote
_SHORT_WORDS = 5
_NUMBERS = re.compile(r"\d+(?:\.\d+)?")
_ENDS_IN = re.compile(r"\bthe answer is:?\s+([^\n]+?)\.?\s*$", re.IGNORECASE)
_CAPTIONS = ("caption", "region")


def question_of(sample: ChatSample) -> str:
    """Return what the user said last."""
    return next((turn.text.strip() for turn in reversed(sample.turns) if turn.role == "user"), "")


def answer_of(sample: ChatSample) -> str:
    """Return what the last turn says where it is the assistant's, else ""."""
    last = sample.turns[-1] if sample.turns else None
    return last.text.strip() if last is not None and last.role == "assistant" else ""


def references_of(sample: ChatSample) -> tuple[str, ...]:
    """Return the accepted answers: the sample's references, else what its last turn says."""
    told = answer_of(sample)
    return sample.references or ((told,) if told else ())


def final_answer(text: str, sample: ChatSample) -> str:
    """Return what a text that reasons first ends in, where the sample's own answer is of that kind.

    "They wear helmets. The answer is skiing." becomes "skiing".
    """
    if not _ENDS_IN.search(answer_of(sample)):
        return text
    found = _ENDS_IN.search(text)
    return found[1] if found else text


def asked(sample: ChatSample) -> ChatSample:
    """Return the sample up to the last question, as a model is asked it.

    Raises:
        DataError: nobody asks anything.
    """
    turns = sample.turns
    while turns and turns[-1].role != "user":
        turns = turns[:-1]
    if not turns:
        raise DataError("a conversation without a question", where=sample.id)
    return replace(sample, turns=turns, rejected=())


def choices_of(sample: ChatSample) -> tuple[str, ...]:
    """Return the choices of a multiple-choice question, or () for another one.

    Sources put them into `details["choices"]` as a JSON list.

    Raises:
        DataError: they are no list of texts.
    """
    text = sample.details.get("choices", "")
    if not text:
        return ()
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError("choices are not JSON", where=sample.id, got=text[:80], expected='["...", ...]') from error
    if not isinstance(found, list) or not all(isinstance(choice, str) for choice in found):
        raise DataError("choices are no list of texts", where=sample.id, got=text[:80])
    return tuple(found)


def gold_choice(sample: ChatSample) -> int:
    """Return the index of the right choice, -1 when unknown: a letter or the text of a choice.

    It is `details["answer"]`, else what the last turn says, else the first reference that is a choice.
    """
    choices = choices_of(sample)
    for said in (sample.details.get("answer", ""), answer_of(sample), *references_of(sample)):
        text = said.strip()
        if len(text) == 1 and 0 <= ord(text.upper()) - ord("A") < len(choices):
            return ord(text.upper()) - ord("A")
        if text in choices:
            return choices.index(text)
    return -1


def task_of(sample: ChatSample) -> Task:
    """Return what a sample asks for.

    "choice" where the question shows choices; "box" where there are boxes and the answer is made of numbers;
    "caption" where the source says so by `kind`, or where several references are longer than an answer; "vqa" where
    at least four people gave a short answer; "exact" for one short answer; "text" for all else.
    """
    choices, question = choices_of(sample), question_of(sample)
    if choices and all(choice in question for choice in choices):
        return "choice"
    references = references_of(sample)
    if sample.boxes and len(_NUMBERS.findall(answer_of(sample))) >= 4:
        return "box"
    if any(word in sample.kind.lower() for word in _CAPTIONS):
        return "caption"
    words = sorted(len(reference.split()) for reference in references)
    if words and words[len(words) // 2] <= _SHORT_WORDS:
        return "vqa" if len(references) >= _PEOPLE else "exact"
    return "caption" if len(references) >= _PEOPLE else "text"


def tasks_of(samples: Sequence[ChatSample]) -> list[Task]:
    """Return `task_of` of each; questions of one source and kind of answer are scored alike.

    A source with votes in which a few questions have fewer votes is scored as votes as far as there are two.
    """
    found = [task_of(sample) for sample in samples]
    votes = {sample.source for sample, task in zip(samples, found, strict=True) if task == "vqa"}
    return [
        "vqa" if task == "exact" and sample.source in votes and len(references_of(sample)) > 1 else task
        for sample, task in zip(samples, found, strict=True)
    ]

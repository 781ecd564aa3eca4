"""Questions with answers of several people: what every such set's reader makes of a record."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from hfvla.data.samples.chat import ChatSample, ImageRef, text_turn
from hfvla.data.sources.vision_language.reading import Reading

__all__ = ["question_kind", "question_sample"]

_WORDS = 2
_LETTERS = "ABCDEFGH"


def question_kind(question: str) -> str:
    """Return a question's first words, which is how VQA names its types: "what is", "how many"."""
    return " ".join(re.findall(r"[\w'-]+", question.casefold())[:_WORDS])


def question_sample(
    reading: Reading,
    *,
    name: str,
    question: str,
    answer: str,
    picture: ImageRef,
    references: Sequence[str] = (),
    choices: Sequence[str] = (),
    rationales: Sequence[str] = (),
    kind: str = "",
    source: str,
    split: str,
    group: str,
    details: Mapping[str, Any] | None = None,
) -> ChatSample:
    """Return the sample of a question.

    The recipe decides whether choices stand in the prompt and a rationale before the answer; both are kept as details.
    """
    prompts = reading.options.prompts
    listed = "; ".join(f"{_LETTERS[place % len(_LETTERS)]}. {choice}" for place, choice in enumerate(choices))
    lines = [question]
    lines += [prompts.choices.format(choices=listed)] if choices and reading.options.choices else []
    lines += [prompts.answer] if prompts.answer else []
    written = answer
    if rationales and reading.options.write_rationales:
        reason = rationales[0] if rationales[0].endswith((".", "!", "?")) else f"{rationales[0]}."
        written = f"{reason} The answer is {answer}."
    facts = {key: str(value) for key, value in (details or {}).items() if value not in (None, "")}
    facts |= {"choices": json.dumps(list(choices), ensure_ascii=False)} if choices else {}
    facts |= {"rationales": json.dumps(list(rationales), ensure_ascii=False)} if rationales else {}
    facts |= {"answer": answer} if written != answer else {}
    return ChatSample(
        id=name,
        turns=(text_turn("user", "\n".join(lines), images=1), text_turn("assistant", written)),
        images=(picture,),
        references=tuple(references) or (answer,),
        kind=kind or question_kind(question),
        source=source,
        split=split,
        group=group,
        details=facts,
    )

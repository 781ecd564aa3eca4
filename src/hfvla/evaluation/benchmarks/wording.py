"""Questions of benchmarks as conversations, worded as VLM evaluations usually word them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from hfvla.data.samples.chat import ChatSample, ImageRef, Part, Turn

__all__ = ["benchmark_sample", "rotated"]

_PLACE = re.compile(r"<image[ _]?(\d+)>")
_ASK_LETTER = "Answer with the letter of the right choice."
_ASK_SHORT = "Answer the question using a single word or phrase."
_ASK_YES = "Please answer yes or no."


def benchmark_sample(
    name: str,
    question: str,
    images: Sequence[ImageRef],
    *,
    scorer: str,
    choices: Sequence[str] = (),
    answer: str = "",
    answers: Sequence[str] = (),
    hint: str = "",
    category: str = "",
    details: dict[str, str] | None = None,
    source: str = "",
    group: str = "",
) -> ChatSample:
    """Return a question of a benchmark as a conversation that waits for its answer.

    Args:
        name: id of the question.
        question: as it is published; "<image 1>" in it is where the first picture goes, else pictures come first.
        images: pictures.
        scorer: of the benchmark.
        choices: texts of a multiple-choice question.
        answer: its right letter.
        answers: accepted answers of another question.
        hint: text shown before the question.
        category: for scores by category.
        details: further facts.
        source: the benchmark's name.
        group: of copies of one question; default: `name`.
    """
    facts = {**(details or {}), "question": question, "hint": hint}
    if choices:
        facts |= {"choices": json.dumps(list(choices), ensure_ascii=False), "answer": answer}
    return ChatSample(
        id=name,
        turns=(_asked(question, hint, choices, len(images), scorer),),
        images=tuple(images),
        references=tuple(answers),
        kind=category,
        source=source,
        group=group or name,
        details=facts,
    )


def _asked(question: str, hint: str, choices: Sequence[str], images: int, scorer: str) -> Turn:
    lines = [f"Hint: {hint}"] if hint else []
    lines.append(f"Question: {question}" if choices else question)
    lines += [f"{chr(65 + place)}. {choice}" for place, choice in enumerate(choices)]
    if choices:
        lines.append(_ASK_LETTER)
    elif scorer == "yes_no":
        lines += [] if "yes or no" in question.lower() else [_ASK_YES]
    else:
        lines.append(_ASK_SHORT)
    text = "\n".join(lines)
    named = sorted({int(number) for number in _PLACE.findall(text)})
    if named != list(range(1, images + 1)) or len(_PLACE.findall(text)) != images or not images:
        # Pictures that the text names twice, or not at all, are shown first; then it speaks of them by number.
        return Turn("user", (*[Part("image")] * images, Part("text", _PLACE.sub(r"image \1", text))))
    if [int(number) for number in _PLACE.findall(text)] != named:  # shown in another order than they are given
        return Turn("user", (*[Part("image")] * images, Part("text", _PLACE.sub(r"image \1", text))))
    pieces = _PLACE.split(text)
    parts: list[Part] = []
    for number, piece in enumerate(pieces):
        if number % 2:
            parts.append(Part("image"))
        elif piece:
            parts.append(Part("text", piece))
    return Turn("user", tuple(parts))


def rotated(sample: ChatSample, steps: int, scorer: str = "choice") -> ChatSample:
    """Return a multiple-choice question with its choices moved `steps` places on, the answer with them.

    Args:
        sample: of `benchmark_sample`, with choices.
        steps: places; 0 leaves it as it is.
        scorer: of the benchmark.
    """
    if not steps:
        return sample
    choices = json.loads(sample.details["choices"])
    count = len(choices)
    moved = [choices[(place - steps) % count] for place in range(count)]
    answer = sample.details["answer"]
    details = {**sample.details, "choices": json.dumps(moved, ensure_ascii=False)}
    if answer:
        details["answer"] = chr(65 + (ord(answer) - 65 + steps) % count)
    turn = _asked(details["question"], details["hint"], moved, len(sample.images), scorer)
    return ChatSample(
        id=f"{sample.id}+{steps}", turns=(turn,), images=sample.images, kind=sample.kind, source=sample.source,
        group=sample.group, details=details,
    )  # fmt: skip

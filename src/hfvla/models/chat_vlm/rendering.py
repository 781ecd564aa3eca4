"""A conversation as the model's own template writes it, and which of its characters are the assistant's.

The template says it itself where it has `{% generation %}` marks. Otherwise the conversation is written again up to
each turn of the assistant: what is written with the answer and not without it is the answer. Where a template writes
an earlier turn otherwise once later ones follow, neither holds, and the conversation is refused: a loss on the wrong
tokens trains without a word.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hfvla.data.samples.chat import Turn
from hfvla.errors import DataError

if TYPE_CHECKING:
    from transformers import ProcessorMixin

__all__ = ["Rendered", "render", "render_prompt", "template_of"]

_MARK = re.compile(r"\{%-?\s*generation\s*-?%\}")


@dataclass(frozen=True)
class Rendered:
    """A conversation as text.

    Attributes:
        text: as the template writes it, a placeholder for each picture.
        spans: [start, end) of what is learned, in characters of `text`.
        suffix: the answer, where the processor itself puts it behind the text (PaliGemma); `spans` is then empty.
    """

    text: str
    spans: tuple[tuple[int, int], ...]
    suffix: str | None = None


def template_of(processor: ProcessorMixin, where: str = "processor") -> str:
    """Return the chat template of a processor or its tokenizer.

    Raises:
        DataError: there is none, or several of which none is the default.
    """
    for owner in (processor, getattr(processor, "tokenizer", None)):
        template = getattr(owner, "chat_template", None)
        if isinstance(template, dict):
            template = template.get("default")
        if isinstance(template, str) and template:
            return template
    raise DataError(
        "this model has no chat template",
        where=where,
        got=type(processor).__name__,
        fix="Give `model.options.chat_template`, or start from a chat or instruction-tuned checkpoint.",
    )


def messages_of(turns: Sequence[Turn], plain: bool = False) -> list[dict[str, Any]]:
    """Return turns as templates take them: content as a list of parts, or as one text for templates of texts."""
    if plain:
        return [{"role": turn.role, "content": turn.text} for turn in turns]
    return [
        {
            "role": turn.role,
            "content": [
                {"type": "text", "text": part.text} if part.type == "text" else {"type": part.type}
                for part in turn.content
            ],
        }
        for turn in turns
    ]


def takes_suffix(processor: ProcessorMixin) -> bool:
    """Tell whether a model reads one question and writes one answer, without a chat (PaliGemma)."""
    return getattr(processor, "chat_template", None) is None and "suffix" in _arguments(type(processor))


def _arguments(kind: type) -> Any:
    return inspect.signature(kind.__call__).parameters


def _question(processor: ProcessorMixin, turns: Sequence[Turn], where: str) -> str:
    """Return the one question of a conversation behind its pictures' placeholders.

    Raises:
        DataError: there are more turns.
    """
    if [turn.role for turn in turns] != ["user"]:
        raise DataError(
            "this model has no chat: it reads one question and writes one answer",
            where=where,
            got=" ".join(turn.role for turn in turns),
            expected="one turn of the user",
        )
    pictures = sum(part.type == "image" for part in turns[0].content)
    return processor.image_token * pictures + turns[0].text


def render_prompt(processor: ProcessorMixin, turns: Sequence[Turn], where: str) -> str:
    """Return turns as the template writes them before an answer."""
    if takes_suffix(processor):
        return _question(processor, turns, where)
    return _write(processor, template_of(processor), messages_of(turns), where, prompt=True)


def render(processor: ProcessorMixin, turns: Sequence[Turn], where: str) -> Rendered:
    """Return a conversation with the places of what is learned: the assistant's turns that have `train`.

    Args:
        processor: of the model.
        turns: the conversation, the assistant's turn last.
        where: names the row in errors.

    Raises:
        DataError: the template does not take such a conversation, or which tokens are the assistant's is not certain.
    """
    if takes_suffix(processor):
        answer = turns[-1].text if turns[-1].train else ""
        return Rendered(_question(processor, turns[:-1], where), (), answer)
    template, messages = template_of(processor, where), messages_of(turns)
    if _MARK.search(template):
        text, spans = _by_marks(processor, template, messages, where)
    else:
        text, spans = _by_prefixes(processor, template, messages, where)
    answers = [turn for turn in turns if turn.role == "assistant"]
    if len(spans) != len(answers):
        raise DataError(
            "the template marks another number of answers than the conversation has",
            where=where,
            got=f"{len(spans)} marked",
            expected=f"{len(answers)} turns of the assistant",
            fix="Put {% generation %} and {% endgeneration %} around every turn of the assistant.",
        )
    chosen = tuple(span for span, turn in zip(spans, answers, strict=True) if turn.train and span[0] < span[1])
    return Rendered(text, chosen)


def _by_marks(
    processor: ProcessorMixin, template: str, messages: list[Any], where: str
) -> tuple[str, list[tuple[int, int]]]:
    from transformers.utils.chat_template_utils import render_jinja_template

    with _template_errors(where):
        texts, spans = render_jinja_template(
            conversations=[messages],
            chat_template=template,
            return_assistant_tokens_mask=True,
            add_generation_prompt=False,
            **_special_tokens(processor),
        )
    return texts[0], [(int(start), int(end)) for start, end in spans[0]]


def _by_prefixes(
    processor: ProcessorMixin, template: str, messages: list[Any], where: str
) -> tuple[str, list[tuple[int, int]]]:
    """Return the whole text, and what each answer adds to the text before it."""
    text = _write(processor, template, messages, where)
    spans = []
    for place, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = _write(processor, template, messages[:place], where, prompt=True)
        after = _write(processor, template, messages[: place + 1], where)
        if not (text.startswith(after) and after.startswith(before)):
            raise DataError(
                "which tokens are the assistant's is not certain: the template writes this conversation otherwise "
                "once later turns follow",
                where=where,
                got=f"turn {place} of {len(messages)}",
                expected="{% generation %} marks in the chat template, or earlier turns written as they were",
                fix="Give a template with marks, or a row for each answer.",
            )
        ending = len(after) - len(after.rstrip())
        spans.append((len(before), len(after) - (ending if ending < len(after) - len(before) else 0)))
    return text, spans


def _write(processor: ProcessorMixin, template: str, messages: list[Any], where: str, prompt: bool = False) -> str:
    with _template_errors(where):
        return str(
            processor.apply_chat_template(
                messages, chat_template=template, add_generation_prompt=prompt, tokenize=False
            )
        )


def _special_tokens(processor: ProcessorMixin) -> dict[str, Any]:
    tokenizer = getattr(processor, "tokenizer", processor)
    return {**tokenizer.special_tokens_map}


class _template_errors:  # noqa: N801
    """Say in one line what a template refuses."""

    def __init__(self, where: str) -> None:
        self.where = where

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        if error is None or isinstance(error, DataError) or not isinstance(error, Exception):
            return
        reason = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise DataError("the chat template refuses this conversation", where=self.where, got=reason) from error

"""A conversation as arguments of `generate`: what a chat server and a terminal need of any family.

A family that can chat has the hook `chat(model, processor, turns, images) -> ChatPrompt`, with `videos` as a fifth
argument where it takes them; for a plain
image-text-to-text model of transformers, `template_prompt` is that hook.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from hfvla.data.samples.chat import Part, Turn
from hfvla.errors import DataError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["ChatPrompt", "check_turns", "template_prompt"]


@dataclass(frozen=True)
class ChatPrompt:
    """What `model.generate(**inputs, **generation)` continues with an answer.

    Attributes:
        model: has `generate`.
        inputs: `input_ids` or `inputs_embeds` [1, T, ...], `attention_mask` and pixels, on the model's device.
        tokenizer: turns the answer into text.
        prompt_tokens: T, pictures included.
        room: tokens that an answer may have before the model's positions end; None where that is not known.
        generation: further arguments of `generate` that belong to the family, e.g. its end token.
    """

    model: PreTrainedModel
    inputs: Mapping[str, Any]
    tokenizer: Any
    prompt_tokens: int
    room: int | None = None
    generation: Mapping[str, Any] = field(default_factory=dict)


def check_turns(turns: Sequence[Turn], images: int, special: Sequence[str], videos: int = 0) -> None:
    """Refuse a conversation that cannot be continued.

    Args:
        turns: of it.
        images: pictures that come with it.
        special: the tokenizer's special tokens; in a text they would mean something else.
        videos: that come with it.

    Raises:
        DataError: it does not end with a user's turn, pictures and their places differ, or a text has a special token.
    """
    if not turns or turns[-1].role != "user":
        got = turns[-1].role if turns else "no turn"
        raise DataError("the conversation cannot be continued", got=got, expected="a user's turn at its end")
    for kind, name, given in (("image", "pictures", images), ("video", "videos", videos)):
        placed = sum(part.type == kind for turn in turns for part in turn.content)
        if placed != given:
            raise DataError(f"{name} and their places differ", got=f"{given} {name}", expected=placed)
    for number, turn in enumerate(turns):
        token = next((token for token in special if token and token in turn.text), None)
        if token is not None:
            raise DataError("a special token in the text", where=f"turn {number}", got=token, fix="Take it out.")


def template_prompt(
    model: PreTrainedModel, processor: ProcessorMixin, turns: Sequence[Turn], images: Sequence[Any]
) -> ChatPrompt:
    """Return the prompt of a plain transformers model, by its processor's own chat template.

    Args:
        model: with `generate`.
        processor: with a chat template.
        turns: the conversation; the last is the user's.
        images: PIL images, in the order of the image parts.

    Raises:
        DataError: no template, or a conversation that it cannot render.
    """
    tokenizer = getattr(processor, "tokenizer", processor)
    check_turns(turns, len(images), tokenizer.all_special_tokens)
    if getattr(processor, "chat_template", None) is None and getattr(tokenizer, "chat_template", None) is None:
        raise DataError("the checkpoint has no chat template", fix="Save its processor with one.")
    pictures = iter(images)

    def shown(part: Part) -> dict[str, Any]:
        if part.type == "image":
            return {"type": "image", "image": next(pictures)}
        return {"type": "text", "text": part.text}

    messages = [{"role": turn.role, "content": [shown(part) for part in turn.content]} for turn in turns]
    try:
        batch = processor.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
        )
    except Exception as error:  # templates raise what they like: jinja's errors, TypeErrors of processors
        raise DataError("the chat template cannot render this conversation", got=str(error)[:300]) from error
    batch = batch.to(model.device)
    inputs = {name: _like(model, value) for name, value in batch.items()}
    length = int(inputs["input_ids"].shape[1])
    most = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    if most is not None and length >= most:
        raise DataError("the conversation is too long", got=f"{length} tokens", expected=f"fewer than {most}")
    return ChatPrompt(model, inputs, tokenizer, length, None if most is None else most - length)


def _like(model: PreTrainedModel, value: Any) -> Any:
    """Return pixels in the model's precision; tokens stay integers."""
    return value.to(model.dtype) if hasattr(value, "is_floating_point") and value.is_floating_point() else value

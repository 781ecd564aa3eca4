"""What the HTTP server asks of this family: a conversation as the arguments of `generate`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hfvla.data.samples.chat import ChatSample, Turn
from hfvla.models.chat_vlm.answering import ends_of, placed, prompt_batch
from hfvla.models.chat_vlm.batches import longest
from hfvla.nn.chat_prompt import ChatPrompt, check_turns

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

__all__ = ["chat"]


def chat(
    model: PreTrainedModel,
    processor: ProcessorMixin,
    turns: Sequence[Turn],
    images: Sequence[Any],
    videos: Sequence[str] = (),
) -> ChatPrompt:
    """Return the prompt of a conversation: what training shows before an answer.

    Args:
        model: of transformers.
        processor: its processor.
        turns: the conversation; the last is the user's.
        images: PIL images, in the order of the image parts.
        videos: paths of clips, in the order of the video parts.

    Raises:
        DataError: a conversation that the template cannot render, or that leaves no room; no videos are taken.
    """
    check_turns(turns, len(images), processor.tokenizer.all_special_tokens, len(videos))
    sample = ChatSample("request", tuple(turns), videos=tuple(videos))
    batch = prompt_batch(processor, model.config, [sample], 1, [images])
    length = int(batch["input_ids"].shape[1])
    ends, pad = ends_of(model, processor), processor.tokenizer.pad_token_id
    return ChatPrompt(
        model,
        placed(model, batch),
        processor.tokenizer,
        length,
        longest(processor, model.config) - length,
        {"eos_token_id": ends, "pad_token_id": ends[0] if pad is None else pad},
    )

"""Any `AutoModelForImageTextToText` of transformers as a `ChatSystem`, by its own processor and chat template."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
import torch

from hfvla.data.samples.chat import ChatSample, Turn
from hfvla.data.samples.chat_pictures import load_reference
from hfvla.errors import DataError
from hfvla.family.chat import AnswerLosses, ChatSystem
from hfvla.nn.sampling import sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase, ProcessorMixin

__all__ = ["image_text_system", "messages_of"]

Found = TypeVar("Found")


def messages_of(turns: Sequence[Turn]) -> list[dict[str, Any]]:
    """Return turns as chat templates of transformers take them; pictures by their place alone."""
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


def image_text_system(
    model: PreTrainedModel, processor: ProcessorMixin, *, max_pictures: int | None = None
) -> ChatSystem:
    """Return how a model of transformers answers conversations about pictures.

    Args:
        model: any `AutoModelForImageTextToText`.
        processor: its processor, with a chat template.
        max_pictures: of a sample.
    """
    tokenizer, settings = processor.tokenizer, _special_tokens(model, processor.tokenizer)

    @torch.inference_mode()
    def write(samples: Sequence[ChatSample], max_new_tokens: int, temperature: float) -> list[str]:
        model.eval()
        prompts = [_text(processor, sample, sample.turns, ask=True) for sample in samples]
        inputs = _placed(_encoded(processor, samples, prompts, side="left"), model)
        written = model.generate(**inputs, max_new_tokens=max_new_tokens, **sampling(temperature), **settings)
        new = written[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in tokenizer.batch_decode(new, skip_special_tokens=True)]

    @torch.inference_mode()
    def answer_losses(samples: Sequence[ChatSample]) -> list[AnswerLosses]:
        model.eval()
        parts = [_split(processor, sample) for sample in samples]
        inputs = _placed(_encoded(processor, samples, [whole for _, whole in parts], side="right"), model)
        asked = _encoded(processor, samples, [prompt for prompt, _ in parts], side="right")
        logits = model(**inputs).logits.float()
        losses = torch.nn.functional.cross_entropy(
            logits[:, :-1].transpose(1, 2), inputs["input_ids"][:, 1:], reduction="none"
        )
        found = []
        for row in range(len(samples)):
            start, end = int(asked["attention_mask"][row].sum()), int(inputs["attention_mask"][row].sum())
            ids = inputs["input_ids"][row, start:end].cpu().numpy()
            pieces = tuple(tokenizer.decode([int(token)]) for token in ids)
            found.append(AnswerLosses(ids, losses[row, start - 1 : end - 1].cpu().numpy().astype(np.float64), pieces))
        return found

    def answer_ids(sample: ChatSample) -> list[int]:
        prompt, whole = _split(processor, sample)
        return tokenizer(whole[len(prompt) :], add_special_tokens=False).input_ids

    def write_all(samples: Sequence[ChatSample], max_new_tokens: int, temperature: float = 0.0) -> list[str]:
        return _by_pictures(samples, lambda part: write(part, max_new_tokens, temperature))

    return ChatSystem(
        write=write_all,
        answer_losses=lambda samples: _by_pictures(samples, answer_losses),
        answer_ids=answer_ids,
        vocabulary=int(model.config.get_text_config().vocab_size),
        max_pictures=max_pictures,
    )


def _special_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """Return with which tokens answers end, and with which they are filled up."""
    ends, pad = _ends(model, tokenizer), tokenizer.pad_token_id
    return {
        "pad_token_id": pad if pad is not None or not ends else ends[0],
        **({"eos_token_id": ends} if ends else {}),
    }


def _ends(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """Return the tokens that end an answer: those of the model, and the tokenizer's, which its template may write."""
    config = getattr(model, "generation_config", None)
    own = getattr(config, "eos_token_id", None)
    found = [*(own if isinstance(own, list | tuple) else [own]), tokenizer.eos_token_id]
    return [int(token) for token in dict.fromkeys(found) if token is not None]


def _placed(inputs: Any, model: PreTrainedModel) -> Any:
    """Return a batch on the model's device, its pixels in the model's own precision: towers take no other."""
    for name, value in inputs.items():
        if isinstance(value, torch.Tensor):
            dtype = model.dtype if value.is_floating_point() else value.dtype
            inputs[name] = value.to(model.device, dtype)
    return inputs


def _by_pictures(samples: Sequence[ChatSample], work: Callable[[Sequence[ChatSample]], list[Found]]) -> list[Found]:
    """Work on samples with pictures and on those without apart: processors take no batch of both."""
    found: dict[int, Found] = {}
    for with_pictures in (True, False):
        places = [place for place, sample in enumerate(samples) if bool(sample.images) == with_pictures]
        if places:
            found |= dict(zip(places, work([samples[place] for place in places]), strict=True))
    return [found[place] for place in range(len(samples))]


def _text(processor: ProcessorMixin, sample: ChatSample, turns: Sequence[Turn], *, ask: bool) -> str:
    if sample.videos:
        raise DataError("this model is asked about pictures only", where=sample.id, got=f"{len(sample.videos)} videos")
    return processor.apply_chat_template(messages_of(turns), add_generation_prompt=ask, tokenize=False)


def _split(processor: ProcessorMixin, sample: ChatSample) -> tuple[str, str]:
    """Return the prompt of the last answer, and the prompt with the answer.

    Raises:
        DataError: nobody answers, or the template writes the prompt in another way once there is an answer.
    """
    if not sample.turns or sample.turns[-1].role != "assistant":
        raise DataError("a sample without an answer has no losses", where=sample.id)
    prompt = _text(processor, sample, sample.turns[:-1], ask=True)
    whole = _text(processor, sample, sample.turns, ask=False).rstrip("\n")  # after the end token nothing is written
    if not whole.startswith(prompt):
        raise DataError(
            "the chat template changes the prompt once there is an answer", where=sample.id, got=whole[:80]
        )
    return prompt, whole


def _encoded(processor: ProcessorMixin, samples: Sequence[ChatSample], texts: Sequence[str], side: str) -> Any:
    pictures = [
        [load_reference(reference, f"{sample.id}, picture {number}") for number, reference in enumerate(sample.images)]
        for sample in samples
    ]
    shown = {"images": pictures} if any(pictures) else {}
    return processor(text=list(texts), padding=True, padding_side=side, return_tensors="pt", **shown)

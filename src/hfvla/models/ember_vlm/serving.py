"""What a server asks of EmberVLM: several tasks in one pass, its fleet, and conversations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch

from hfvla.data.samples.chat import Turn
from hfvla.data.text import clean_text
from hfvla.errors import DataError, HfvlaError
from hfvla.models.ember_vlm.answering import reply, writing
from hfvla.models.ember_vlm.processing_ember_vlm import load_image
from hfvla.nn.chat_prompt import ChatPrompt, check_turns

if TYPE_CHECKING:
    from transformers import ProcessorMixin

    from hfvla.models.ember_vlm.modeling_ember_vlm import EmberVLMForRobotSelection

__all__ = ["chat", "facts", "predict_batch"]


def predict_batch(
    model: EmberVLMForRobotSelection, processor: ProcessorMixin, requests: Sequence[Mapping[str, Any]]
) -> list[Any]:
    """Pick robots for several tasks in one pass, and in one more for each way in which the reasoning is wanted.

    Args:
        model: `EmberVLMForRobotSelection`.
        processor: its processor.
        requests: as `FAMILY.request` says.

    Returns:
        An answer for each request, or its `HfvlaError`.
    """
    answers: list[Any] = [None] * len(requests)
    for how in sorted({_how(one) for one in requests}):
        numbers = [number for number, one in enumerate(requests) if _how(one) == how]
        reasoning, written = how[0], writing(requests[numbers[0]]) if how[0] else {}
        ready: list[tuple[int, Any, str]] = []
        for number in numbers:
            try:
                ready.append((number, *_ready(processor, requests[number], reasoning)))
            except HfvlaError as error:
                answers[number] = error
        if not ready:
            continue
        counts = [int(requests[number].get("top_k", 3)) for number, _, _ in ready]
        images, tasks = [image for _, image, _ in ready], [task for _, _, task in ready]
        found = model.select_many(processor, images, tasks, counts, return_reasoning=reasoning, **written)
        for (number, _, _), one in zip(ready, found, strict=True):
            answers[number] = one if isinstance(one, HfvlaError) else reply(requests[number], one)
    return answers


def _how(request: Mapping[str, Any]) -> tuple[bool, int, float]:
    """Return what rows of one pass have in common: whether the reasoning is written, its length and temperature."""
    if not request.get("reasoning", True):
        return False, 0, 0.0
    return True, int(request.get("max_new_tokens") or 0), float(request.get("temperature") or 0)


def _ready(processor: ProcessorMixin, request: Mapping[str, Any], reasoning: bool) -> tuple[Any, str]:
    """Return picture and task of a request that will not spoil a batch.

    Raises:
        DataError: the task is empty or too long, or the picture cannot be read.
    """
    image, task = request.get("image"), request.get("task") or ""
    if image is not None:
        image = load_image(image, where=str(image))
    prompt = processor.expand(processor.task_prompt(task, with_image=image is not None))
    length = len(processor.tokenizer(prompt, add_special_tokens=False).input_ids)
    processor.check_length(length + reasoning, "task")
    return image, task


def facts(model: EmberVLMForRobotSelection, processor: ProcessorMixin) -> dict[str, Any]:
    """Return the fleet that the checkpoint picks from, and how its confidences were calibrated."""
    robots = [{"name": name, "capability": processor.capabilities.get(name, "")} for name in processor.robots]
    return {"robots": robots, "calibration": dict(model.config.calibration)}


def chat(
    model: EmberVLMForRobotSelection, processor: ProcessorMixin, turns: Sequence[Turn], images: Sequence[Any]
) -> ChatPrompt:
    """Return a conversation as the dialogues of training have it; pictures stand before the question they come with.

    Raises:
        DataError: a system's turn, a text with a special token, or a conversation that is too long.
    """
    tokenizer = processor.tokenizer
    check_turns(turns, len(images), tokenizer.all_special_tokens)
    if any(turn.role == "system" for turn in turns):
        raise DataError("this model was trained without system turns", got="a system turn", fix="Leave it away.")
    text = ""
    for turn in turns:
        said = clean_text(turn.text)
        if not said:
            raise DataError("a turn without words", where=turn.role)
        pictures = "<image>" * sum(part.type == "image" for part in turn.content)
        text += f"{pictures}Question: {said}\nAnswer:" if turn.role == "user" else f" {said}\n"
    batch = tokenizer(processor.expand(text), add_special_tokens=False, return_tensors="pt")
    length = batch.input_ids.shape[1]
    processor.check_length(length + 1, "conversation")
    pixels = processor.pixels(images) if images else None
    with torch.inference_mode():
        inputs = model.writing_inputs(
            batch.input_ids.to(model.device), batch.attention_mask.to(model.device),
            None if pixels is None else pixels.to(model.device),
        )  # fmt: skip
    return ChatPrompt(
        model.language_model,
        inputs,
        tokenizer,
        length,
        model.config.text_config.max_position_embeddings - length,
        {"do_sample": False, "eos_token_id": tokenizer.eos_token_id, "pad_token_id": tokenizer.pad_token_id},
    )

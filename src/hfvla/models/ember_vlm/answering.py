"""What a trained EmberVLM is asked for: calibrated probabilities, robot choices, written reasoning and plans."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hfvla.data.samples.robots import RobotAnswer
from hfvla.errors import PredictionError
from hfvla.nn.sampling import sampling

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin
    from transformers import PreTrainedModel as _Model

    from hfvla.models.ember_vlm.processing_ember_vlm import EmberVLMProcessor
else:
    _Model = object  # of a mixin: the model it is mixed into has what its methods use

__all__ = ["RobotInferenceMixin", "RobotSelection", "predict", "reply", "writing"]


class RobotSelection(list):
    """Top-k choices, best first: `[{"robot_type", "confidence", "reasoning"}, ...]`.

    Attributes:
        robots: the chosen set (calibrated probability over the threshold, at least the best robot).
        probabilities: calibrated probability by robot name.
        reasoning: the written chain of thought, or "".
        plan: written subtasks.
    """

    def __init__(
        self,
        choices: Sequence[dict[str, Any]],
        *,
        robots: tuple[str, ...],
        probabilities: dict[str, float],
        answer: RobotAnswer | None = None,
    ) -> None:
        super().__init__(choices)
        self.robots, self.probabilities = robots, probabilities
        self.reasoning = answer.reasoning if answer else ""
        self.plan = answer.plan if answer else ()


class RobotInferenceMixin(_Model):
    """Inference methods of `EmberVLMForRobotSelection`."""

    def probabilities(self, selection_logits: Tensor) -> Tensor:
        """Return calibrated probabilities [B, R] from uncalibrated logits [B, R]."""
        return torch.sigmoid(selection_logits / self.config.calibration["temperature"])

    def chosen(self, probabilities: Tensor) -> Tensor:
        """Return the chosen set [B, R] bool: over the threshold, and always the best robot."""
        best = torch.zeros_like(probabilities, dtype=torch.bool).scatter_(
            1, probabilities.argmax(1, keepdim=True), True
        )
        return (probabilities >= self.config.calibration["threshold"]) | best

    def _names(self, chosen: Tensor) -> list[list[str]]:
        """Return the robots of each chosen set [B, R] bool."""
        return [[self.config.robots[index] for index in row.nonzero()[:, 0].tolist()] for row in chosen]

    @torch.inference_mode()
    def select_robots(
        self,
        processor: EmberVLMProcessor,
        image: Any = None,
        task_description: str = "",
        top_k: int = 3,
        return_reasoning: bool = True,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
    ) -> RobotSelection:
        """Pick robots for one task.

        Args:
            processor (`EmberVLMProcessor`): the checkpoint's processor.
            image (`str`, `PIL.Image.Image` or `bytes`, *optional*): the scene; a path is read.
            task_description (`str`): the task in words.
            top_k (`int`): how many ranked choices to return, at most the fleet's size.
            return_reasoning (`bool`): also write the chain of thought and the plan (slower).
            max_new_tokens (`int`): budget of the written answer.
            temperature (`float`): 0 writes the likeliest word each time; above 0 words are drawn.

        Returns:
            `RobotSelection`

        Raises:
            DataError: the task is empty or the image cannot be read.
            PredictionError: the model's scores are not finite.
        """
        how = (return_reasoning, max_new_tokens, temperature)
        found = self.select_many(processor, [image], [task_description], [top_k], *how)[0]
        if isinstance(found, PredictionError):
            raise found
        return found

    @torch.inference_mode()
    def select_many(
        self,
        processor: EmberVLMProcessor,
        images: Sequence[Any],
        tasks: Sequence[str],
        top_k: Sequence[int],
        return_reasoning: bool = True,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
    ) -> list[RobotSelection | PredictionError]:
        """Pick robots for several tasks in one pass; see `select_robots`.

        Returns:
            A selection for each task, or the error in its place where the model's scores are not finite.

        Raises:
            DataError: a task is empty, or an image cannot be read.
        """
        self.eval()
        logits = self(**processor.prompts(tasks, images).to(self.device)).selection_logits
        probabilities = self.probabilities(logits)
        chosen = self.chosen(probabilities)
        written: Sequence[RobotAnswer | None] = [None] * len(tasks)
        if return_reasoning:
            written = self.generate_answers(processor, tasks, images, max_new_tokens, self._names(chosen), temperature)
        found: list[RobotSelection | PredictionError] = []
        for row, answer in enumerate(written):
            if logits[row].isfinite().all():
                scores = probabilities[row].tolist()
                found.append(_selection(self.config.robots, scores, chosen[row].tolist(), answer, top_k[row]))
            else:
                found.append(PredictionError("the model's scores are not finite", got=logits[row].tolist()))
        return found

    def writing_inputs(
        self, input_ids: Tensor, attention_mask: Tensor, pixel_values: Tensor | None
    ) -> dict[str, Tensor]:
        """Return what `language_model.generate` continues: prompts [B, T] with their pictures [N, 3, S, S]."""
        return {"inputs_embeds": self.embed(input_ids, pixel_values)[0], "attention_mask": attention_mask}

    @torch.inference_mode()
    def generate_reasoning(
        self,
        input_ids: Tensor,
        pixel_values: Tensor | None = None,
        attention_mask: Tensor | None = None,
        max_new_tokens: int = 200,
        ngram_ids: Tensor | None = None,
        **generate_kwargs: Any,
    ) -> Tensor:
        """Continue prompts that end with `<reasoning_start>` (see `processor.prompts(..., reasoning=True)`).

        Args:
            input_ids (`Tensor`): [B, T] long, left-padded.
            pixel_values (`Tensor`, *optional*): [N, 3, S, S].
            attention_mask (`Tensor`, *optional*): [B, T].
            max_new_tokens (`int`): budget; cut to what the positions leave.
            ngram_ids (`Tensor`, *optional*): taken so that the processor's batch fits; only the selection head reads
                them.
            **generate_kwargs: passed on to `generate`.

        Returns:
            `Tensor`: [B, <= max_new_tokens] new token ids.
        """
        attention_mask = torch.ones_like(input_ids) if attention_mask is None else attention_mask
        inputs = self.writing_inputs(input_ids, attention_mask, pixel_values)
        room = self.config.text_config.max_position_embeddings - input_ids.shape[1]
        found = self.language_model.generate(
            **inputs,
            max_new_tokens=max(1, min(max_new_tokens, room)),
            **{"do_sample": False, "pad_token_id": self.config.text_config.pad_token_id, **generate_kwargs},
        )
        return found[:, input_ids.shape[1] :] if "input_ids" in inputs else found

    @torch.inference_mode()
    def generate_answers(
        self,
        processor: EmberVLMProcessor,
        tasks: Sequence[str],
        images: Sequence[Any],
        max_new_tokens: int = 256,
        picked: Sequence[Sequence[str]] | None = None,
        temperature: float = 0.0,
    ) -> list[RobotAnswer]:
        """Write reasoning, robots and plan for each task; images may hold None.

        With `config.explain_decision` the text is told which robots were `picked`, by name; if not given, they are
        picked here.
        """
        self.eval()
        if self.config.explain_decision and picked is None:
            logits = self(**processor.prompts(tasks, images).to(self.device)).selection_logits
            picked = self._names(self.chosen(self.probabilities(logits)))
        batch = processor.prompts(tasks, images, reasoning=True, picked=picked).to(self.device)
        ids = self.generate_reasoning(**batch, max_new_tokens=max_new_tokens, **sampling(temperature))
        return [processor.parse_answer(row) for row in ids]


def _selection(
    names: Sequence[str], scores: Sequence[float], chosen: Sequence[bool], answer: RobotAnswer | None, top_k: int
) -> RobotSelection:
    """Return the choices of one task, best first."""
    ranked = sorted(range(len(names)), key=lambda index: -scores[index])
    reasoning = answer.reasoning if answer else ""
    choices = [
        {"robot_type": names[index], "confidence": scores[index], "reasoning": reasoning} for index in ranked[:top_k]
    ]
    return RobotSelection(
        choices,
        robots=tuple(names[index] for index in ranked if chosen[index]),
        probabilities=dict(zip(names, scores, strict=True)),
        answer=answer,
    )


def predict(model: PreTrainedModel, processor: ProcessorMixin, request: Mapping[str, Any]) -> dict[str, Any]:
    """Pick robots as `FAMILY.request` says; the reply is JSON-serialisable."""
    from hfvla.models.ember_vlm.processing_ember_vlm import load_image

    image = request.get("image")
    selection = model.select_robots(
        processor=processor,
        image=None if image is None else load_image(image, where=str(image)),
        task_description=request.get("task") or "",
        top_k=int(request.get("top_k", 3)),
        return_reasoning=bool(request.get("reasoning", True)),
        **writing(request),
    )
    return reply(request, selection)


def writing(request: Mapping[str, Any]) -> dict[str, Any]:
    """Return how the reasoning of a request is written: `max_new_tokens` and `temperature`, where it says them."""
    return {key: request[key] for key in ("max_new_tokens", "temperature") if request.get(key) is not None}


def reply(request: Mapping[str, Any], selection: RobotSelection) -> dict[str, Any]:
    """Return a selection as the answer to a request; JSON-serialisable."""
    return {
        "task": request.get("task"),
        "choices": [{"robot_type": c["robot_type"], "confidence": c["confidence"]} for c in selection],
        "robots": list(selection.robots),
        "probabilities": selection.probabilities,
        "reasoning": selection.reasoning,
        "plan": [asdict(step) for step in selection.plan],
    }

"""What answers: a family's model in PyTorch, for several requests at once where the family can."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

from hfvla.errors import HfvlaError
from hfvla.serve.http.errors import RequestError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, ProcessorMixin

    from hfvla.family import FamilySpec

__all__ = ["Engine", "TorchEngine"]

logger = logging.getLogger(__name__)


class Engine(Protocol):
    """What the HTTP server asks."""

    @property
    def facts(self) -> Mapping[str, Any]:
        """Return what `/model_info` says of it, e.g. {"engine": "pytorch"}."""

    def answer(self, requests: list[dict[str, Any]]) -> Sequence[Any]:
        """Return an answer, or the exception in its place, for each checked request; called from one thread."""


class TorchEngine:
    """A checkpoint's model and processor.

    Args:
        spec: their family.
        model: on its device, in eval mode.
        processor: the model's.
    """

    name = "pytorch"

    def __init__(self, spec: FamilySpec, model: PreTrainedModel, processor: ProcessorMixin) -> None:
        self.spec, self.model, self.processor = spec, model, processor
        self._predict = spec.load("predict")
        self._together = spec.load("predict_batch") if spec.has("predict_batch") else None
        self.batches = self._together is not None
        self.facts = self._facts()

    def _facts(self) -> dict[str, Any]:
        weights = list(self.model.parameters())
        return {
            "engine": self.name,
            "parameters": sum(weight.numel() for weight in weights),
            "dtype": str(weights[0].dtype).removeprefix("torch.") if weights else "",
            "device": str(weights[0].device) if weights else "cpu",
            "batches": self.batches,
        }

    def answer(self, requests: list[dict[str, Any]]) -> Sequence[Any]:
        """Answer requests, together where there are several; one that fails does not fail the others."""
        if len(requests) > 1 and self._together is not None:
            try:
                return self._together(self.model, self.processor, requests)
            except Exception as error:
                if _out_of_memory(error):
                    logger.warning("out of memory with %d requests at once; halved", len(requests))
                    middle = len(requests) // 2
                    return [*self.answer(requests[:middle]), *self.answer(requests[middle:])]
                logger.warning("a batch failed, its requests are answered one by one: %s", error)
        return [self._one(request) for request in requests]

    def _one(self, request: dict[str, Any]) -> Any:
        try:
            return self._predict(self.model, self.processor, request)
        except HfvlaError as error:
            return error
        except Exception as error:
            if _out_of_memory(error):
                return RequestError(
                    "the device has too little memory for this request", status=413, fix="Send less in one request."
                )
            logger.exception("a prediction failed")
            return error


def _out_of_memory(error: Exception) -> bool:
    """Tell whether a device ran out of memory, and give back what it keeps for later."""
    import torch

    found = isinstance(error, torch.OutOfMemoryError)
    if found and torch.cuda.is_available():
        torch.cuda.empty_cache()
    return found

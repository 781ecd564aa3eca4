"""The graphs of `hfvla export` in the model's place: they answer questions with choices by the model's own methods."""

from __future__ import annotations

from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from hfvla.errors import DataError
from hfvla.losses.text import IGNORE_INDEX
from hfvla.models.internvl_video_qa.answering import VideoAnswerMixin

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

__all__ = ["NO_LETTER", "answer_places", "exported_model"]

NO_LETTER = -1e4  # in place of -inf, which would make every comparison NaN


class _ExportedVideoQA(VideoAnswerMixin):
    """What `answering` needs of `InternVLForVideoQA`, but for writing."""

    device, can_chat = torch.device("cpu"), False

    def __init__(self, run: Any, config: PreTrainedConfig) -> None:
        self.run, self.config = run, config

    def eval(self) -> _ExportedVideoQA:
        return self

    def get_image_features(self, pixel_values: Tensor) -> Tensor:
        return torch.as_tensor(self.run("tiles", {"pixel_values": pixel_values})["tokens"])

    def __call__(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        letter_mask: Tensor,
        image_features: Tensor | None = None,
        **_: Any,
    ) -> SimpleNamespace:
        given = self._prompt(input_ids, attention_mask, image_features) | {"letter_mask": letter_mask}
        found = torch.as_tensor(self.run("letters", given)["log_likelihoods"])
        return SimpleNamespace(letter_logits=found.masked_fill(found <= NO_LETTER, float("-inf")))

    def answer_log_likelihoods(
        self, input_ids: Tensor, attention_mask: Tensor, labels: Tensor, image_features: Tensor | None = None
    ) -> Tensor:
        places, tokens = answer_places(labels)
        given = self._prompt(input_ids, attention_mask, image_features) | {"places": places, "tokens": tokens}
        return torch.as_tensor(self.run("words", given)["log_likelihoods"])

    def _prompt(self, input_ids: Tensor, attention_mask: Tensor, features: Tensor | None) -> dict[str, Tensor]:
        """Return a graph's inputs; the tiles [M, tokens, D] of all rows become a row's own, filled up with zeros."""
        counts = (input_ids == self.config.backbone_config.image_token_id).sum(1).tolist()
        width = self.config.get_text_config().hidden_size
        tokens = torch.zeros(len(counts), max(1, *counts), width)  # a graph cannot gather from none
        if features is not None:
            for row, part in enumerate(features.reshape(-1, width).float().split(counts)):
                tokens[row, : len(part)] = part
        return {"input_ids": input_ids, "attention_mask": attention_mask, "image_tokens": tokens}

    def generate_answer(self, *_: Any, **__: Any) -> Any:
        raise _written()

    def chat(self, *_: Any, **__: Any) -> Any:
        raise _written()


def answer_places(labels: Tensor) -> tuple[Tensor, Tensor]:
    """Return where answers are predicted and what they are, [B, K] each; -1 and 0 where none is.

    Args:
        labels: [B, T] long, -100 where nothing is predicted.
    """
    there = labels[:, 1:] != IGNORE_INDEX
    places = torch.where(there, torch.arange(there.shape[1]), -1)
    places, order = places.sort(1, descending=True)
    longest = max(1, int(there.sum(1).max()))
    tokens = labels[:, 1:].clamp(min=0).gather(1, order)
    return places[:, :longest], torch.where(places >= 0, tokens, 0)[:, :longest]


def _written() -> DataError:
    return DataError(
        "an export of this family does not write", expected="a question with choices, and no `generate`",
        fix="Serve the checkpoint itself for answers in words.",
    )  # fmt: skip


def exported_model(run: Any, config: PreTrainedConfig) -> Any:
    """Return what answers in the model's place.

    Args:
        run: an engine with the parts `tiles` and `letters` or `words`.
        config: of the model.
    """
    return _ExportedVideoQA(run, config)

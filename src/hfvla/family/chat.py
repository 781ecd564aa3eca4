"""What a family that answers conversations about pictures offers: to evaluations, benchmarks and their adapters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from hfvla.data.samples.chat import ChatSample

__all__ = ["AnswerLosses", "ChatSystem"]


@dataclass(frozen=True)
class AnswerLosses:
    """How likely a model finds the answer that a sample ends in, token by token.

    Attributes:
        tokens: [T] ids of the answer's tokens, with the end token where the model is to write one.
        losses: [T] negative log-likelihoods.
        texts: T pieces of text, for figures; may be empty.
    """

    tokens: np.ndarray
    losses: np.ndarray
    texts: tuple[str, ...] = ()


@dataclass(frozen=True)
class ChatSystem:
    """A model with its processor, as something that answers.

    Attributes:
        write: takes samples whose last turn is the user's, the most tokens of an answer and, where words are to be
            drawn, `temperature=` above 0; returns one text each, without special tokens, the likeliest words where no
            temperature is given. Called with at most a batch.
        answer_losses: takes whole samples; the losses of the last assistant turn. None where the model has none.
        answer_ids: the token ids of a sample's last assistant turn as `answer_losses` has them, without running the
            model; for baselines of the loss.
        embed_pairs: takes whole samples of one picture and a caption; unit vectors [N, D] of the pictures and of the
            texts in one space. None where the model has no such space.
        vocabulary: number of token ids.
        max_pictures: of a sample, where the model has a limit.
    """

    write: Callable[..., list[str]]
    answer_losses: Callable[[Sequence[ChatSample]], list[AnswerLosses]] | None = None
    answer_ids: Callable[[ChatSample], Sequence[int]] | None = None
    embed_pairs: Callable[[Sequence[ChatSample]], tuple[np.ndarray, np.ndarray]] | None = None
    vocabulary: int = 0
    max_pictures: int | None = None

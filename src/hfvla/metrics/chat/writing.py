"""Answers written batch by batch; what cannot be answered is named and does not cost the others."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence

from hfvla.data.samples.chat import ChatSample
from hfvla.errors import DataError, PredictionError
from hfvla.family.chat import ChatSystem
from hfvla.family.evaluation import EvaluationContext
from hfvla.metrics.chat.tasks import asked

__all__ = ["failure_note", "write_answers"]

logger = logging.getLogger(__name__)

_MAX_BATCH = 16

Change = Callable[[ChatSample], ChatSample]


def write_answers(
    system: ChatSystem,
    samples: Sequence[ChatSample],
    context: EvaluationContext,
    max_new_tokens: int,
    label: str | None = None,
    change: Change = lambda sample: sample,
) -> tuple[list[str], dict[int, str]]:
    """Let a model answer N samples, shared out among the context's processes.

    Args:
        system: the model.
        samples: N; what follows the last question is not shown.
        context: batch size and processes.
        max_new_tokens: of an answer.
        label: of a progress bar.
        change: of each sample before it is asked, e.g. `blank_pictures`.

    Returns:
        `tuple`: N texts, "" where there is none, and the reason by row number where one failed.
    """
    size = max(1, min(context.batch_size, _MAX_BATCH))

    def write(start: int) -> list[tuple[str, str]]:
        batch = list(samples[start : start + size])
        try:
            return [(text, "") for text in system.write([change(asked(one)) for one in batch], max_new_tokens)]
        except (DataError, PredictionError):
            return [_written_alone(system, one, max_new_tokens, change) for one in batch]  # one of them is to blame

    parts = context.processes.share(write, range(0, len(samples), size), label)
    pairs = [pair for part in parts for pair in part]
    return [text for text, _ in pairs], {number: reason for number, (_, reason) in enumerate(pairs) if reason}


def _written_alone(system: ChatSystem, sample: ChatSample, max_new_tokens: int, change: Change) -> tuple[str, str]:
    try:
        return system.write([change(asked(sample))], max_new_tokens)[0], ""
    except (DataError, PredictionError) as error:
        return "", str(error)


def failure_note(failures: Mapping[int, str], names: Sequence[str], max_bad_fraction: float) -> str:
    """Return a sentence on the rows without an answer, "" where there are none.

    Args:
        failures: reason by row number.
        names: of all N rows.
        max_bad_fraction: share of rows that may fail.

    Raises:
        DataError: more of them fail, or all.
    """
    if not failures:
        return ""
    first = min(failures)
    text = f"{len(failures)} of {len(names)} rows have no answer; first: {names[first]}: {failures[first]}"
    if len(failures) > max_bad_fraction * len(names) or len(failures) == len(names):
        limit = f"at most {max_bad_fraction:.1%}"
        raise DataError(text, expected=limit, fix="Repair the rows, or raise max_bad_fraction.")
    logger.warning("%s", text)
    return text

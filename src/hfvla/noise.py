"""Messages of other libraries that frighten for nothing, each with the reason why it says nothing about a run here."""

from __future__ import annotations

import logging
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["without_bars", "without_noise", "without_warnings"]

_WARNINGS: tuple[tuple[str, str], ...] = (
    (
        r"`gradient_checkpointing(_kwargs)?` is deprecated",
        "the name holds in every transformers 5, which is what hfvla asks for; recipes will follow with version 6",
    ),
)
"""Pattern of a warning's text, and why nobody has to act on it."""

_RECORDS: tuple[tuple[str, str, str], ...] = (
    ("DeepSpeed", "Setting accelerator to CPU", "it is imported by accelerate; the CPU is what the recipe asks for"),
    ("codecarbon", "", "energy is measured beside the run; what fails in it, hfvla says itself, once"),
)
"""Logger, pattern of a message, and why nobody has to act on it."""


class _Without(logging.Filter):
    """Drops the messages of a logger that a pattern begins to match.

    Args:
        pattern: regular expression.
    """

    def __init__(self, pattern: str) -> None:
        super().__init__()
        self._pattern = re.compile(pattern)

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to keep a record."""
        return self._pattern.match(record.getMessage()) is None


@contextmanager
def without_bars() -> Iterator[None]:
    """Load weights and read rows without progress bars of their own; downloads keep theirs."""
    import datasets.utils as of_datasets
    from huggingface_hub.utils import are_progress_bars_disabled, enable_progress_bars
    from transformers.utils import logging as of_transformers

    transformers_bars = of_transformers.is_progress_bar_enabled()
    datasets_bars = not of_datasets.are_progress_bars_disabled()
    downloads = not are_progress_bars_disabled()
    of_transformers.disable_progress_bar()  # and with them those of downloads
    of_datasets.disable_progress_bars()
    if downloads:
        enable_progress_bars()
    try:
        yield
    finally:
        if transformers_bars:
            of_transformers.enable_progress_bar()
            if not downloads:
                from huggingface_hub.utils import disable_progress_bars

                disable_progress_bars()
        if datasets_bars:
            of_datasets.enable_progress_bars()


@contextmanager
def without_warnings() -> Iterator[None]:
    """Run without the warnings of the list above; imports nothing."""
    with warnings.catch_warnings():
        for pattern, _ in _WARNINGS:
            warnings.filterwarnings("ignore", message=pattern)
        yield


@contextmanager
def without_noise() -> Iterator[None]:
    """Run without the bars of other libraries, and without the messages of the lists above."""
    filters = [(logging.getLogger(name), _Without(pattern)) for name, pattern, _ in _RECORDS]
    with without_bars(), without_warnings():
        for found, one in filters:
            found.addFilter(one)
        try:
            yield
        finally:
            for found, one in filters:
                found.removeFilter(one)

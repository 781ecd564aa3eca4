"""Texts of data sets: one form of each, so that equal texts are equal and letters of every script count.

Vietnamese, for one, may be written composed (one code point a letter, NFC) or decomposed (NFD, as macOS writes names);
both look the same, and neither equals the other. Readers therefore bring every text to NFC as they read it.
"""

from __future__ import annotations

import unicodedata

__all__ = ["clean_text", "letter_key", "task_key", "text_problem"]


def clean_text(text: str) -> str:
    """Return a text in NFC, without blanks at its ends."""
    return (text if text.isascii() else unicodedata.normalize("NFC", text)).strip()


def text_problem(text: str) -> str:
    """Return why a text cannot be stored: half a surrogate pair, as broken escapes of JSON leave it; "" if it can."""
    try:
        text.encode()  # letter by letter would take most of the time of a reader
    except UnicodeEncodeError as error:
        return f"half a character {text[error.start]!r} at {error.start}"
    return ""


def letter_key(text: str) -> str:
    """Return a text's letters alone, of any script, case folded: "Trồng cây 3!" becomes "trồngcây"."""
    return _kept(text, "LM")


def task_key(text: str) -> str:
    """Return a text's letters and numbers, of any script, case folded: what two spellings of one task share."""
    return _kept(text, "LMN")


def _kept(text: str, categories: str) -> str:
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return "".join(letter for letter in folded if unicodedata.category(letter)[0] in categories)

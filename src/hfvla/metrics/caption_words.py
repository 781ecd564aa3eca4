"""Words of captions as the Penn Treebank has them, without punctuation: what CIDEr compares."""

from __future__ import annotations

import re

__all__ = ["caption_words"]

_CURLY = str.maketrans({"‘": "'", "’": "'", "“": '"', "”": '"', "–": "-", "—": "-", "…": " ", "\u00a0": " "})
# Kept with their period; any other period between letters and a blank ends a sentence.
_ABBREVIATED = """
mr. mrs. ms. dr. prof. st. sr. jr. vs. mt. ft. ave. blvd. rd. no. u.s. u.k. u.s.a. a.m. p.m. d.c. etc. inc. co. corp.
ltd. e.g. i.e. jan. feb. aug. sept. oct. nov. dec. gen. gov. capt. lt. col. sgt.
"""
_ABBREVIATIONS = frozenset(_ABBREVIATED.split())
_TOKEN = re.compile(
    r"""
    (?:[^\W\d_]\.){2,}                           # u.s., p.m.
    | [+-]?\d+(?:[.,:/]\d+)*(?:st|nd|rd|th|s)?(?:-[^\W_]+)*\b  # 1,000  3.5  10:30  1/2  20th  1990s  12-year-old
    | '\d0s\b                                    # '90s
    | [^\W_]+(?:[-'&./@_][^\W_]+)*'?             # words, with hyphens and apostrophes inside
    | [$£€%&\#*+=~^|<>@/\\]                      # signs that count as words
    | [()\[\]{}]
    """,
    re.VERBOSE,
)
_NEGATION = re.compile(r"^(.+)(n't)$")
_CLITIC = re.compile(r"^(.+)('(?:s|m|d|ll|re|ve))$")
# The COCO evaluation means to leave brackets out, and does not: their names are in small letters by then.
_BRACKETS = {"(": "-lrb-", ")": "-rrb-", "[": "-lsb-", "]": "-rsb-", "{": "-lcb-", "}": "-rcb-"}
_PARTS = {
    "cannot": ("can", "not"),
    "gimme": ("gim", "me"),
    "gonna": ("gon", "na"),
    "gotta": ("got", "ta"),
    "lemme": ("lem", "me"),
    "wanna": ("wan", "na"),
}


def caption_words(text: str) -> list[str]:
    """Return the lower-case words of a caption.

    "A man's dog isn't here." gives a, man, 's, dog, is, n't, here. Punctuation that the COCO caption evaluation
    leaves out (`. , : ; ? ! - -- ...`, quotes) is left out, brackets become words (-lrb-) as there, words with hyphens
    stay whole.

    Differs from the Stanford tokenizer that the COCO evaluation calls in Java: no American spelling of British words,
    a short list of abbreviations, no emoticons, addresses or fractions of more than one character.

    Args:
        text: one caption.
    """
    words: list[str] = []
    for match in _TOKEN.finditer(text.translate(_CURLY).lower()):
        word = match[0]
        if word.endswith("'"):
            word = word[:-1]
        dotted = text[match.end() : match.end() + 1] == "."
        initial = len(word) == 1 and word.isalpha() and word != "a" and match.end() + 1 < len(text.rstrip())
        if dotted and (initial or f"{word}." in _ABBREVIATIONS):
            word += "."
        words += _parts(_BRACKETS.get(word, word))
    return words


def _parts(word: str) -> tuple[str, ...]:
    """Split contractions: "don't" is "do", "n't"; "dog's" is "dog", "'s"."""
    if word in _PARTS:
        return _PARTS[word]
    found = _NEGATION.match(word) or _CLITIC.match(word)
    return (found[1], found[2]) if found else (word,)

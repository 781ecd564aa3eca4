r"""VQA accuracy: how many of ten people gave the answer, after the official clean-up of both.

The clean-up behaves as the official script (GT-Vision-Lab/VQA, `vqaEval.py`, of 2017) does, quirks included:

- it is left out where all people gave the very same answer, so a capital letter then counts;
- a mark (`; / [ ] " { } ( ) = + \ _ - > < @ ` , ? !`) goes where it stands beside a blank, or where digits are joined
  by a comma anywhere in the text; otherwise it becomes a blank;
- a period goes unless a digit follows it, but only the first 32 of a text;
- number words up to ten become digits, and "none" becomes 0; "a", "an" and "the" go; contractions written without
  their apostrophe get it, those of the script's list and no others ("lets" stays).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence

import numpy as np

__all__ = ["normalise_answer", "vqa_accuracies", "vqa_accuracy"]

_MARKS = ';/[]"{}()=+\\_-><@`,?!'
_DIGITS_WITH_COMMA = re.compile(r"[0-9],[0-9]")
_PERIOD = re.compile(r"\.(?![0-9])")
_MAX_PERIODS = 32
_NUMBERS = ("none", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
_WORDS = {word: str(number) for number, word in enumerate(_NUMBERS)} | {"zero": "0"}
_ARTICLES = frozenset(("a", "an", "the"))

# Written without the apostrophe, or without one of the two, in answers.
_SINGLE = """
ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't haven't he'd he's how'd how'll how's isn't it'd
it'll ma'am mightn't might've mustn't must've needn't not've o'clock oughtn't shan't should've shouldn't somebody'll
somebody's someone'd someone'll someone's something'd something'll that's there'd there're there's they'd they'll
they're they've 'twas wasn't we've weren't what'll what're what's what've when's where'd where's where've who'd who'll
who's who've why'll why're why's won't would've wouldn't y'all you'd you'll you're you've
"""
_DOUBLE = """
couldn't've hadn't've he'd've it'd've mightn't've she'd've shouldn't've somebody'd've someone'd've something'd've
there'd've they'd've we'd've who'd've wouldn't've you'd've y'all'll
"""
_SPECIAL = {
    "somebody'd": "somebodyd",
    "ow's'at": "'ow's'at",
    "'ows'at": "'ow's'at",
    "'ow'sat": "'ow's'at",
    "yall'd've": "y'all'd've",
    "y'alld've": "y'all'd've",
    "y'all'dve": "y'all'd've",
}


def _spellings() -> Iterator[tuple[str, str]]:
    for word in _SINGLE.split():
        yield word.replace("'", ""), word
    for word in _DOUBLE.split():
        first, last = word.index("'"), word.rindex("'")
        yield word[:first] + word[first + 1 :], word
        yield word[:last] + word[last + 1 :], word
    yield from _SPECIAL.items()


_SPELLED = dict(_spellings())


def _trimmed(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def normalise_answer(text: str) -> str:
    """Return an answer as the official script compares it, e.g. "The two dogs!" as "2 dogs".

    Args:
        text: what a person or a model answered.
    """
    text = _trimmed(text)
    joined_digits = _DIGITS_WITH_COMMA.search(text) is not None
    cleaned = text
    for mark in _MARKS:
        beside_blank = f"{mark} " in text or f" {mark}" in text
        cleaned = cleaned.replace(mark, "" if beside_blank or joined_digits else " ")
    cleaned = _PERIOD.sub("", cleaned, count=_MAX_PERIODS)
    words = (_WORDS.get(word, word) for word in cleaned.lower().split())
    return " ".join(_SPELLED.get(word, word) for word in words if word not in _ARTICLES)


def vqa_accuracy(prediction: str, answers: Sequence[str], *, always_normalise: bool = False) -> float:
    """Score one answer: min(people who agree / 3, 1), averaged over leaving each person out.

    Args:
        prediction: the model's answer.
        answers: of the K people, usually ten.
        always_normalise: clean up also where all people gave the very same answer, which the official script does
            not do; then "Yes" is right where ten people said "yes".

    Returns:
        `float`: in 0..1. With K people of whom m agree: (m min((m - 1) / 3, 1) + (K - m) min(m / 3, 1)) / K.

    Raises:
        ValueError: fewer than two answers: leaving one out leaves nobody.

    Source: Antol et al. 2015 and the official script of VQA v2.
    """
    if len(answers) < 2:
        raise ValueError(f"VQA accuracy needs the answers of at least 2 people; got {len(answers)}")
    said, given = _trimmed(prediction), [_trimmed(answer) for answer in answers]
    if always_normalise or len(set(given)) > 1:
        said, given = normalise_answer(said), [normalise_answer(answer) for answer in given]
    count, agree = len(given), Counter(given)[said]
    without_one, without_another = min((agree - 1) / 3, 1.0), min(agree / 3, 1.0)
    return (agree * without_one + (count - agree) * without_another) / count


def vqa_accuracies(
    predictions: Sequence[str], answers: Sequence[Sequence[str]], *, always_normalise: bool = False
) -> np.ndarray:
    """Return `vqa_accuracy` of each of N questions, [N].

    Raises:
        ValueError: lengths differ, or a question has fewer than two answers.
    """
    if len(predictions) != len(answers):
        raise ValueError(f"need answers to every prediction; got {len(predictions)} and {len(answers)}")
    return np.array(
        [vqa_accuracy(p, a, always_normalise=always_normalise) for p, a in zip(predictions, answers, strict=True)]
    )

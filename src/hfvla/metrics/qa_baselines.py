"""Answers without eyes: the usual letter, the longest choice, and a classifier that reads the question's text only.

What a model that sees the clip must beat: a score that one of them reaches says nothing about seeing.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from hfvla.data.choices import LETTERS

__all__ = ["QUESTION_BASELINES", "Question", "fit_longest_choice", "fit_majority_letter", "fit_question_only"]

logger = logging.getLogger(__name__)

_STRENGTHS = (0.1, 1.0, 10.0)
_FOLDS = 4
_MAX_FEATURES = 200_000
_MAX_QUESTION_WORDS = 40

Answer = Callable[[Sequence["Question"]], np.ndarray]


@dataclass(frozen=True)
class Question:
    """The text of a multiple-choice question.

    Attributes:
        text: the question.
        choices: texts of the choices, without letters.
    """

    text: str
    choices: tuple[str, ...]


def fit_majority_letter(
    questions: Sequence[Question], gold: Sequence[int] | np.ndarray, groups: Sequence[str] | None = None, seed: int = 0
) -> Answer:
    """Answer with the letter that is right most often among training questions with as many choices.

    Args:
        questions: N training questions.
        gold: [N] index of the right choice.
        groups: unused.
        seed: unused.

    Returns:
        Function from M questions to [M] answers; with a number of choices never seen, the best letter of all that the
        question has.
    """
    by_count: dict[int, Counter[int]] = {}
    overall: Counter[int] = Counter()
    for question, answer in zip(questions, gold, strict=True):
        by_count.setdefault(len(question.choices), Counter())[int(answer)] += 1
        overall[int(answer)] += 1

    def answer_one(question: Question) -> int:
        seen = by_count.get(len(question.choices), overall)
        return max(range(len(question.choices)), key=lambda index: (seen[index], -index))

    return lambda asked: np.array([answer_one(question) for question in asked], dtype=int)


def fit_longest_choice(
    questions: Sequence[Question] = (),
    gold: Sequence[int] | np.ndarray = (),
    groups: Sequence[str] | None = None,
    seed: int = 0,
) -> Answer:
    """Answer with the choice that has the most characters, the first of them in a tie; nothing is fitted."""

    def answer_one(question: Question) -> int:
        return max(range(len(question.choices)), key=lambda index: (len(question.choices[index].strip()), -index))

    return lambda asked: np.array([answer_one(question) for question in asked], dtype=int)


def _words(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _features(pair: tuple[Question, int]) -> Iterator[str]:
    """Yield what can be said of one choice of a question, each also together with every word of the question.

    A linear model ranks the choices of one question; a feature of the question alone is equal for all of them.
    """
    question, index = pair
    choice = question.choices[index]
    words = _words(choice)
    lengths = [len(other.strip()) for other in question.choices]
    yield f"letter={LETTERS[index]}/{len(question.choices)}"
    yield f"longest={lengths[index] == max(lengths)}"
    yield f"shortest={lengths[index] == min(lengths)}"
    yield f"numeric={any(character.isdigit() for character in choice)}"
    own = [*words, *(" ".join(two) for two in zip(words, words[1:], strict=False)), f"={' '.join(words)}"]
    asked = _words(question.text)
    asked += [" ".join(two) for two in zip(asked, asked[1:], strict=False)]
    for feature in own:
        yield feature
        for word in list(dict.fromkeys(asked))[:_MAX_QUESTION_WORDS]:
            yield f"{word}>{feature}"
    yield f"repeats={len(set(words) & set(_words(question.text)))}"


def _fit(questions: Sequence[Question], gold: Sequence[int] | np.ndarray, strength: float) -> Answer:
    """Fit "is this choice the right one?" on every (question, choice) pair; answer with the best choice."""
    from sklearn.feature_extraction.text import TfidfVectorizer
    from sklearn.linear_model import LogisticRegression

    vectorizer = TfidfVectorizer(analyzer=lambda pair: list(_features(pair)), max_features=_MAX_FEATURES, norm="l2")

    def pairs(asked: Sequence[Question]) -> list[tuple[Question, int]]:
        return [(question, index) for question in asked for index in range(len(question.choices))]

    labels = [index == answer for question, answer in zip(questions, gold, strict=True)
              for index in range(len(question.choices))]  # fmt: skip
    model = LogisticRegression(C=strength, class_weight="balanced", solver="liblinear")
    model.fit(vectorizer.fit_transform(pairs(questions)), labels)

    def answer(asked: Sequence[Question]) -> np.ndarray:
        if not len(asked):
            return np.zeros(0, dtype=int)
        scores = model.decision_function(vectorizer.transform(pairs(asked)))
        ends = np.cumsum([len(question.choices) for question in asked])
        return np.array([part.argmax() for part in np.split(scores, ends[:-1])], dtype=int)

    return answer


def fit_question_only(
    questions: Sequence[Question], gold: Sequence[int] | np.ndarray, groups: Sequence[str] | None = None, seed: int = 0
) -> Answer:
    """Logistic regression over the words of question and choice, and which word of one goes with which of the other.

    The strength is chosen by grouped cross-validation inside the training questions.

    Args:
        questions: N training questions.
        gold: [N] index of the right choice.
        groups: N keys (videos) that must not cross a fold; default: every question its own.
        seed: unused: the folds follow from the groups.

    Raises:
        ValueError: fewer than two groups, so nothing can be held out.
    """
    from sklearn.model_selection import GroupKFold

    gold = np.asarray(gold, dtype=int)
    keys = np.asarray(list(groups) if groups is not None else [str(number) for number in range(len(questions))])
    if len(set(keys)) < 2:
        raise ValueError(f"question_only needs at least 2 different training videos; got {len(set(keys))}")
    folds = list(GroupKFold(n_splits=min(_FOLDS, len(set(keys)))).split(keys, groups=keys))

    def held_out(strength: float) -> float:
        right: list[Any] = []
        for train, test in folds:
            answer = _fit([questions[row] for row in train], gold[train], strength)
            right.extend(answer([questions[row] for row in test]) == gold[test])
        return float(np.mean(right))

    scores = {strength: held_out(strength) for strength in _STRENGTHS}
    best = max(_STRENGTHS, key=lambda strength: (scores[strength], -strength))
    logger.info("question_only: held-out accuracy %.3f with C = %s", scores[best], best)
    return _fit(questions, gold, best)


QUESTION_BASELINES: dict[str, Callable[..., Answer]] = {
    "majority_letter": fit_majority_letter,
    "longest_choice": fit_longest_choice,
    "question_only": fit_question_only,
}
"""Fit functions by name: `fit(questions, gold, groups, seed) -> answer(questions) -> [M] indices`."""

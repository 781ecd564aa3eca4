"""Answers without a model: what one that looks at pictures must beat."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from hfvla.data.samples.chat import ChatSample
from hfvla.data.samples.chat_pictures import load_reference
from hfvla.errors import DataError
from hfvla.metrics.chat.scores import Prediction
from hfvla.metrics.chat.tasks import Task, choices_of, gold_choice, question_of, references_of, task_of, tasks_of
from hfvla.metrics.retrieval_baselines import picture_features
from hfvla.metrics.vqa import normalise_answer

__all__ = ["CHAT_BASELINES", "usual_answer"]

logger = logging.getLogger(__name__)

_MAX_TRAINING = 20_000
_MAX_PICTURES = 3_000
_NEIGHBOURS = (1, 5, 15, 50)
_HELD_OUT = 0.2
_CHUNK = 256
_ANSWERED: tuple[Task, ...] = ("vqa", "exact")

Baseline = Callable[[Sequence[ChatSample], Sequence[Task], Sequence[ChatSample], int], list[Prediction]]


def usual_answer(sample: ChatSample) -> str:
    """Return the answer that most people gave, the first of them in a tie; "" without any."""
    references = references_of(sample)
    return Counter(references).most_common(1)[0][0] if references else ""


def _thinned(samples: Sequence[ChatSample], most: int, seed: int) -> list[ChatSample]:
    if len(samples) <= most:
        return list(samples)
    kept = np.sort(np.random.default_rng(seed).permutation(len(samples))[:most])
    return [samples[int(place)] for place in kept]


def most_frequent(
    samples: Sequence[ChatSample], tasks: Sequence[Task], training: Sequence[ChatSample], seed: int = 0
) -> list[Prediction]:
    """Answer with what is right most often in training: by kind of question, of the same number of choices.

    Boxes get the mean box; captions the training caption whose words are the most usual.

    Args:
        samples: to answer.
        tasks: what each asks for.
        training: other samples.
        seed: which training captions are compared where there are many.
    """
    by_kind: dict[tuple[Task, str], Counter[str]] = {}
    letters: dict[int, Counter[int]] = {}
    boxes, captions = [], []
    for sample, task in zip(training, tasks_of(training), strict=True):
        if task in _ANSWERED:
            for key in ((task, sample.kind), (task, "")):
                by_kind.setdefault(key, Counter())[usual_answer(sample)] += 1
        elif task == "choice" and gold_choice(sample) >= 0:
            letters.setdefault(len(choices_of(sample)), Counter())[gold_choice(sample)] += 1
        elif task == "box":
            boxes += [box.normalised for box in sample.boxes[:1]]
        elif task == "caption":
            captions.append(sample)
    caption = _typical_caption(captions, seed)
    found: list[Prediction] = []
    for sample, task in zip(samples, tasks, strict=True):
        answer: Prediction = None
        if task in _ANSWERED:
            counts = by_kind.get((task, sample.kind)) or by_kind.get((task, ""))
            answer = counts.most_common(1)[0][0] if counts else None
        elif task == "choice" and letters.get(len(choices_of(sample))):
            answer = chr(65 + letters[len(choices_of(sample))].most_common(1)[0][0])
        elif task == "box" and boxes:
            answer = np.mean(boxes, axis=0, keepdims=True)
        elif task == "caption":
            answer = caption
        found.append(answer)
    return found


def _typical_caption(captions: Sequence[ChatSample], seed: int) -> str | None:
    """Return the caption nearest to the mean of all, by TF-IDF words."""
    told = [references_of(sample)[0] for sample in _thinned(captions, _MAX_TRAINING, seed) if references_of(sample)]
    if not told:
        return None
    vectors = _words().fit_transform(told)
    mean = np.asarray(vectors.mean(axis=0)).ravel()
    return told[int(np.argmax(vectors @ mean))]


def _words() -> Any:
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(ngram_range=(1, 2), token_pattern=r"[\w']+", sublinear_tf=True)


def question_only(
    samples: Sequence[ChatSample], tasks: Sequence[Task], training: Sequence[ChatSample], seed: int = 0
) -> list[Prediction]:
    """Answer as the most similar training questions were answered, without looking at any picture.

    TF-IDF words and word pairs, a vote of the nearest weighted by cosine; how many vote is chosen on a fifth of the
    training groups, held out. Only short answers, and choices by their text.

    Args:
        samples: to answer.
        tasks: what each asks for.
        training: other samples.
        seed: which groups are held out, and which questions are used where there are more than 20,000.
    """
    wanted = [place for place, task in enumerate(tasks) if task in (*_ANSWERED, "choice")]
    known = [
        sample
        for sample, task in zip(training, tasks_of(training), strict=True)
        if task in (*_ANSWERED, "choice") and _answer_text(sample)
    ]
    known = _thinned(known, _MAX_TRAINING, seed)
    groups = np.array([sample.group or sample.id for sample in known])
    if not wanted or len(set(groups)) < 2:
        return [None] * len(samples)
    different = np.random.default_rng(seed).permutation(np.unique(groups))
    held_out = np.isin(groups, different[: max(1, int(_HELD_OUT * len(different)))])
    fitting = [sample for sample, out in zip(known, held_out, strict=True) if not out]
    checking = [sample for sample, out in zip(known, held_out, strict=True) if out]
    gold = [normalise_answer(_answer_text(sample)) for sample in checking]
    near = _neighbours(checking, fitting)
    right = {
        voters: np.mean(
            [said == told for said, told in zip(_vote(checking, fitting, near, voters), gold, strict=True)]
        )
        for voters in _NEIGHBOURS
    }
    voters = max(right, key=lambda count: (right[count], count))
    logger.info("question_only: %d neighbours vote", voters)
    answers: list[Prediction] = [None] * len(samples)
    asked = [samples[place] for place in wanted]
    for place, told in zip(wanted, _vote(asked, known, _neighbours(asked, known), voters, letters=True), strict=True):
        answers[place] = told
    return answers


def _answer_text(sample: ChatSample) -> str:
    choices = choices_of(sample) if task_of(sample) == "choice" else ()
    if choices:
        gold = gold_choice(sample)
        return choices[gold] if gold >= 0 else ""
    return usual_answer(sample)


def _neighbours(asked: Sequence[ChatSample], known: Sequence[ChatSample]) -> tuple[np.ndarray, np.ndarray]:
    """Return the places of the most similar known questions, [N, K], and their cosines."""
    words = _words()
    memory = words.fit_transform([question_of(sample) for sample in known])
    count = min(_NEIGHBOURS[-1], len(known))
    places, cosines = [], []
    for start in range(0, len(asked), _CHUNK):
        told = words.transform([question_of(sample) for sample in asked[start : start + _CHUNK]])
        found = (told @ memory.T).toarray()
        order = np.argsort(-found, axis=1, kind="stable")[:, :count]
        places.append(order)
        cosines.append(np.take_along_axis(found, order, axis=1))
    return np.concatenate(places), np.concatenate(cosines)


def _vote(
    asked: Sequence[ChatSample],
    known: Sequence[ChatSample],
    near: tuple[np.ndarray, np.ndarray],
    voters: int,
    *,
    letters: bool = False,
) -> list[str]:
    """Return the cleaned-up answer that the nearest questions vote for, among a question's choices where it has some.

    Args:
        asked: N questions.
        known: questions with answers.
        near: of `_neighbours`.
        voters: how many of them vote, weighted by cosine.
        letters: answer with the letter of a choice.
    """
    answers = [normalise_answer(_answer_text(sample)) for sample in known]
    found = []
    for sample, places, cosines in zip(asked, *near, strict=True):
        votes: Counter[str] = Counter()
        for place, cosine in zip(places[:voters], cosines[:voters], strict=True):
            votes[answers[place]] += cosine + 1e-6
        shown = choices_of(sample) if task_of(sample) == "choice" else ()
        choices = [normalise_answer(choice) for choice in shown]
        if choices:
            best = max(range(len(choices)), key=lambda place: (votes[choices[place]], -place))
            found.append(chr(65 + best) if letters else choices[best])
        else:
            found.append(votes.most_common(1)[0][0])
    return found


def nearest_picture(
    samples: Sequence[ChatSample], tasks: Sequence[Task], training: Sequence[ChatSample], seed: int = 0
) -> list[Prediction]:
    """Caption with the caption of the training picture that looks most alike: colours and their layout.

    Args:
        samples: to answer; only captions of one picture.
        tasks: what each asks for.
        training: other samples.
        seed: which pictures are used where there are more than 3,000.
    """
    wanted = [place for place, task in enumerate(tasks) if task == "caption" and len(samples[place].images) == 1]
    known = [
        sample
        for sample, task in zip(training, tasks_of(training), strict=True)
        if task == "caption" and len(sample.images) == 1 and references_of(sample)
    ]
    known = _thinned(known, _MAX_PICTURES, seed)
    answers: list[Prediction] = [None] * len(samples)
    seen, memory = _features(known)
    asked, features = _features([samples[place] for place in wanted])
    if not len(memory) or not len(features):
        return answers
    spread = memory.std(axis=0) + 1e-3
    mean = memory.mean(axis=0)
    memory, features = _unit((memory - mean) / spread), _unit((features - mean) / spread)
    for row, number in zip((features @ memory.T).argmax(axis=1), asked, strict=True):
        answers[wanted[number]] = references_of(known[seen[int(row)]])[0]
    return answers


def _features(samples: Sequence[ChatSample]) -> tuple[list[int], np.ndarray]:
    """Return which pictures can be read, and their colour layout; the others are answered by nobody."""
    numbers, features = [], []
    for number, sample in enumerate(samples):
        try:
            features.append(picture_features(load_reference(sample.images[0], sample.id, draft_side=64)))
        except DataError as error:
            logger.warning("nearest_picture: %s", error)
            continue
        numbers.append(number)
    return numbers, np.array(features)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


CHAT_BASELINES: dict[str, Baseline] = {
    "most_frequent": most_frequent,
    "question_only": question_only,
    "nearest_picture": nearest_picture,
}
"""By name; each answers what it can, None otherwise."""

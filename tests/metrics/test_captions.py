"""Caption scores against pycocoevalcap (CIDEr, and the words of its Java tokenizer), sacrebleu and by hand."""

import numpy as np
import pytest
import sacrebleu

from hfvla.metrics.caption_words import caption_words
from hfvla.metrics.captions import (
    bleu,
    bleu_counts,
    caption_scores,
    cider_scores,
    fit_document_frequencies,
    rouge_l_scores,
)

PICTURES = [
    ("A man rides a brown horse.", ["a man riding a horse", "A man on a brown horse on the beach."]),
    (
        "two dogs play with a ball",
        ["Two dogs are playing.", "dogs with a red ball", "two brown dogs play in the grass"],
    ),
    ("a red bus", ["A double-decker bus on the street."]),
    ("the cat", ["the cat", "a cat's tail isn't here", "cat cat cat the cat"]),
]
CANDIDATES = [candidate for candidate, _ in PICTURES]
REFERENCES = [references for _, references in PICTURES]


@pytest.mark.parametrize(
    ("caption", "words"),
    [
        # What the Stanford tokenizer gives for these, punctuation left out as the COCO evaluation does.
        ("A man's dog isn't here.", "a man 's dog is n't here"),
        ("A black-and-white cat, on a t-shirt!", "a black-and-white cat on a t-shirt"),
        (
            "a book called CEO (Customer Engagement Officer)",
            "a book called ceo -lrb- customer engagement officer -rrb-",
        ),
        ("A book by Brian K. Vaughn titled The Last Men.", "a book by brian k. vaughn titled the last men"),
        ("Two dogs. One cat.", "two dogs one cat"),
        ("They cannot fly at 10:30, for $1,000.", "they can not fly at 10:30 for $ 1,000"),
    ],
)
def test_words(caption, words):
    assert " ".join(caption_words(caption)) == words


def test_cider_is_that_of_pycocoevalcap():
    # Cider().compute_score of pycocoevalcap 1.2 on the same words.
    expected = [2.4912121463167614, 1.9224181673215512, 0.8653594090315466, 2.942718921499214]
    assert cider_scores(CANDIDATES, REFERENCES) == pytest.approx(expected, abs=1e-12)


def test_cider_by_hand():
    # Two pictures without common words: every n-gram weighs ln 2, so the same caption scores 10, and half of it where
    # one of two references says something else.
    found = cider_scores(["a b c d", "e f g h"], [["a b c d", "x"], ["e f g h"]])
    assert found == pytest.approx([5.0, 10.0])
    # A caption twice as long loses by the length of its word pairs: 3 against 6, exp(-9 / 72).
    longer = cider_scores(["a b c d z y x"], [["a b c d"]], fit_document_frequencies([["q"], ["r"]]))
    assert longer[0] < 10 * np.exp(-9 / 72)


def test_words_of_all_pictures_weigh_nothing():
    assert cider_scores(["a dog"], [["a dog"]])[0] == 0.0
    many = fit_document_frequencies([["a dog"], ["a cat"], ["a bird"]])
    assert cider_scores(["a dog runs far"], [["a dog runs far"]], many)[0] == pytest.approx(10.0)


def test_bleu_is_sacrebleus():
    counts = bleu_counts(CANDIDATES, REFERENCES)
    longest = max(map(len, REFERENCES))
    streams = [[refs[n] if n < len(refs) else None for refs in REFERENCES] for n in range(longest)]
    expected = sacrebleu.corpus_bleu(CANDIDATES, streams, lowercase=True).score
    assert bleu(counts) == pytest.approx(expected) and 0 < expected < 100
    assert bleu(counts[[0, 0, 1]]) == pytest.approx(
        sacrebleu.corpus_bleu(
            [CANDIDATES[n] for n in (0, 0, 1)],
            [[REFERENCES[n][m] if m < len(REFERENCES[n]) else None for n in (0, 0, 1)] for m in range(longest)],
            lowercase=True,
        ).score
    )


def test_rouge_l_takes_the_best_reference():
    # "the wall was red" in "the wall was painted red": 4 of 4 and 4 of 5 words.
    found = rouge_l_scores(["the wall was red"], [["a dog", "the wall was painted red"]])
    assert found[0] == pytest.approx(2 * 0.8 / 1.8)


def test_all_scores_and_refusals():
    scores = caption_scores(CANDIDATES, REFERENCES)
    assert set(scores) == {"cider", "bleu", "rouge_l", "words"} and scores["words"] == pytest.approx(17 / 4)
    with pytest.raises(ValueError, match="candidate 1 has no reference"):
        cider_scores(["a", "b"], [["a"], []])
    with pytest.raises(ValueError, match="got 1 and 2"):
        bleu_counts(["a"], [["a"], ["b"]])

"""Hashed n-grams of a text."""

from hfvla.data.ngrams import hashed_ngrams


def test_ids_are_the_same_on_every_machine():
    assert hashed_ngrams("Fly", 1000) == [166, 612, 780, 813, 819, 829]


def test_case_and_punctuation_do_not_count():
    assert hashed_ngrams("The  DAM!", 4096) == hashed_ngrams("the dam", 4096)


def test_words_share_their_parts_and_pairs_are_ordered():
    one, other = set(hashed_ngrams("irrigation", 1 << 20)), set(hashed_ngrams("irrigated", 1 << 20))
    assert len(one & other) > len(one) / 3
    assert set(hashed_ngrams("dam wall", 1 << 20)) != set(hashed_ngrams("wall dam", 1 << 20))


def test_ids_leave_zero_for_padding():
    assert min(hashed_ngrams("survey the reservoir side of the dam", 7)) >= 1
    assert hashed_ngrams("?!", 7) == []

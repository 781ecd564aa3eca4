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


def test_a_word_left_out_leaves_no_part_of_it():
    whole, parts = set(hashed_ngrams("dam reservoir", 1 << 20)), {"dam": None, "reservoir": None}
    for word in parts:
        parts[word] = set(hashed_ngrams(word, 1 << 20))
    seen = {tuple(hashed_ngrams("dam reservoir", 1 << 20, 0.5, seed)) for seed in range(40)}
    assert seen == {(), *(tuple(sorted(ids)) for ids in (whole, *parts.values()))}


def test_words_are_left_out_by_the_seed_alone():
    text = "survey the reservoir side of the dam"
    assert hashed_ngrams(text, 4096, 0.3, 5) == hashed_ngrams(text, 4096, 0.3, 5)
    assert len({tuple(hashed_ngrams(text, 4096, 0.3, seed)) for seed in range(20)}) > 5
    assert hashed_ngrams(text, 4096, 0.0, 5) == hashed_ngrams(text, 4096)


def test_words_and_pairs_have_ids_of_their_own():
    together, apart = set(hashed_ngrams("dam wall", 4096)), set(hashed_ngrams("dam wall", 4096, apart=True))
    whole = {number - 4096 for number in apart if number > 4096}
    assert len(whole) == 3  # dam, wall, dam wall
    assert together == whole | {number for number in apart if number <= 4096}

"""Tasks in other words: whole words alone, the same for the same seed, and never another robot."""

import re

from hfvla.data.paraphrase import FRAMES, SYNONYMS, paraphrase

TASK = "Inspect the damaged roof near the small bridge."


def test_a_seed_says_what_is_said():
    told = {paraphrase(TASK, seed, 1.0) for seed in range(60)}
    assert len(told) > 20 and all(paraphrase(TASK, seed, 1.0) in told for seed in range(60))
    assert {paraphrase(TASK, seed, 0.0) for seed in range(20)} == {TASK}
    kept = sum(paraphrase(TASK, seed, 0.3) == TASK for seed in range(400)) / 400
    assert 0.6 < kept < 0.8


def test_only_whole_words_change():
    for seed in range(50):
        assert "bigger" in paraphrase("See the bigger checkpoint of smallness", seed, 1.0)
        assert "checkpoint of smallness" in paraphrase("See the bigger checkpoint of smallness", seed, 1.0)


def test_what_is_left_of_a_task_is_said_in_its_words():
    """Taking frames and synonyms back gives the task again."""
    back = {word: group[0] for group in reversed(SYNONYMS) for word in group}
    for seed in range(80):
        told = paraphrase(TASK, seed, 1.0)
        assert told.endswith(".") and told[0].isupper()
        for frame in FRAMES:
            before, _, after = frame.partition("{task}")
            told = told.removeprefix(before)
            told = told.removesuffix(f"{after}.") + "." if after and told.endswith(f"{after}.") else told
        for phrase in sorted((word for word in back if " " in word), key=len, reverse=True):
            told = re.sub(rf"\b{phrase}\b", back[phrase], told)
        words = [back.get(word.lower().strip("."), word.lower().strip(".")) for word in told.split()]
        wanted = [back.get(word.lower().strip("."), word.lower().strip(".")) for word in TASK.split()]
        assert words == wanted, told


def test_no_word_is_in_two_groups():
    words = [word for group in SYNONYMS for word in group]
    assert len(words) == len(set(words))

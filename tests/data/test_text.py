"""Keys of texts: letters of every script, one form of each."""

import unicodedata

import pytest

from hfvla.data.samples.robots import normalise_task
from hfvla.data.text import clean_text, letter_key, task_key, text_problem


@pytest.mark.parametrize(
    "text", ["Trồng cây", "Проверь мост", "検査する橋", "افحص الجسر", "पुल की जाँच", "Prüfe Straße"]
)
def test_tasks_of_every_script_have_keys_of_their_own(text):
    key = normalise_task(f"Task: {text}!")
    assert key and key == letter_key(text) == letter_key(unicodedata.normalize("NFD", text.upper()))
    assert key != letter_key("Trồng cỏ") and " " not in key


def test_vowel_signs_and_tones_tell_words_apart():
    assert letter_key("मकान") != letter_key("मकानी") and letter_key("ma") != letter_key("mà")


def test_numbers_count_in_the_key_of_a_task_and_not_in_its_groups():
    assert task_key("Inspect tower 3.") != task_key("Inspect tower 4.")
    assert normalise_task("Inspect tower 3.") == normalise_task("inspect TOWER 4") == "inspecttower"
    assert task_key("Kiểm tra 3") == task_key("kiểm-tra:3")


def test_clean_text_is_composed_without_outer_blanks():
    assert clean_text(unicodedata.normalize("NFD", "  đường ")) == "đường"


def test_half_a_character_is_named():
    assert text_problem("đường 🚁") == "" and "'\\ud83d' at 2" in text_problem("a \ud83d")

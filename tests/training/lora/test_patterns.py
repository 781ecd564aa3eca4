"""Which regular expressions are too slow to be matched with names: by kind, and that those let through are quick."""

import re

import pytest

from hfvla.training.lora.patterns import slow_pattern

QUICK = [
    r"language_model\..*\.(q|k|v|o)_proj",
    r".*self_attn.*proj$",
    r"^(?!vision)model\.layers\.\d+\.mlp",
    r"layers\.(1|2|3)\.[a-z_]+\.[^.]+",
    r"(?:up|down|gate)_proj",
    r"\w{1,200}",
    r"(ab){2,5}",
]
SLOW = [
    (r"(a+)+$", "repeated group"),
    (r"(a|a)*$", "repeated group"),
    (r"(?:(x*)y?)*z", "repeated group"),
    (r"((a{2,}){2,})b*+(c+)+", "repeated group"),
    (r".*.*.*.*.*x", "5 unbounded repeats"),
    (r"(a)?(?(1)(b+)+|c)", "repeated group"),
    ("(", "not a regular expression"),
    ("[z-a]", "not a regular expression"),
    ("(" * 5000 + ")" * 5000, "not a regular expression"),
    ("a" * 1_000_001, "characters"),
]


@pytest.mark.parametrize("pattern", QUICK)
def test_patterns_that_people_write_are_let_through_and_end(pattern):
    assert slow_pattern(pattern) is None
    re.search(pattern, "a" * 200 + "!")  # ends


@pytest.mark.parametrize(("pattern", "why"), SLOW)
def test_what_could_take_for_ever_is_told(pattern, why):
    assert why in slow_pattern(pattern)

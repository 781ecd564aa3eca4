import pytest

from hfvla.errors import RecipeError
from hfvla.recipe import load_recipe
from hfvla.recipe.patterns import compile_pattern, matching_names

NAMES = ["language.layers.0.attn.q_proj", "language.layers.11.attn.v_proj", "vision.blocks.0.mlp", "a" * 60]


@pytest.mark.parametrize(
    ("pattern", "count"),
    [(r".*\.(q|v)_proj", 2), (r"language\.layers\.\d+\..*", 2), (r"(\w+\.)*mlp", 1), ("mlp", 0), (".*", 4)],
)
def test_a_pattern_matches_whole_names(pattern, count):
    assert len(matching_names(pattern, NAMES)) == count


@pytest.mark.parametrize("pattern", ["(a|aa)+[bc]", "(a|a)*[bc]"])
def test_a_pattern_of_too_many_ways_is_given_up(pattern):
    with pytest.raises(RecipeError, match="the pattern tries too many ways to match"):
        matching_names(pattern, NAMES, seconds=0.05)


@pytest.mark.parametrize(
    "pattern", ["(", "*a", "[", "a{2,1}", "(?P<x>", "a" * 1001, "a{1000000000}", "((a{99}){99}){99}"]
)
def test_what_is_no_pattern_is_refused(pattern):
    with pytest.raises(RecipeError, match="not a regular expression|at most 1,000 letters|come to at most 10,000"):
        compile_pattern(pattern)


def test_a_recipe_with_a_bad_pattern_is_refused_at_its_line():
    override = "stages.0.lora={target: 're:(', r: 4}"
    with pytest.raises(RecipeError) as caught:
        load_recipe("recipes/ember_vlm/tiny.yaml", [override])
    assert any(
        f"override '{override}': stages[0].lora.target: not a regular" in line for line in caught.value.problems
    )

import pytest

from hfvla.errors import RecipeError
from hfvla.recipe.document import Problem, format_steps, parse_value, read_document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5.0e-5", 5e-5),
        ("1E3", 1000.0),
        (".5", 0.5),
        ("-2", -2),
        ("010", 10),
        ("0x10", 16),
        ("1_000", 1000),
        ("true", True),
        ("null", None),
        ("~", None),
        ("", None),
        ("yes", "yes"),
        ("on", "on"),
        ("12:30", "12:30"),
        ("2024-01-02", "2024-01-02"),
        ("'1e-4'", "1e-4"),
        ("[a, 1e-4]", ["a", 1e-4]),
        ("{1: b}", {"1": "b"}),
        (".inf", float("inf")),
        ("-.inf", float("-inf")),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    found = parse_value(text, "here")
    assert found == value and type(found) is type(value)


def test_places_are_lines(write):
    path = write("family: toy\nstages:\n  - name: a\n    train:\n      - vision\n      - language\n")
    document = read_document(path)
    assert document.places[("stages",)] == f"{path}:2"
    assert document.places[("stages", 0, "name")] == f"{path}:3"
    assert document.places[("stages", 0, "train", 1)] == f"{path}:6"
    assert document.describe(Problem(("stages", 0, "missing"), "x")) == f"{path}:3: stages[0].missing: x"


def test_steps_as_text():
    assert format_steps(("stages", 0, "train", 2)) == "stages[0].train[2]"
    assert format_steps(()) == ""


def test_merge_keys_and_anchors_keep_their_places(write):
    text = "base: &b {train: [a], losses: {x: 1}}\nstages:\n  - <<: *b\n    losses: {y: 2}\n"
    document = read_document(write(text))
    assert document.data["stages"][0] == {"train": ["a"], "losses": {"y": 2}}
    assert document.places[("stages", 0, "losses", "y")].endswith(":4")
    assert document.places[("stages", 0, "train")].endswith(":1")
    assert not document.problems


def test_a_key_given_twice_is_a_problem_with_both_lines(write):
    document = read_document(write("family: toy\nseed: 1\nseed: 2\n"))
    assert [problem.text for problem in document.problems] == ["given twice (lines 2 and 3); keep one"]
    assert document.data["seed"] == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "the recipe is empty"),
        ("# only words\n", "the recipe is empty"),
        ("- a\n- b\n", "a recipe is a mapping"),
        ("family: [toy\nseed: 1\n", r"recipe.yaml:2: not valid YAML.*starts on line 1"),
        ("family: toy\n\tseed: 1\n", r"recipe.yaml:2: not valid YAML"),
        ("a: *nowhere\n", r"recipe.yaml:1: not valid YAML.*nowhere"),
        ("a: 1\n---\nb: 2\n", r"recipe.yaml:2: not valid YAML"),
    ],
)
def test_what_is_not_a_recipe_is_refused(write, text, message):
    with pytest.raises(RecipeError, match=message):
        read_document(write(text))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/name:os.system x", "python/name:os.system is not allowed"),
        ("a: !mine 1", "the tag !mine is not allowed"),
        ("a: &x [*x]", "may not contain itself"),
        ("a: !!int word", "cannot be read as int; got 'word'"),
        ("[b]: 1", "a key must be a single word"),
        ("<<: 3", "'<<' takes a mapping"),
    ],
)
def test_what_a_recipe_may_not_hold(write, text, message):
    document = read_document(write(text))
    assert len(document.problems) == 1 and message in document.problems[0].text


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(RecipeError, match="nowhere.yaml: no such recipe"):
        read_document(tmp_path / "nowhere.yaml")
    with pytest.raises(RecipeError, match=r"a folder is no recipe\..*`hfvla recipes` lists"):
        read_document(tmp_path)
    (tmp_path / "latin.yaml").write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(RecipeError, match="latin.yaml: cannot be read"):
        read_document(tmp_path / "latin.yaml")


def test_a_path_that_is_nearly_right_says_which_is_meant(tmp_path):
    (tmp_path / "smoke.yaml").write_text("family: x")
    with pytest.raises(RecipeError, match=r"smok\.yaml: no such recipe\. Did you mean '.*smoke\.yaml'"):
        read_document(tmp_path / "smok.yaml")

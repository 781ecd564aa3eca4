import pytest

from hfvla.errors import RecipeError
from hfvla.recipe import load_recipe, parse_data_argument
from hfvla.recipe.document import Document
from hfvla.recipe.overrides import apply_overrides


def tree():
    return {
        "seed": 1,
        "data": {"train": [{"source": "made"}, {"source": "made", "name": "hard"}, {"source": "records"}]},
        "stages": [{"name": "align", "train": ["a"]}, {"name": "select"}],
    }


def applied(*overrides):
    document = Document(tree())
    problems = apply_overrides(document, overrides)
    assert not problems
    return document.data


@pytest.mark.parametrize(
    ("override", "read", "value"),
    [
        ("seed=7", lambda t: t["seed"], 7),
        ("name=a=b", lambda t: t["name"], "a=b"),
        ("seed=", lambda t: t["seed"], None),
        ("stages.select.args.learning_rate=1e-4", lambda t: t["stages"][1]["args"]["learning_rate"], 1e-4),
        ("stages.0.train=[x, y]", lambda t: t["stages"][0]["train"], ["x", "y"]),
        ("stages[1].patience=3", lambda t: t["stages"][1]["patience"], 3),
        ("stages.align.train.0=z", lambda t: t["stages"][0]["train"], ["z"]),
        ("data.train.records.path=x.json", lambda t: t["data"]["train"][2]["path"], "x.json"),
        ("data.train.hard.size=5", lambda t: t["data"]["train"][1]["size"], 5),
        ("data.train.made.size=6", lambda t: t["data"]["train"][0]["size"], 6),
        (
            "stages.align.learning_rates.language.last(2)=5.0e-5",
            lambda t: t["stages"][0]["learning_rates"],
            {"language.last(2)": 5e-5},
        ),
    ],
)
def test_an_override_reaches_its_value(override, read, value):
    assert read(applied(override)) == value


def test_later_overrides_win():
    assert applied("seed=2", "seed=3")["seed"] == 3


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("seed", "override 'seed': expected key=value"),
        ("=1", "override '=1': expected key=value"),
        ("stages.=1", r"'stages\.' is not a path"),
        ("stages..train=1", "is not a path"),
        ("stages.selct.patience=1", r"stages: no item 'selct'\. Did you mean 'select'\?"),
        ("stages.5.patience=1", "has 2 items, numbered from 0; got 5"),
        ("seed.x=1", "seed: is 1 and has no 'x' inside"),
        ("seed=[1", r"override 'seed=\[1': not valid YAML"),
        ("args=!!python/name:os.system", "python/name:os.system is not allowed"),
    ],
)
def test_bad_overrides_are_named(override, message):
    document = Document(tree())
    with pytest.raises(RecipeError, match=message):
        raise RecipeError(apply_overrides(document, [override]))


def test_an_ambiguous_name_asks_for_the_number():
    document = Document({"stages": [{"name": "a"}, {"name": "a"}]})
    assert "2 items are called 'a'; use their number" in apply_overrides(document, ["stages.a.patience=1"])[0]


def test_problems_at_an_overridden_value_name_the_override(write, good, families):
    path = write(good)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, ["seed=abc", "stages.align.trian=[vision]", "nonsense"], families)
    assert caught.value.problems == [
        "override 'seed=abc': seed: expected a whole number; got 'abc'",
        "override 'stages.align.trian=[vision]': stages[0].trian: unknown key 'trian'. Did you mean 'train'?",
        "override 'nonsense': expected key=value, e.g. seed=1 or stages.<name>.args.learning_rate=1e-4",
    ]


def test_an_override_repairs_the_file(write, good, families):
    path = write(good.replace("seed: 3", "seed: three"))
    with pytest.raises(RecipeError, match="three"):
        load_recipe(path, families=families)
    assert load_recipe(path, ["seed=4"], families).seed == 4


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("fleet", {"source": "fleet"}),
        ("records=a/b:c.json", {"source": "records", "path": "a/b:c.json"}),
        ("fleet:split=test,size=500", {"source": "fleet", "split": "test", "size": 500}),
        ("fleet:robots=[a, b],rate=1e-4", {"source": "fleet", "robots": ["a", "b"], "rate": 1e-4}),
    ],
)
def test_data_arguments(text, options):
    assert parse_data_argument(text) == (options["source"], options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "expected SOURCE"),
        ("3x=a", "--data '3x=a': expected SOURCE"),
        ("fleet:size", "'size' is not key=value"),
        ("fleet:size=1,size=2", "'size' is given twice"),
        ("fleet:source=x", "'source' is given twice"),
        ("fleet:size=[", "not valid YAML"),
    ],
)
def test_bad_data_arguments(text, message):
    with pytest.raises(RecipeError, match=message):
        parse_data_argument(text)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("/x/run #2", "/x/run #2"),
        ("#2", "#2"),
        ("/x/a: b", "/x/a: b"),
        ("a: 1", "a: 1"),
        ("- a", "- a"),
        ("*.json", "*.json"),
        ("&b", "&b"),
        ("| a", "| a"),
        ("a, b", "a, b"),
        ("it's", "it's"),
        ("it's #2", "it's #2"),
        ("/x/run ", "/x/run "),
        ("C:\\new", "C:\\new"),
        ("---", "---"),
        ("<<", "<<"),
        (" 7 ", 7),
        (" null ", None),
        ('"7"', "7"),
        ("'/x/run #2'", "/x/run #2"),
        ('"a: b, c"', "a: b, c"),
        ("'it''s'", "it's"),
        ("[a, 'b # c', {d: 1}]", ["a", "b # c", {"d": 1}]),
        ("{a: 'b: c'}", {"a": "b: c"}),
    ],
)
def test_a_value_is_all_that_stands_behind_the_equals_sign(text, value):
    assert applied(f"output_dir={text}")["output_dir"] == value
    if "," not in text.strip("\"'[{"):
        assert parse_data_argument(f"records:path={text},split=test")[1]["path"] == value


@pytest.mark.parametrize("text", ['"/x/run" #2', "[a] #2", "{a: 1} b", "'a' 'b'", "[a", "'a", "{a: [}"])
def test_what_begins_like_yaml_must_be_yaml_to_its_end(text):
    with pytest.raises(RecipeError, match="not valid YAML"):
        raise RecipeError(apply_overrides(Document(tree()), [f"output_dir={text}"]))


def test_commas_stand_in_quotes():
    found = parse_data_argument("records:path=\"/data/a, b.json\",names=['x, y', z],size=3,title=it's")[1]
    assert found == {
        "source": "records", "path": "/data/a, b.json", "names": ["x, y", "z"], "size": 3, "title": "it's",
    }  # fmt: skip
    with pytest.raises(RecipeError, match=r"'b.json' is not key=value; a value with a comma stands in quotes"):
        parse_data_argument("records:path=/data/a,b.json")
    assert parse_data_argument("records=/data/a, b #3.json")[1]["path"] == "/data/a, b #3.json"

"""What a family can be asked, as a description: schemas, values, and what is refused before a model is loaded."""

import json

import pytest

from hfvla.errors import DataError, RecipeError
from hfvla.family import Request, RequestField

CAMERA = RequestField("views", "a picture", kind="picture", named=True, option="view", count=(1, 2))
REQUEST = Request(
    (
        RequestField("task", "in words", required=True),
        CAMERA,
        RequestField("images", "pictures", kind="picture", repeated=True),
        RequestField("steps", "how many", kind="integer", least=1, default=4),
        RequestField("state", "of the robot", kind="numbers"),
        RequestField("loud", "or not", kind="switch"),
        RequestField("sensor", "samples", kind="data"),
        RequestField("rate", "a second", kind="number"),
    ),
    one_of=(("views", "images"),),
    description="a task",
)


@pytest.fixture
def picture(tmp_path):
    (tmp_path / "a.png").write_bytes(b"x")
    return str(tmp_path / "a.png")


def test_a_schema_that_others_can_read():
    schema = json.loads(json.dumps(REQUEST.schema()))
    assert schema["required"] == ["task"] and schema["additionalProperties"] is False
    assert schema["properties"]["steps"] == {"type": "integer", "minimum": 1, "description": "how many", "default": 4}
    views = schema["properties"]["views"]
    assert (views["type"], views["minProperties"], views["maxProperties"]) == ("object", 1, 2)
    assert views["additionalProperties"]["contentMediaType"] == "image/*"
    assert schema["properties"]["images"]["items"]["format"] == "path"
    assert schema["allOf"] == [{"oneOf": [{"required": ["views"]}, {"required": ["images"]}]}]


def test_values_and_texts_are_one_request(picture):
    texts = {"task": ["look"], "views": [f"left={picture}"], "state": ["1 -2,3"], "loud": ["Yes"], "rate": ["2.5"]}
    given = REQUEST.check(REQUEST.parse(texts))
    assert given == {
        "task": "look", "views": {"left": picture}, "state": [1, -2, 3], "loud": True, "rate": 2.5, "steps": 4,
    }  # fmt: skip
    assert REQUEST.check(given) == given
    assert REQUEST.check({"task": None, "rate": 1}, partial=True) == {"rate": 1}
    encoded = REQUEST.check({"task": "look", "images": [b"bytes of a picture"], "sensor": {"values": [1]}})
    assert encoded["images"] == [b"bytes of a picture"] and encoded["sensor"] == {"values": [1]}


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"task": " "}, "task: not a text, or an empty one; got ' '"),
        ({"task": None}, "the request lacks 'task'"),
        ({"tusk": "x"}, "no field 'tusk'. Did you mean 'task'"),
        ({"images": None}, "one of 'views', 'images'; got 'none of them'"),
        ({"views": {"left": b"x"}}, "one of 'views', 'images'; got \"'views', 'images'\""),
        ({"views": {}}, "views: how many views; got 0; expected 1 to 2"),
        ({"views": ["a"]}, "views: not values by name"),
        ({"images": "a.png"}, "images: not a list"),
        ({"images": [7]}, "images: not a picture; got 7"),
        ({"images": ["a\0b"]}, "no such picture"),
        ({"steps": 0}, "steps: the number is too small; got 0"),
        ({"steps": True}, "steps: not an integer; got True"),
        ({"steps": 2.5}, "steps: not an integer; got 2.5"),
        ({"rate": float("nan")}, "rate: not a number; got nan"),
        ({"state": [1, float("inf")]}, "state: not numbers; got inf"),
        ({"state": 3}, "state: not a list of numbers"),
        ({"loud": "yes"}, "loud: not a switch"),
        ({"sensor": "much"}, "sensor: not an object or a list"),
    ],
)
def test_values_that_are_refused(change, match):
    with pytest.raises(DataError, match=match):
        REQUEST.check({"task": "look", "images": [b"x"], **change})


@pytest.mark.parametrize(
    ("texts", "match"),
    [
        ({"views": ["a=1", "a=2"]}, "--view: a name stands twice"),
        ({"loud": ["perhaps"]}, "--loud: not a switch; got 'perhaps'"),
        ({"task": ["a", "b"]}, "--task: one value; got '2 values'"),
        ({"sensor": ["[1"]}, "--sensor: not JSON"),
    ],
)
def test_texts_that_are_refused(texts, match):
    with pytest.raises(DataError, match=match):
        REQUEST.parse(texts)


def test_a_broken_file_of_arrays_is_named(tmp_path):
    (tmp_path / "series.npz").write_bytes(b"PK no archive")
    with pytest.raises(DataError, match="--sensor: not a file of arrays"):
        REQUEST.parse({"sensor": [str(tmp_path / "series.npz")]})


@pytest.mark.parametrize(
    ("field", "match"),
    [
        ({"name": "csv"}, "one of hfvla predict's own options"),
        ({"name": "two words"}, "its name is no word"),
        ({"name": "a", "kind": "pictures"}, "no kind 'pictures'. Did you mean 'picture'"),
        ({"name": "a", "repeated": True, "named": True}, "exclude each other"),
    ],
)
def test_fields_that_cannot_be_described(field, match):
    with pytest.raises(RecipeError, match=match):
        RequestField(help="x", **field)


def test_requests_that_cannot_be_described():
    with pytest.raises(RecipeError, match="got .*'view'"):
        Request((CAMERA, RequestField("view", "another")))
    with pytest.raises(RecipeError, match="got .*'gone'"):
        Request((CAMERA,), one_of=(("views", "gone"),))

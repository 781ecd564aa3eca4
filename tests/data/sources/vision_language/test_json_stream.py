"""JSON a record at a time: equal to the parser that holds all of it, with any size of window."""

import json
import random

import pytest

from hfvla.data.sources.vision_language import json_stream
from hfvla.data.sources.vision_language.json_stream import JsonPart, iterate_json, iterate_lines
from hfvla.errors import DataError


def values(draw, depth=0):
    kind = draw.randrange(7 if depth < 3 else 5)
    if kind == 5:
        return [values(draw, depth + 1) for _ in range(draw.randrange(4))]
    if kind == 6:
        return {f"k{number}": values(draw, depth + 1) for number in range(draw.randrange(4))}
    return [draw.randrange(-(10**9), 10**9), draw.random(), 'é"\\\n\u2028' * draw.randrange(3), None, True][kind]


@pytest.mark.parametrize("window", [1, 2, 3, 7, 64, 1 << 20])
def test_windows_of_any_size_give_the_same(tmp_path, monkeypatch, window):
    monkeypatch.setattr(json_stream, "_CHUNK", window)
    draw = random.Random(0)
    path = tmp_path / "a.json"
    for indent in (None, 2):
        listed = [values(draw) for _ in range(8)]
        path.write_text(json.dumps(listed, indent=indent, ensure_ascii=bool(indent)), encoding="utf-8")
        assert list(iterate_json(path)) == [JsonPart("", number, value) for number, value in enumerate(listed)]
        sections = {"info": {"a": 1}, "n": 12345, "images": listed, "empty": [], "last": "x"}
        path.write_text("\ufeff" + json.dumps(sections, indent=indent), encoding="utf-8")
        expected = [JsonPart("info", None, {"a": 1}), JsonPart("n", None, 12345)]
        expected += [JsonPart("images", number, value) for number, value in enumerate(listed)]
        assert list(iterate_json(path)) == [*expected, JsonPart("last", None, "x")]


@pytest.mark.parametrize("window", [4, 1 << 20])
@pytest.mark.parametrize(
    ("text", "match"),
    [
        ('[{"a": 1},\n {"a": 2', r"a\.json:2:\d+: broken JSON.*cut short"),
        ('[{"a": 1}\n', r"a\.json:2:1: broken JSON: expected ','"),
        ("[1,]", r"a\.json:1:4: broken JSON: Expecting value"),
        ('{"a" 1}', r"a\.json:1:6: broken JSON: expected ':'"),
        ('{1: 2}', r"broken JSON: a key that is no text"),
        ('[{"a": 1, "a": 2}]', r"the key 'a' stands twice"),
        ("[[1]]\n]", r"a\.json:2:1: broken JSON: more text behind the end"),
        ("hello", r"a\.json:1:1: broken JSON: neither a list nor an object"),
        ("", r"neither a list nor an object"),
        ("[" + "[" * 100_000, r"nested too deeply"),
        ("[" + "9" * 10_000 + "]", r"broken JSON"),
    ],
)  # fmt: skip
def test_broken_files_are_refused_by_line_and_column(tmp_path, monkeypatch, text, match, window):
    monkeypatch.setattr(json_stream, "_CHUNK", window)
    path = tmp_path / "a.json"
    path.write_text(text)
    with pytest.raises(DataError, match=match):
        list(iterate_json(path))


def test_lines_end_at_line_feeds_alone(tmp_path):
    path = tmp_path / "a.jsonl"
    path.write_bytes("\ufeffone\u2028more\r\n\n  \ntwo\x85".encode())
    assert list(iterate_lines(path)) == [(1, "one\u2028more"), (4, "two\x85")]


def test_files_that_cannot_be_read_are_errors(tmp_path):
    for path in (tmp_path, tmp_path / "none.json"):
        with pytest.raises(DataError, match="file cannot be read.*not a regular file"):
            list(iterate_json(path))

"""A folder is touched only if a mark says that this program made it for that; a file is replaced only with a flag."""

import json
import logging
import os

import pytest

from hfvla import outputs
from hfvla.errors import DataError, HfvlaError, RecipeError
from hfvla.outputs import MARK, beside, check_folder, claim_file, claim_folder, claim_new_folder, mark_folder

NOT_ROOT = pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("exists", [False, True])
def test_a_new_or_empty_folder_is_marked_and_used_again(tmp_path, exists):
    folder = tmp_path / "deep" / "scores"
    if exists:
        folder.mkdir(parents=True)
    claim_folder(folder, "evaluation")
    (folder / "metrics.json").write_text("{}")
    claim_folder(folder, "evaluation")
    mark = json.loads((folder / MARK).read_text())
    assert mark == {"made_by": "hfvla", "purpose": "evaluation", "files": []}


@pytest.mark.parametrize("name", ["metrics.json", "index.json", "recipe.json", ".hidden", "cache"])
@pytest.mark.parametrize("purpose", ["run", "evaluation", "comparison", "index"])
def test_a_folder_of_somebody_else_is_left_alone(tmp_path, name, purpose):
    (tmp_path / name).write_text("mine")
    with pytest.raises(DataError, match=rf"holds other files and is not an? {purpose}.* of hfvla; got '{name}'.*--to"):
        claim_folder(tmp_path, purpose, option="--to", error=DataError)
    assert tree(tmp_path) == {name: b"mine"}


def test_a_folder_that_was_made_for_something_else_is_left_alone(tmp_path):
    claim_folder(tmp_path, "run")
    before = tree(tmp_path)
    with pytest.raises(RecipeError, match="holds a run, and an evaluation needs a folder of its own"):
        claim_folder(tmp_path, "evaluation", error=RecipeError)
    assert tree(tmp_path) == before


@pytest.mark.parametrize("mark", ["", "[]", "null", "{", '{"made_by": "me"}', "[" * 100_000, "\udcff"])
def test_a_mark_of_somebody_else_is_none(tmp_path, mark):
    (tmp_path / MARK).write_text(mark, errors="surrogateescape")
    (tmp_path / "x").write_text("mine")
    with pytest.raises(HfvlaError, match="holds other files"):
        check_folder(tmp_path, "run")


def test_an_interrupted_first_file_does_not_count(tmp_path):
    (tmp_path / f"{MARK}.77.tmp").write_text("{")
    (tmp_path / ".lock").touch()
    assert outputs.purpose_of(tmp_path) is None
    claim_folder(tmp_path, "run")
    assert outputs.purpose_of(tmp_path) == "run"


def test_files_are_noted_in_the_mark(tmp_path):
    claim_folder(tmp_path, "run")
    mark_folder(tmp_path, "run", ["b.mp4"])
    mark_folder(tmp_path, "run", ["a.csv"])
    assert outputs.marked_files(tmp_path) == {"a.csv", "b.mp4"} and outputs.purpose_of(tmp_path) == "run"


PLACES = {
    "a file": lambda folder: folder / "file",
    "below a file": lambda folder: folder / "file" / "deeper" / "down",
    "proc": lambda folder: "/proc/nothing/there",
    "too long": lambda folder: folder / ("x" * 300),
    "zero byte": lambda folder: f"{folder}/a\0b",
    "a loop": lambda folder: folder / "loop" / "x",
    "nowhere": lambda folder: folder / "dead",
}
CLAIMS = {
    "folder": lambda place: claim_folder(place, "run", error=DataError),
    "new folder": lambda place: claim_new_folder(place, error=DataError),
    "file": lambda place: claim_file(place, False, "--output", error=DataError),
}


@pytest.mark.parametrize("claim", CLAIMS)
@pytest.mark.parametrize("place", PLACES)
def test_places_that_cannot_be_written_are_one_line(tmp_path, place, claim):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "dead").symlink_to(tmp_path / "gone" / "target")
    with pytest.raises(DataError) as caught:
        CLAIMS[claim](PLACES[place](tmp_path))
    assert len(str(caught.value).splitlines()) == 1 and len(str(caught.value)) < 500
    assert tree(tmp_path) == {"file": b"mine"}


@NOT_ROOT
def test_a_folder_without_rights_is_one_line(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(HfvlaError, match="cannot be written: Permission denied"):
        claim_folder(tmp_path / "new", "run")


def test_a_file_is_replaced_only_with_the_flag_and_named(tmp_path, caplog):
    path = tmp_path / "new" / "schema.json"
    claim_file(path, False, "--output")
    assert not path.exists() and list(path.parent.iterdir()) == []
    path.write_text("mine")
    with pytest.raises(HfvlaError, match=r"schema\.json: there is a file already.*--overwrite"):
        claim_file(path, False, "--output")
    with caplog.at_level(logging.WARNING, "hfvla"):
        claim_file(path, True, "--output")
    assert path.read_text() == "mine" and f"replaces {path}" in caplog.text


def test_a_new_folder_may_be_empty_and_nothing_else(tmp_path):
    (tmp_path / "empty").mkdir()
    assert claim_new_folder(tmp_path / "empty") and claim_new_folder(tmp_path / "a" / "b")
    assert not (tmp_path / "a" / "b").exists()
    (tmp_path / "empty" / "x").touch()
    with pytest.raises(HfvlaError, match="not empty"):
        claim_new_folder(tmp_path / "empty")


@pytest.mark.parametrize(
    ("name", "side"),
    [("sub.csv", "sub.details.csv"), ("ans.v1", "ans.v1.details.csv"), ("ans.v2", "ans.v2.details.csv"),
     ("a.b.csv", "a.b.details.csv"), ("a.txt", "a.txt.details.csv"), ("plain", "plain.details.csv")],
)  # fmt: skip
def test_side_files_have_the_whole_name(name, side):
    assert beside(f"out/{name}", ".details.csv", usual=".csv").as_posix() == f"out/{side}"

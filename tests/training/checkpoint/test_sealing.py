"""Contents of finished folders and rows of a run: what changed since is noticed and named."""

import json
import os
import stat

import pytest
import torch
from datasets import Dataset

from hfvla.errors import CheckpointError, RecipeError
from hfvla.sealing import MANIFEST, check_contents, seal_folder, sealed
from hfvla.training.checkpoint.record import read_json, write_json
from hfvla.training.checkpoint.rows import ROWS, check_run_rows
from hfvla.training.stage.fingerprint import changed_rows, rows_fingerprint

from ..toy import build_model, build_rows, build_trainer

SAVED = {"save_strategy": "steps", "save_steps": 1, "max_steps": 2}


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "adapter").mkdir()
    for name in ("model.safetensors", "config.json", "adapter/base.safetensors"):
        (tmp_path / name).write_bytes(name.encode() * 50)
    seal_folder(tmp_path, {"stage": "one"})
    return tmp_path


def flip(path, place=20, bit=3):
    content = bytearray(path.read_bytes())
    content[place] ^= 1 << bit
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "adapter/base.safetensors", MANIFEST])
def test_a_flipped_bit_is_noticed_in_any_file(folder, name):
    check_contents(folder)
    flip(folder / name)
    with pytest.raises(CheckpointError, match=name):
        check_contents(folder)


def test_what_is_missing_is_named_and_an_unsealed_folder_passes(folder):
    (folder / "config.json").unlink()
    with pytest.raises(
        CheckpointError, match=r"missing or are not what was written; got 'config.json'.*delete complete"
    ):
        check_contents(folder)
    (folder / MANIFEST).unlink()
    check_contents(folder)


@pytest.mark.parametrize(
    "content", ["[1]", "null", '{"files": 3, "hashes": 4}', "\xff\xfe", "{", '{"hashes": {"../x": "0"}}']
)
def test_a_damaged_manifest_is_one_line(folder, content):
    (folder / MANIFEST).write_bytes(content.encode("latin-1"))
    with pytest.raises(CheckpointError, match=r"complete\.json|\.\./x"):
        check_contents(folder)


def test_files_are_read_by_whom_the_umask_lets(tmp_path):
    (tmp_path / "weights").write_text("x")
    (tmp_path / "weights").chmod(0o600)
    before = os.umask(0o022)
    try:
        seal_folder(tmp_path, {})
    finally:
        os.umask(before)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == {"weights": 0o644, MANIFEST: 0o644}


@pytest.mark.parametrize("content", [b"[]", b"null", b"\xff\xfe{}", b"{", b'"text"', b"[" * 100_000])
def test_an_unreadable_json_file_of_a_run_is_named(tmp_path, content):
    (tmp_path / "stage.json").write_bytes(content)
    with pytest.raises(CheckpointError, match=r"stage\.json: this file of the run is damaged; got .* expected"):
        read_json(tmp_path / "stage.json")
    assert read_json(tmp_path / "none.json") is None


def test_a_changed_value_in_a_sealed_record_is_noticed(tmp_path):
    path = tmp_path / "stage.json"
    write_json(path, sealed({"steps": 4, "loss": 0.5, "nothing": float("nan")}))
    assert read_json(path)["steps"] == 4
    path.write_text(path.read_text().replace("0.5", "0.7"))
    with pytest.raises(CheckpointError, match=r"stage\.json.*does not fit its seal"):
        read_json(path)


# ---- in a trainer ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("trained")
    build_trainer(folder, args=SAVED).train()
    return folder / "checkpoint-1"


@pytest.mark.parametrize("name", ["model.safetensors", "optimizer.pt", "scheduler.pt", "engine-0.json", "trainer_state.json", "rng_state.pth"])  # fmt: skip  # noqa: E501
def test_a_checkpoint_with_a_flipped_bit_is_not_gone_on_from(trained, tmp_path, name):
    import shutil

    shutil.copytree(trained, tmp_path / "checkpoint-1")
    flip(tmp_path / "checkpoint-1" / name, 100)
    with pytest.raises(CheckpointError, match=f"not what was written; got '{name}'"):
        build_trainer(tmp_path, args=SAVED).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))


def _swapped(rows: Dataset) -> Dataset:
    targets = list(rows["target"])
    targets[0], targets[1] = targets[1], targets[0]
    return rows.remove_columns("target").add_column("target", targets)


@pytest.mark.parametrize(
    ("change", "columns"),
    [
        (_swapped, "target"),
        (lambda rows: rows.select(range(len(rows) - 1, -1, -1)), "features, target, value"),
        (lambda rows: rows.map(lambda row: {"value": row["value"] + 1e-3}), "value"),
    ],
)
def test_changed_rows_of_equal_length_are_refused(trained, tmp_path, change, columns):
    rows = build_rows()
    with pytest.raises(CheckpointError, match=rf"rows are not those that this stage began with.*in {columns}'"):
        build_trainer(tmp_path, rows=change(rows), args=SAVED).train(resume_from_checkpoint=str(trained))
    build_trainer(tmp_path, build_model(3), rows=rows, args=SAVED).train(resume_from_checkpoint=str(trained))


def test_fingerprints_of_rows(tmp_path):
    one, two = tmp_path / "a", tmp_path / "b"
    for place in (one, two):
        place.mkdir()
        (place / "x.png").write_bytes(b"123")
    rows = [
        {"image": str(one / "x.png"), "views": [{"bytes": b"1", "size": 3}], "tensor": torch.ones(2), "none": None}
    ]
    moved = [{**rows[0], "image": str(two / "x.png")}]
    assert rows_fingerprint(rows) == rows_fingerprint(moved)  # data may be moved
    (two / "x.png").write_bytes(b"1234")
    assert changed_rows(rows_fingerprint(rows), rows_fingerprint(moved)) == ["image"]
    changed = [{**rows[0], "views": [{"bytes": b"2", "size": 3}], "tensor": torch.zeros(2)}]
    assert changed_rows(rows_fingerprint(rows), rows_fingerprint(changed)) == ["tensor", "views"]
    table = Dataset.from_list([{"label": n, "text": str(n)} for n in range(2500)])
    assert rows_fingerprint(table) == rows_fingerprint(Dataset.from_dict(table.to_dict()))
    assert changed_rows(rows_fingerprint(table), rows_fingerprint(table.select(range(2499)))) == ["label", "text"]
    assert rows_fingerprint(object()) is None and changed_rows(None, {"a": "1"}) == []


def test_the_rows_of_a_run_are_remembered(tmp_path):
    check_run_rows(tmp_path, {"fleet (train, source 1)": {"label": "1", "text": "2"}})
    check_run_rows(tmp_path, {"fleet (train, source 1)": {"label": "1", "text": "2"}})
    other = {"fleet (train, source 1)": {"label": "3", "text": "2"}}
    with pytest.raises(
        RecipeError, match=r"data has changed since this run began; got 'fleet \(train, source 1\): .*in label'"
    ):
        check_run_rows(tmp_path, other)
    check_run_rows(tmp_path, other, allowed=True)
    check_run_rows(tmp_path, other)
    (tmp_path / ROWS).write_text(json.dumps([1]))
    with pytest.raises(CheckpointError, match=r"rows\.json"):
        check_run_rows(tmp_path, other)

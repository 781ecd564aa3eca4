"""`hfvla data`: JSON on stdout, exit codes, contact sheets that are not lost."""

import json

import pytest
from PIL import Image

from hfvla.cli import main


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))


def make(folder, numbers, side=32):
    """Write a set of captioned pictures, each of its own colours."""
    folder.mkdir()
    for number in numbers:
        picture = Image.new("RGB", (4, 4))
        picture.putdata([(number * 37 % 256, x * number * 13 % 256, x * x * number % 256) for x in range(16)])
        picture.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"picture{number:05d}.png")
        (folder / f"picture{number:05d}.txt").write_text(f"picture number {number}")
    return folder


def run(capsys, *words):
    with pytest.raises(SystemExit) as end:
        main(["data", *map(str, words)])
    return end.value.code, capsys.readouterr()


def test_inspect_says_what_a_folder_is(tmp_path, capsys):
    code, said = run(capsys, "inspect", make(tmp_path / "set", range(1, 6)), "--json")
    found = json.loads(said.out)
    assert code == 0 and (found["read_as"], found["rows"], found["pictures"]["count"]) == ("vision_language", 5, 5)
    code, said = run(capsys, "inspect", tmp_path / "set", "--rows", 3)
    assert code == 0 and "records usable" in said.out and "width of pictures" in said.out and "####" in said.out


def test_a_contact_sheet_is_written_and_not_lost(tmp_path, capsys):
    data, sheet = make(tmp_path / "set", range(1, 6)), tmp_path / "sheet.html"
    code, said = run(capsys, "inspect", data, "--sheet", sheet, "--samples", 2)
    assert code == 0 and sheet.read_text().count("<article>") == 2 and str(sheet) in said.out.replace("\n", "")
    code, said = run(capsys, "inspect", data, "--sheet", sheet)
    assert code == 2 and "--overwrite" in said.err
    assert run(capsys, "inspect", data, "--sheet", sheet, "--overwrite")[0] == 0


def test_check_ends_with_1_where_data_leak(tmp_path, capsys):
    train, clean = make(tmp_path / "train", range(1, 9)), make(tmp_path / "clean", range(20, 26))
    code, said = run(capsys, "check", train, "--against", clean)
    assert code == 0 and "No leak" in said.out
    leaky = make(tmp_path / "leaky", range(7, 12))
    code, said = run(capsys, "check", train, "--against", leaky, "--json")
    found = json.loads(said.out)
    assert code == 1 and found["failed"] >= 1
    equal = next(one for one in found["findings"] if one["check"] == "equal pictures")
    assert (equal["status"], equal["count"]) == ("fail", 2)


def test_convert_writes_what_inspect_reads(tmp_path, capsys):
    code, said = run(capsys, "convert", make(tmp_path / "set", range(1, 4)), tmp_path / "out", "--to", "parquet")
    assert code == 0 and "parquet" in said.out
    code, said = run(capsys, "inspect", tmp_path / "out", "--json")
    assert code == 0 and json.loads(said.out)["rows"] == 3
    code, said = run(capsys, "convert", tmp_path / "set", tmp_path / "other", "--to", "tfrecord")
    assert code == 2 and "tfrecord" in said.err and "webdataset" in said.err


def test_what_nothing_reads_ends_with_2(tmp_path, capsys):
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("words")
    code, said = run(capsys, "inspect", tmp_path / "notes")
    assert code == 2 and "no source reads it" in said.err
    assert run(capsys, "inspect", tmp_path / "absent")[0] == 2


def test_formats_that_do_not_fit_the_rows_are_refused(tmp_path, capsys):
    code, said = run(capsys, "convert", make(tmp_path / "set", range(1, 3)), tmp_path / "out", "--to", "lerobot")
    assert code == 2 and "vision_language" in said.err and not (tmp_path / "out").exists()

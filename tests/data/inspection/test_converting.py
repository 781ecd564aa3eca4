"""Conversations in other files, read back by the readers as they were."""

import json
import tarfile

import pytest
from datasets import Dataset

from hfvla.data.inspection.converting import convert_rows
from hfvla.data.samples.chat import ChatSample, Turn, text_turn
from hfvla.data.sources.vision_language import VisionLanguageOptions
from hfvla.data.sources.vision_language.build import build_vision_language
from hfvla.errors import DataError, HfvlaError

from .sets import box, encoded, rows_of, sample, scene

PICTURE = encoded(scene(1))
SAMPLES = [
    sample(1, PICTURE, "Where is the cat?", "There.", boxes=(box(),), references=("There.", "Left.")),
    sample(2, encoded(scene(2), "JPEG"), "Đường này tên gì?", "Không rõ.", kind="", split="val"),
    sample(3, PICTURE, "Again?", "Again.", group="made/1"),
]
CONTEXT = sample(4, PICTURE)
CONTEXT = ChatSample(
    **{**vars(CONTEXT), "turns": (*CONTEXT.turns[:1], Turn("assistant", CONTEXT.turns[1].content, train=False),
       text_turn("user", "Sure?"), text_turn("assistant", "Yes."))}
)  # fmt: skip
PREFERENCE = sample(5, PICTURE)
PREFERENCE = ChatSample(**{**vars(PREFERENCE), "rejected": (PREFERENCE.turns[0], text_turn("assistant", "Nothing."))})


def read(path, tmp_path):
    options = VisionLanguageOptions(path=str(path), split="all", cache_dir=str(tmp_path / ".cache"))
    return [ChatSample.from_row(row) for row in build_vision_language(options).dataset]


def pixels(one: ChatSample) -> list[bytes]:
    found = []
    for ref in one.images:
        data = ref.data
        if not data:
            with open(ref.path, "rb") as file:
                file.seek(ref.offset)
                data = file.read(ref.size or -1)
        found.append(data)
    return found


@pytest.mark.parametrize("to", ["jsonl", "parquet", "webdataset"])
def test_what_is_written_is_read_back(tmp_path, to):
    samples = [*SAMPLES, CONTEXT, PREFERENCE] if to != "parquet" else [*SAMPLES, CONTEXT]
    found = convert_rows(rows_of(samples), tmp_path / "out", to, rows_a_shard=3)
    assert found["rows"] == len(samples)
    back = read(tmp_path / "out", tmp_path)
    assert len(back) == len(samples)
    for one, other in zip(samples, back, strict=True):
        assert (one.turns, one.rejected, one.group, one.kind, one.source) == (
            other.turns, other.rejected, other.group, other.kind, other.source,
        )  # fmt: skip
        assert pixels(one) == pixels(other)
        assert (one.boxes, one.references, one.split) == (other.boxes, other.references, other.split)
        assert to == "webdataset" or one.id == other.id  # a sample of a tar is named by its files


def test_a_picture_of_several_conversations_is_one_file(tmp_path):
    assert convert_rows(rows_of(SAMPLES), tmp_path / "out", "jsonl")["pictures"] == 2
    names = sorted(path.suffix for path in (tmp_path / "out" / "images").iterdir())
    assert names == [".jpg", ".png"]
    first = json.loads((tmp_path / "out" / "data.jsonl").read_text().splitlines()[0])
    assert first["messages"][0]["content"][0] == {"type": "image"} and "train" not in first["messages"][1]


def test_shards_hold_pictures_beside_their_conversation(tmp_path):
    convert_rows(rows_of(SAMPLES), tmp_path / "out", "webdataset", rows_a_shard=2)
    with tarfile.open(tmp_path / "out" / "00001.tar") as archive:
        assert archive.getnames() == ["000000002.png", "000000002.json"]


def test_nothing_is_left_where_a_row_cannot_be_written(tmp_path):
    rows = rows_of([*SAMPLES, sample(9, None)])
    with pytest.raises(DataError, match="s9.*0 pictures"):
        convert_rows(rows, tmp_path / "out", "webdataset")
    with pytest.raises(DataError, match=r"no conversations.*columns x.*LeRobotWriter"):
        convert_rows(Dataset.from_dict({"x": [1]}), tmp_path / "out", "jsonl")
    with pytest.raises(DataError, match="no row"):
        convert_rows(rows.select([]), tmp_path / "out", "parquet")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_files_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("x")
    with pytest.raises(HfvlaError, match="not empty"):
        convert_rows(rows_of(SAMPLES), tmp_path / "out", "jsonl")

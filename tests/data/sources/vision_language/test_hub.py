"""Data sets by `load_dataset`: a folder on disk stands for a set of the hub, which tests do not reach."""

import pytest
from datasets import Dataset, Features, Image, List, Value

from hfvla.data.samples.chat import ChatSample
from hfvla.data.sources.vision_language import HubOptions
from hfvla.data.sources.vision_language.hub import build_hub
from hfvla.errors import DataError

from .sets import picture, said


@pytest.fixture
def name(tmp_path):
    """Parquet files of two splits, with pictures as the hub has them."""
    data = {"bytes": picture(tmp_path / "a.png").read_bytes(), "path": "a.png"}
    features = Features({"image": Image(), "question": Value("string"), "answers": List(Value("string"))})
    for split, rows in (("train", 3), ("validation", 1)):
        table = {"image": [data] * rows, "question": ["What?"] * rows, "answers": [["a", "b", "b"]] * rows}
        (tmp_path / "set" / "data").mkdir(parents=True, exist_ok=True)
        rows = Dataset.from_dict(table, features=features)
        rows.to_parquet(str(tmp_path / "set" / "data" / f"{split}-00000-of-00001.parquet"))
    return str(tmp_path / "set")


def test_a_set_of_the_hub(name, tmp_path):
    data = build_hub(HubOptions(repo=name, cache_dir=str(tmp_path / "cache")))
    samples = [ChatSample.from_row(row) for row in data.dataset]
    assert len(samples) == 3 and {sample.split for sample in samples} == {"train"}
    assert said(samples[0]) == [("user", "<image>What?"), ("assistant", "b")]
    assert samples[0].images[0].data == (tmp_path / "a.png").read_bytes() and samples[0].source == "set"
    assert (data.census["found"], data.census["usable"]) == (3, 3)
    again = build_hub(HubOptions(name=name, cache_dir=str(tmp_path / "cache")))
    assert again.dataset.to_list() == data.dataset.to_list()
    assert len(build_hub(HubOptions(name=name, split="val", cache_dir=str(tmp_path / "cache"))).dataset) == 1


def test_a_streamed_set_of_the_hub(name):
    rows = build_hub(HubOptions(name=name, streaming=True)).dataset
    assert [row["messages"][1]["content"][0]["text"] for row in rows] == ["b"] * 3


def test_a_mapping_and_a_split_that_is_not_there(name, tmp_path):
    mapping = {"image": "image", "text": "question"}
    options = HubOptions(name=name, mapping=mapping, cache_dir=str(tmp_path / "cache"))
    assert build_hub(options).dataset[0]["references"] == ["What?"]
    with pytest.raises(DataError, match="no split 'test'; got 'train, validation'.*split: train"):
        build_hub(HubOptions(name=name, split="test"))


def test_a_set_that_cannot_be_had_says_why():
    with pytest.raises(
        DataError, match=r"nobody/nothing: the data set cannot be loaded.*Offline, it must be in the cache"
    ):
        build_hub(HubOptions(name="nobody/nothing"))

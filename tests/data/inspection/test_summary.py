"""What `hfvla data inspect` counts."""

import numpy as np
import pytest
from datasets import Dataset

from hfvla.data.inspection.finding import ReadData, read_path, sources_of_paths
from hfvla.data.inspection.summary import chosen_rows, describe, histogram
from hfvla.errors import DataError
from hfvla.family import SourceData
from hfvla.registry import available_families

from .sets import box, data_of, encoded, sample, scene

SOURCES = sources_of_paths({name: spec.sources for name, spec in available_families().items()})


def test_counts_of_conversations():
    samples = [sample(n, encoded(scene(n, (60 + n, 40))), split="val" if n > 7 else "train") for n in range(10)]
    samples += [sample(10, None, kind="text"), sample(11, b"broken"), sample(12, encoded(scene(1)), boxes=(box(),))]
    found = describe(ReadData("here", "made", data_of(samples)), tokens=lambda row: 7)
    assert found["rows"] == 13 and found["splits"] == {"train": 11, "val": 2}
    assert found["kinds"] == {"vqa": 12, "text": 1} and found["groups"] == 13
    # "What is number 3?" and "It is 3.": four words, three of them learned.
    assert found["texts"]["words"]["median"] == 7 and found["texts"]["words learned"]["median"] == 3
    assert found["texts"]["tokens"]["largest"] == 7
    pictures = found["pictures"]
    assert (pictures["count"], pictures["rows_without"], pictures["broken"]) == (11, 1, 1)
    assert "s11" in pictures["first_broken"] and pictures["width"]["least"] == 60
    assert found["boxes"] == {"count": 1, "labels": {"cat": 1}}


def test_rows_without_conversations_are_described_too():
    rows = Dataset.from_dict({"task": ["go left"], "image": [encoded(scene(1))], "robots": [["drone", "dog"]]})
    found = describe(ReadData("here", "made", SourceData(rows, {})))
    assert found["texts"]["words"]["largest"] == 4 and found["pictures"]["count"] == 1
    assert found["boxes"] == {} and found["groups"] is None


def test_rows_are_drawn_by_the_seed():
    assert chosen_rows(5, 9) == [0, 1, 2, 3, 4]
    assert chosen_rows(1000, 10, 1) == chosen_rows(1000, 10, 1) != chosen_rows(1000, 10, 2)
    assert len(set(chosen_rows(1000, 10))) == 10


@pytest.mark.parametrize(
    "values", [[3], [1, 2, 3, 3], list(range(1000)), [0.1, 0.5, 0.9], [1, 1, 1, 2, 5000], [0, 0, 0, 900]]
)
def test_bars_count_every_value(values):
    found = histogram(values)
    assert sum(found["counts"]) == len(values) == found["count"]
    assert found["edges"][0] == min(values) and found["edges"][-1] == pytest.approx(max(values))
    assert found["median"] == np.median(values)


def test_the_source_that_makes_most_of_a_path_reads_it(tmp_path):
    from hfvla.data.inspection.converting import convert_rows

    from .sets import rows_of

    convert_rows(rows_of([sample(1, encoded(scene(1))), sample(2, None)]), tmp_path / "set", "jsonl")
    found = read_path(str(tmp_path / "set"), SOURCES, options={"cache_dir": str(tmp_path / "cache")})
    assert found.source == "vision_language" and len(found.data.dataset) == 2


def test_sources_of_every_family_are_asked():
    assert set(SOURCES) >= {"vision_language", "lerobot", "episode_folders", "robot_selection", "road_videos"}
    assert len({source.build for source in SOURCES.values()}) == len(SOURCES)


def test_why_no_source_reads_a_path_is_said(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing here")
    with pytest.raises(DataError, match="no source reads it.*vision_language"):
        read_path(str(tmp_path), SOURCES, options={})
    with pytest.raises(DataError, match="no such file"):
        read_path(str(tmp_path / "absent"), SOURCES)
    with pytest.raises(DataError, match="Did you mean 'lerobot'"):
        read_path(str(tmp_path), SOURCES, source="lerobt")
    with pytest.raises(DataError, match="does not take this: colour"):
        read_path(str(tmp_path), SOURCES, source="vision_language", options={"colour": 1})

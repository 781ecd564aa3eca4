"""Official splits by the names that sets give them, groups by picture, ids that came by."""

import pytest

from hfvla.data.sources.vision_language.reading import SeenIds
from hfvla.data.sources.vision_language.splits import image_group, split_of_path, split_wanted


@pytest.mark.parametrize(
    ("name", "split"),
    [
        ("annotations/captions_val2017.json", "val"),
        ("v2_OpenEnded_mscoco_train2014_questions.json", "train"),
        ("v2_OpenEnded_mscoco_test-dev2015_questions.json", "test-dev"),
        ("TextVQA_0.5.1_val.json", "val"),
        ("testdev_balanced_questions.json", "testdev"),
        ("train_all_questions/train_all_questions_0.json", "train"),
        ("cc3m-validation-0000.tar", "val"),
        ("test/part.parquet", "test"),
        ("train/0000.json", "train"),
        ("trainer_state.json", ""),
        ("contest.json", ""),
        ("latest_values.json", ""),
        ("llava_instruct_150k.json", ""),
    ],
)
def test_a_file_tells_its_split_by_whole_words(name, split):
    assert split_of_path(name) == split


@pytest.mark.parametrize(
    ("split", "wanted", "read"),
    [
        ("train", ["train"], True),
        ("val", ["train"], False),
        ("validation", ["val"], True),
        ("minival", ["val"], True),
        ("testA", ["test"], True),
        ("testA", ["testA"], True),
        ("testB", ["testA"], False),
        ("test-dev", ["train", "test"], True),
        ("", ["val"], True),
        ("anything", ["all"], True),
        ("anything", ["train"], False),
        ("anything", ["anything"], True),
    ],
)
def test_a_split_is_read_where_the_recipe_names_it(split, wanted, read):
    assert split_wanted(split, wanted) is read


def test_a_picture_has_one_group_in_every_set():
    assert len({image_group(name) for name in ("000000000009.jpg", "COCO_train2014_000000000009.jpg",
                                              "coco/train2017/000000000009.jpg")}) == 1  # fmt: skip
    assert image_group("gqa/images/1.jpg") == image_group("vg/VG_100K/1.jpg") == image_group("1.jpg", "vg") == "vg/1"
    assert image_group("a/1.jpg") != image_group("b/1.jpg")


def test_ids_are_remembered_beyond_the_recent_ones():
    seen = SeenIds(recent=4)
    assert not any(seen.add("a", str(number)) for number in range(1000))
    assert all(seen.add("a", str(number)) for number in range(1000))
    assert not seen.add("b", "1")

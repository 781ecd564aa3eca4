"""Lists and tables of no known set: by the usual names, or by a mapping."""

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from hfvla.data.sources.vision_language import VisionLanguageOptions
from hfvla.errors import DataError

from .sets import picture, read, said, write


@pytest.fixture
def root(tmp_path):
    for name in "ab":
        picture(tmp_path / "set" / "pictures" / f"{name}.jpg")
    return tmp_path / "set"


def test_a_caption_by_the_usual_names(root):
    rows = [{"image": "pictures/a.jpg", "caption": "One."}, {"image": "pictures/b.jpg", "caption": ["Two.", "Zwei."]}]
    samples, census = read(write(root / "mine.jsonl", rows))
    assert census["files"] == {"mine.jsonl": "table"}
    assert [said(sample)[1][1] for sample in samples] == ["One.", "Two."]
    assert samples[1].references == ("Two.", "Zwei.") and samples[0].group == "pictures/a.jpg"


def test_a_question_takes_the_answer_of_most(root):
    row = {"image": "pictures/a.jpg", "question": "What?", "answers": ["a cat", "Dog", "dog", "cow"], "id": 7}
    (sample,), _ = read(write(root / "mine.json", [row]), prompts={"answer": "One word."})
    assert said(sample) == [("user", "<image>What?\nOne word."), ("assistant", "Dog")]
    assert sample.references == ("a cat", "Dog", "dog", "cow") and (sample.id, sample.kind) == ("7", "vqa")


def test_a_mapping_says_which_field_is_what(root):
    rows = [{"nr": 1, "bild": "a", "frage": "Was?", "antwort": "Ein Hund.", "teil": "test", "ort": "x"}]
    mapping = {"image": "pictures/{bild}.jpg", "question": "frage", "answer": "antwort", "id": "nr", "group": "ort",
               "split": "teil"}  # fmt: skip
    (sample,), _ = read(write(root / "mine.json", rows), mapping=mapping)
    assert (sample.id, sample.group, sample.split) == ("1", "x", "test")
    assert sample.images[0].path.endswith("pictures/a.jpg")
    with pytest.raises(DataError, match="no record of the split 'train'"):
        read(root / "mine.json", mapping=mapping, split="train")


def test_a_mapping_of_messages(root):
    talk = [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A dog."}]
    mapping = {"image": "bild", "messages": "talk"}
    (sample,), _ = read(write(root / "mine.json", [{"bild": "pictures/a.jpg", "talk": talk}]), mapping=mapping)
    assert said(sample) == [("user", "<image>What?"), ("assistant", "A dog.")]


@pytest.mark.parametrize(
    ("template", "reason"),
    [("{bild.__class__}.jpg", "template of a picture with more than"), ("{other}.jpg", "no other"),
     ("{bild:04d}.jpg", "template of a picture that does not fit")],
)  # fmt: skip
def test_templates_reach_for_nothing_but_fields(root, template, reason):
    rows = [{"bild": "a", "text": "One."}]
    with pytest.raises(DataError, match=reason):
        read(write(root / "mine.json", rows), mapping={"image": template, "text": "text"})


def test_parquet_with_pictures_of_datasets_in_it(root):
    data = (root / "pictures" / "a.jpg").read_bytes()
    pictures = [{"bytes": data, "path": "a.jpg"}, {"bytes": b"no picture", "path": None}]
    pq.write_table(pa.table({"image": pictures, "text": ["One.", "Two."], "id": [1, 2]}), root / "mine.parquet")
    (sample,), census = read(root / "mine.parquet", max_bad_fraction=0.5)
    assert sample.images[0].data == data and said(sample)[1][1] == "One."
    assert census["rejected"]["picture cannot be read"]["first"].startswith("mine.parquet:1 (2)")


def test_csv_with_names_and_tsv_without(root):
    (root / "a.csv").write_text('image,caption\npictures/a.jpg,"One, and more."\n')
    (sample,), _ = read(root / "a.csv")
    assert said(sample)[1][1] == "One, and more."
    (root / "b.tsv").write_text('He said "hi\tpictures/a.jpg\nTwo.\tpictures/b.jpg\n')
    samples, _ = read(root / "b.tsv")
    assert [said(sample)[1][1] for sample in samples] == ['He said "hi', "Two."]


def test_a_mapping_says_what_it_needs():
    with pytest.raises(ValidationError, match="`question` and `answer` belong together"):
        VisionLanguageOptions(path="x", mapping={"question": "q"})
    with pytest.raises(ValidationError, match="one of `text`"):
        VisionLanguageOptions(path="x", mapping={"image": "i"})
    with pytest.raises(ValidationError, match="Extra inputs"):
        VisionLanguageOptions(path="x", mapping={"text": "t", "picture": "i"})


def test_records_in_a_part_of_an_object(root):
    rows = [{"image": "pictures/a.jpg", "caption": "One."}]
    samples, census = read(write(root / "mine.json", {"version": 1, "tags": [{"a": 1}], "items": rows}))
    assert said(samples[0])[1][1] == "One." and census["files"] == {"mine.json": "table"}


@pytest.mark.parametrize(
    ("prompts", "match"),
    [({"locate": "Where?"}, "{label} has no place"), ({"region": "{box} {x}"}, "only {box} has a place"),
     ({"caption ": "x"}, "Extra inputs")],
)  # fmt: skip
def test_prompts_have_a_place_for_what_they_are_about(prompts, match):
    with pytest.raises(ValidationError, match=match):
        VisionLanguageOptions(path="x", prompts=prompts)


def test_a_path_with_nothing_that_is_known(root):
    write(root / "config.json", {"a": 1, "b": {"c": 2}})
    (root / "notes.txt").write_text("hello")
    with pytest.raises(DataError, match=r"nothing here is a vision-language set.*config\.json: an object with a, b"):
        read(root)
    with pytest.raises(DataError, match="no such file or folder"):
        read(root / "none")

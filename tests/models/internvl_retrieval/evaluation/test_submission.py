"""submission.txt: ten different pictures a line, none invented, and what has no line named beside it."""

import json

import numpy as np
import pytest
from PIL import Image

from hfvla.data.sources.robosense import RoboSenseOptions, build_robosense
from hfvla.errors import DataError
from hfvla.family import AnswerFile, SourceData
from hfvla.models.internvl_retrieval.evaluation.submission import write_answers
from hfvla.models.internvl_retrieval.search import embed_images, embed_texts


@pytest.fixture
def gallery(tmp_path):
    """Twelve pictures of one colour each."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for number in range(12):
        colour = tuple(np.random.default_rng(number).integers(0, 255, 3).tolist())
        Image.new("RGB", (32, 32), colour).save(folder / f"image_{number:02d}.png")
    return folder


@pytest.fixture
def data(tmp_path):
    path = tmp_path / "q.txt"
    path.write_text("q_00001\tA red roof beside a lake.\nq_00002\t\nq_00010\tA road and trees.\n")
    return build_robosense(RoboSenseOptions(path=str(path), max_bad_fraction=1.0))


@pytest.fixture
def submit(model, processor, gallery, data, tmp_path):
    def call(**given):
        settings = {"checkpoint": "c", **given.pop("settings", {})}
        asked = {"path": str(tmp_path / "out" / "submission.txt"), "settings": settings}
        asked["given"] = {"gallery": given.pop("gallery", str(gallery))}
        return write_answers(model, processor, given.pop("data", data), AnswerFile(**{**asked, **given}))

    return call


def test_ten_pictures_a_line_best_first(submit, model, processor, gallery, data, tmp_path):
    summary = submit()
    lines = (tmp_path / "out" / "submission.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["q1", "q10"]
    paths = sorted(map(str, gallery.iterdir()))
    vectors, _ = embed_images(model, processor, paths, 5)
    scores = embed_texts(model, processor, data.dataset["caption"], 5) @ vectors.T
    for line, row in zip(lines, scores, strict=True):
        wanted = [f"image_{number:02d}" for number in np.argsort(-row)[:10]]
        assert line.split()[1:] == wanted
    assert (summary["questions"], summary["answered"], summary["failed"]) == (3, 2, 1)
    details = json.loads((tmp_path / "out" / "submission.details.json").read_text())
    assert details["failed_queries"] == {"q_00002": "unusable record: no query text: got ''"}


def test_the_first_queries_alone(submit, tmp_path):
    assert submit(limit=1)["answered"] == 1
    assert (tmp_path / "out" / "submission.txt").read_text().startswith("q1 ")


def test_pictures_that_cannot_be_read_are_named_and_never_found(submit, gallery, tmp_path):
    (gallery / "image_98.png").write_bytes(b"nothing")
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    noise.save(gallery / "image_99.png")
    whole = (gallery / "image_99.png").read_bytes()
    (gallery / "image_99.png").write_bytes(whole[: len(whole) // 2])
    summary = submit()
    assert summary["pictures_failed"] == 2 and summary["answered"] == 2
    details = json.loads((tmp_path / "out" / "submission.details.json").read_text())
    assert "image_98" in json.dumps(details["rejected_pictures"]) and "image_99" in json.dumps(details)
    text = (tmp_path / "out" / "submission.txt").read_text()
    assert "image_98" not in text and "image_99" not in text


def test_what_cannot_be_submitted(submit, gallery, data):
    with pytest.raises(DataError, match="--gallery: queries are ranked"):
        submit(gallery=None)
    with pytest.raises(DataError, match="no usable query.*no query text"):
        submit(data=SourceData(data.dataset.select([]), {}, {"q_1": "no query text"}))
    blank = gallery / "with blank.png"
    (gallery / "image_00.png").rename(blank)
    with pytest.raises(DataError, match="'with blank'"):
        submit()
    blank.unlink()
    (gallery / "image_01.png").unlink()
    (gallery / "image_02.png").unlink()
    with pytest.raises(DataError, match="too few pictures to rank; got 9"):
        submit()


def test_another_checkpoints_file_is_not_replaced(submit, tmp_path):
    submit()
    before = (tmp_path / "out" / "submission.txt").read_text()
    assert submit()["answered"] == 2, "the same is written again"
    with pytest.raises(DataError, match="got 'other checkpoint'.*--overwrite"):
        submit(settings={"checkpoint": "d"})
    submit(settings={"checkpoint": "d"}, overwrite=True)
    assert (tmp_path / "out" / "submission.txt").read_text() == before


@pytest.mark.parametrize("overwrite", [False, True])
def test_details_of_somebody_else_are_not_replaced(submit, tmp_path, overwrite):
    mine = tmp_path / "out" / "submission.details.json"
    mine.parent.mkdir()
    mine.write_text('{"mine": 1}')
    with pytest.raises(DataError, match="this file is not of this submission"):
        submit(overwrite=overwrite)
    assert mine.read_text() == '{"mine": 1}' and not (tmp_path / "out" / "submission.txt").exists()

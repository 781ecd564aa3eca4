"""`hfvla index`, `hfvla search`, `hfvla predict --text` and the submission, on a tiny checkpoint."""

import json
import logging
import shutil

import pytest
import torch

from hfvla.cli import main
from hfvla.errors import HfvlaError


@pytest.fixture(scope="module")
def checkpoint(built, tmp_path_factory):
    folder = tmp_path_factory.mktemp("checkpoint")
    for part in built:
        part.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def gallery(rows, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gallery")
    for row in rows:
        target = folder / row["image_id"]
        target.parent.mkdir(exist_ok=True)
        shutil.copy(row["image"], target)
    return folder


@pytest.fixture
def hfvla(capsys):
    logger = logging.getLogger("hfvla")
    before = logger.level, logger.propagate, list(logger.handlers)

    def call(*words, code=0):
        with pytest.raises(SystemExit) as caught:
            main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert (caught.value.code or 0) == code, err
        return json.loads(out) if "--json" in words and not code else err

    yield call
    logger.setLevel(before[0])
    logger.propagate, logger.handlers = before[1], before[2]


def test_index_then_search(hfvla, checkpoint, gallery, model, processor, rows, tmp_path):
    index = tmp_path / "index"
    words = ["--checkpoint", checkpoint, "--gallery", gallery, "--output", index]
    written = hfvla("index", *words, "--no-faiss", "--json")
    assert written["pictures"] == len(set(rows["image"])) and written["files"][-1] == "embeddings.npy"
    text, sheet = rows["caption"][3], tmp_path / "sheet.png"
    asked = ["--checkpoint", checkpoint, "--text", text, "--top-k", "2", "--json"]
    found = hfvla("search", "--index", index, *asked, "--sheet", sheet)
    assert sheet.stat().st_size > 0 and found["searched"] == written["pictures"]
    with torch.no_grad():
        paths = sorted(set(rows["image"]), key=lambda path: path.split("/")[-2:])
        scores = model(**processor(images=paths, text=text)).logits_per_image[:, 0] * model.temperature
    best = scores.argsort(descending=True)[:2].tolist()
    assert [one["id"] for one in found["results"]] == ["/".join(paths[n].split("/")[-2:]) for n in best]
    assert found["results"][0]["score"] == pytest.approx(float(scores[best[0]]), abs=1e-5)
    direct = hfvla("predict", "--gallery", gallery, *asked)
    assert [one["id"] for one in direct["results"]] == [one["id"] for one in found["results"]]


def test_an_index_knows_its_checkpoint(hfvla, checkpoint, gallery, other_model, processor, tmp_path):
    index, moved, other = tmp_path / "index", tmp_path / "moved", tmp_path / "other"
    hfvla("index", "--checkpoint", checkpoint, "--gallery", gallery, "--output", index, "--no-faiss", "--json")
    shutil.copytree(checkpoint, moved)
    hfvla("search", "--index", index, "--checkpoint", moved, "--text", "a roof", "--json")
    for part in (other_model(text_pooling="mean", embed_dim=16), processor):
        part.save_pretrained(other)
    error = hfvla("search", "--index", index, "--checkpoint", other, "--text", "a roof", code=2)
    assert "made with another checkpoint" in error


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["search", "--text", "a roof"], "an --index or a --gallery"),
        (["search", "--text", " ", "--gallery", "g"], "the text is empty"),
        (["search", "--text", "a roof", "--index", "gone"], "no index in this folder"),
        (["index", "--gallery", "gone", "--output", "o"], "no such folder"),
        (["predict", "--text", "a roof", "--task", "t"], "not asked by --task. Did you mean"),
        (["predict", "--text", "a roof"], "one of --gallery, --image; got 'none of them'"),
    ],
)
def test_what_is_refused(hfvla, checkpoint, words, message):
    assert message in hfvla(*words, "--checkpoint", checkpoint, code=2)


def test_faiss_asked_for_and_missing(hfvla, checkpoint, gallery, tmp_path, monkeypatch):
    monkeypatch.setattr("hfvla.serve.index.has_faiss", lambda: False)
    words = ["index", "--checkpoint", checkpoint, "--gallery", gallery, "--output", tmp_path / "index", "--faiss"]
    assert 'pip install "hfvla[index]"' in hfvla(*words, code=2)


def test_a_family_that_does_not_search(monkeypatch):
    from types import SimpleNamespace

    from hfvla.cli import searching

    spec = SimpleNamespace(name="made", path=lambda hook: None)
    monkeypatch.setattr("hfvla.registry.family_of_checkpoint", lambda path: spec)
    with pytest.raises(HfvlaError, match="does not search pictures; got 'made'"):
        searching.search_pictures("c", "a roof", gallery="g")


def test_the_submission_from_the_command_line(hfvla, checkpoint, rows, tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(10):
        shutil.copy(rows["image"][number % len(rows)], pictures / f"image_{number}.jpeg")
    (tmp_path / "q.txt").write_text("q_00007\tA red roof.\nq_00008 no tab\n")
    csv = tmp_path / "submission.txt"
    words = ["predict", "--checkpoint", checkpoint, "--data", f"robosense={tmp_path / 'q.txt'}", "--csv", csv]
    summary = hfvla(*words, "--gallery", pictures, "--json")
    assert (summary["answered"], summary["questions"]) == (1, 2)
    names = csv.read_text().split()
    assert names[0] == "q7" and sorted(names[1:]) == sorted(f"image_{n}" for n in range(10))


def test_options_of_the_evaluation(hfvla, checkpoint, tmp_path):
    words = ["eval", "--checkpoint", checkpoint, "--output", tmp_path / "eval", "--json"]
    data = ["--data", "drone:buildings=3,views=2,captions=1,image_size=32"]
    found = hfvla(*words, *data, "--option", "legacy_building_ids=true")["results"]["drone"]
    assert "correct_ids/t2i_r1" in found
    assert "Did you mean 'k_test'?" in hfvla(*words, *data, "--option", "k_tst=8", code=2)
    assert "expected NAME=VALUE" in hfvla(*words, *data, "--option", "k_test", code=2)

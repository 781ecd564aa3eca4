"""An index of pictures: three files with one content, the same search with and without FAISS, and what is refused."""

import json
import re

import numpy as np
import pytest
from PIL import Image
from pyarrow import parquet

from hfvla.data.contact_sheet import draw_sheet, save_sheet
from hfvla.data.gallery import list_pictures
from hfvla.errors import DataError, MissingExtraError
from hfvla.serve import index as index_module
from hfvla.serve.index import build_index, has_faiss, read_index, write_index


@pytest.fixture
def gallery(tmp_path):
    folder = tmp_path / "gallery"
    for name in ("b/2.jpeg", "a/1.png", "a/0.JPG", ".hidden/3.png", "notes.txt"):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".txt":
            path.write_text("no picture")
        else:
            Image.new("RGB", (40, 20), (200, 30, 30)).save(path)
    return folder


def embed(paths):
    """Vectors by place: orthogonal, so that each picture is found by its own."""
    return np.eye(4, dtype=np.float32)[: len(paths)], {}


def test_pictures_of_all_folders_by_name(gallery, tmp_path):
    assert [picture.id for picture in list_pictures(gallery)] == ["a/0.JPG", "a/1.png", "b/2.jpeg"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no picture in the gallery"):
        list_pictures(tmp_path / "empty")
    with pytest.raises(DataError, match="no such folder.*gone"):
        list_pictures(tmp_path / "gone")


needs_faiss = pytest.mark.skipif(not has_faiss(), reason="the package faiss is not installed")


@pytest.mark.parametrize("faiss", [False, pytest.param(True, marks=needs_faiss)])
def test_what_is_written_is_read_back(gallery, tmp_path, faiss):
    written = write_index(build_index(embed, gallery, {"weights": "w"}), tmp_path / "index", faiss=faiss)
    assert written["pictures"] == 3 and written["width"] == 4
    assert sorted(path.name for path in (tmp_path / "index").iterdir()) == sorted(written["files"])
    table = parquet.read_table(tmp_path / "index" / "embeddings.parquet").to_pydict()
    array = np.load(tmp_path / "index" / "embeddings.npy")
    assert table["id"] == ["a/0.JPG", "a/1.png", "b/2.jpeg"] and array.dtype == np.float32
    assert np.array_equal(np.array(table["embedding"], dtype=np.float32), array)
    found = read_index(tmp_path / "index", use_faiss=faiss)
    assert found.facts["weights"] == "w" and (found.faiss is not None) == faiss
    query = np.array([[0.1, 0.9, 0.4, 0.0]], dtype=np.float32)
    scores, numbers = found.search(query, 9)
    assert [found.pictures[number].id for number in numbers[0]] == ["a/1.png", "b/2.jpeg", "a/0.JPG"]
    assert scores[0] == pytest.approx([0.9, 0.4, 0.1])


def test_faiss_is_asked_for_and_not_there(gallery, tmp_path, monkeypatch):
    monkeypatch.setattr(index_module, "has_faiss", lambda: False)
    built = build_index(embed, gallery)
    with pytest.raises(MissingExtraError, match=re.escape("faiss-cpu") + r".*hfvla\[index\]"):
        write_index(built, tmp_path / "index", faiss=True)
    assert not (tmp_path / "index").exists()
    assert "index.faiss" not in write_index(built, tmp_path / "index")["files"]
    with pytest.raises(DataError, match="no FAISS part"):
        read_index(tmp_path / "index", use_faiss=True)
    assert read_index(tmp_path / "index").faiss is None


def test_pictures_without_a_vector_are_named(gallery, tmp_path):
    def torn(paths):
        return np.eye(3, dtype=np.float32), {1: "truncated"}

    with pytest.raises(DataError, match=r"a/1\.png: 1 of 3 pictures cannot be read; got 'truncated'"):
        build_index(torn, gallery)
    built = build_index(torn, gallery, max_bad_fraction=0.5)
    assert [picture.id for picture in built.pictures] == ["a/0.JPG", "b/2.jpeg"]
    assert np.array_equal(built.vectors, np.eye(3, dtype=np.float32)[[0, 2]])
    assert write_index(built, tmp_path / "index", faiss=False)["left_out"] == 1
    assert read_index(tmp_path / "index").facts["left_out"] == {"a/1.png": "truncated"}


def test_a_damaged_index(gallery, tmp_path):
    folder = tmp_path / "index"
    with pytest.raises(DataError, match=r"expected index\.json"):
        read_index(folder)
    write_index(build_index(embed, gallery), folder, faiss=False)
    facts = json.loads((folder / "index.json").read_text())
    (folder / "index.json").write_text(json.dumps({**facts, "pictures": 7}))
    with pytest.raises(DataError, match="do not fit; got \\(3, 4\\)"):
        read_index(folder)
    (folder / "embeddings.npy").unlink()
    with pytest.raises(DataError, match="incomplete or damaged"):
        read_index(folder)


def test_the_sheet_shows_every_picture(gallery, tmp_path):
    paths = [picture.path for picture in list_pictures(gallery)] * 2
    sheet = draw_sheet("what was asked", [(path, f"{n}  0.5") for n, path in enumerate(paths)], columns=4)
    red = np.all(np.abs(np.asarray(sheet).astype(int) - (200, 30, 30)) < 12, axis=-1)
    columns = np.flatnonzero(np.diff(red.any(axis=0).astype(int)) == 1)
    rows = np.flatnonzero(np.diff(red.any(axis=1).astype(int)) == 1)
    assert (len(columns), len(rows)) == (4, 2), "four a row, two rows"
    save_sheet(sheet, tmp_path / "new" / "sheet.png")
    with Image.open(tmp_path / "new" / "sheet.png") as read:
        assert read.size == sheet.size
    with pytest.raises(DataError, match=r"sheet\.nothing"):
        save_sheet(sheet, tmp_path / "sheet.nothing")
    with pytest.raises(DataError, match=r"notes\.txt"):
        draw_sheet("", [(str(gallery / "notes.txt"), "")])

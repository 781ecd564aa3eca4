"""Features on disk: what is written comes back, and nothing torn is ever read."""

import errno
import os
from pathlib import Path

import pytest
import torch

from hfvla.cache import FeatureStore, Fingerprint
from hfvla.cache.store import ShardWriter
from hfvla.errors import DataError, HfvlaError


@pytest.fixture
def store(tmp_path):
    found = FeatureStore(tmp_path, Fingerprint({"a": 1}))
    found.create()
    return found


def fill(store, records, shard_bytes=1):
    writer = ShardWriter(store.folder, shard_bytes)
    for record in records:
        writer.write([record])
    writer.close_shard()
    store.load()


TENSORS = {
    "float32": torch.tensor([[1.5, -2.25], [1e-30, 3e38]]),
    "float16": torch.tensor([0.1, 65504.0], dtype=torch.float16),
    "bfloat16": torch.tensor([[[1.0078125]], [[-3e38]]], dtype=torch.bfloat16),
    "int64": torch.tensor([1, -(2**60)]),
    "bool": torch.tensor([True, False, True]),
    "scalar": torch.tensor(2.5),
    "empty": torch.zeros(0, 4),
}


def test_every_type_and_shape_comes_back_to_the_bit(store):
    fill(store, [("a", TENSORS), ("b", {"float32": torch.arange(6.0)[::2]})])
    first, second = store.read([store.position("a"), store.position("b")])
    assert set(first) == set(TENSORS) and set(second) == {"float32"}
    for name, tensor in TENSORS.items():
        assert first[name].dtype == tensor.dtype and torch.equal(first[name], tensor), name
    assert second["float32"].tolist() == [0.0, 2.0, 4.0]


def test_sequences_of_any_length_in_any_order(store):
    sequences = {str(length): torch.randn(length, 3) for length in (5, 1, 3)}
    fill(store, [(key, {"states": value}) for key, value in sequences.items()], shard_bytes=50)
    order = ["3", "5", "1", "3"]
    found = store.read([store.position(key) for key in order])
    assert [torch.equal(part["states"], sequences[key]) for part, key in zip(found, order, strict=True)] == [True] * 4
    assert store.read([]) == [] and len(store) == 3 and "7" not in store


def test_shards_have_their_size_and_are_memory_mapped(store):
    fill(store, [(str(index), {"x": torch.zeros(25)}) for index in range(7)], shard_bytes=300)
    assert sorted(path.name.split("-")[1] for path in store.folder.glob("*.arrow")) == ["1", "3", "3"]
    assert {Path(file["filename"]).parent for file in store._rows.cache_files} == {store.folder}


def test_a_file_that_was_not_finished_is_not_read(store, monkeypatch):
    monkeypatch.setattr(Path, "replace", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        fill(store, [("a", {"x": torch.ones(2)})])
    monkeypatch.undo()
    [left] = store.folder.glob(".*.tmp")
    store.load()
    assert "a" not in store and len(store) == 0
    store.create()
    assert left.exists()  # it may be a living build of another run
    os.utime(left, (0, 0))
    store.create()
    assert not left.exists()


@pytest.mark.parametrize("damage", ["cut", "emptied", "renamed"])
def test_a_damaged_file_is_dropped(store, damage, caplog):
    fill(store, [("a", {"x": torch.ones(200)}), ("b", {"x": torch.ones(200)})])
    broken = sorted(store.folder.glob("*.arrow"))[0]
    if damage == "renamed":
        broken = broken.rename(broken.with_name(broken.name.replace("features-1-", "features-2-")))
    else:
        broken.write_bytes(broken.read_bytes()[: 300 if damage == "cut" else 0])
    with pytest.raises(DataError, match=f"damaged.*|{broken.name}"):
        store.load()
    store.create()
    store.load()
    assert len(store) == 1 and not broken.exists()
    assert str(broken) in caplog.text and "encoded again" in caplog.text


def test_a_full_disk_is_one_clear_error_and_keeps_what_is_there(store, monkeypatch):
    fill(store, [("a", {"x": torch.ones(2)})])

    def full(writer, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(ShardWriter, "_write_file", full)
    with pytest.raises(HfvlaError, match="No space left on device.*12 bytes.*cache.folder"):
        fill(store, [("b", {"x": torch.ones(3)})])
    assert not list(store.folder.glob(".*.tmp"))
    store.load()
    assert "a" in store and "b" not in store


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(HfvlaError, match="cannot be written.*cache.folder"):
        FeatureStore(tmp_path / "file", Fingerprint({})).create()
    with pytest.raises(DataError, match="does not exist.*same weights"):
        FeatureStore(tmp_path, Fingerprint({"b": 2})).load()

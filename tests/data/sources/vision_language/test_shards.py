"""Tars of webdataset and img2dataset, Conceptual Captions by its own names, and captioned folders."""

import io
import json
import tarfile
import zlib

import pytest
from datasets import IterableDataset
from PIL import Image

from hfvla.data.pictures import read_picture
from hfvla.data.samples.chat import ChatSample
from hfvla.data.sources.vision_language import VisionLanguageOptions
from hfvla.data.sources.vision_language.build import build_vision_language
from hfvla.errors import DataError

from .sets import picture, read, said, write


def encoded(colour=(200, 10, 10)):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 6), colour).save(buffer, "PNG")
    return buffer.getvalue()


def write_tar(path, members, mode="w"):
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, mode) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return path


def pairs(*numbers):
    for number in numbers:
        key = f"{number:09d}"
        facts = {"caption": f"caption {number}", "url": f"http://localhost/{number}", "key": key, "status": "success"}
        yield f"{key}.png", encoded((number, 0, 0))
        yield f"{key}.txt", f"caption {number}".encode()
        yield f"{key}.json", json.dumps(facts).encode()


def test_pictures_are_read_from_their_place_in_the_shard(tmp_path):
    path = write_tar(tmp_path / "cc3m" / "00000.tar", pairs(0, 1, 2))
    samples, census = read(tmp_path / "cc3m")
    assert [said(sample)[1][1] for sample in samples] == ["caption 0", "caption 1", "caption 2"]
    assert census["files"] == {"00000.tar": "webdataset"} and samples[0].source == "cc3m"
    for number, sample in enumerate(samples):
        (ref,) = sample.images
        assert ref.path == str(path) and not ref.data
        data = path.read_bytes()[ref.offset : ref.offset + ref.size]
        assert data == encoded((number, 0, 0)) and read_picture(data, "x")[0, 0].tolist() == [number, 0, 0]


def test_a_streamed_shard_gives_the_bytes(tmp_path):
    write_tar(tmp_path / "cc3m" / "00000.tar", pairs(0, 1))
    write_tar(tmp_path / "cc3m" / "00001.tar.gz", pairs(2), mode="w:gz")
    data = build_vision_language(VisionLanguageOptions(path=str(tmp_path / "cc3m"), streaming=True))
    assert isinstance(data.dataset, IterableDataset) and data.dataset.num_shards == 2
    samples = [ChatSample.from_row(row) for row in data.dataset]
    assert [sample.id for sample in samples] == [f"{number:09d}" for number in range(3)]
    assert [sample.images[0].data for sample in samples] == [encoded((number, 0, 0)) for number in range(3)]


def test_a_compressed_shard_has_no_places(tmp_path):
    write_tar(tmp_path / "cc3m" / "00000.tar.gz", pairs(0), mode="w:gz")
    with pytest.raises(DataError, match="compressed tar has no places.*streaming: true"):
        read(tmp_path / "cc3m")


def test_tables_that_describe_a_shard_are_not_read_twice(tmp_path):
    write_tar(tmp_path / "laion" / "00000.tar", pairs(0))
    (tmp_path / "laion" / "00000.parquet").write_bytes(b"PAR1 and more")
    write(tmp_path / "laion" / "00000_stats.json", {"count": 1})
    samples, census = read(tmp_path / "laion")
    assert len(samples) == 1 and not census["unknown"]
    assert census["beside"] == {"00000.parquet": "describes 00000.tar", "00000_stats.json": "describes 00000.tar"}


def test_the_first_picture_of_a_sample_counts(tmp_path):
    members = [("1.png", encoded()), ("1.seg.png", encoded((0, 0, 9))), ("1.txt", b"words")]
    path = write_tar(tmp_path / "set" / "0.tar", members)
    (sample,), _ = read(path)
    ref = sample.images[0]
    assert path.read_bytes()[ref.offset : ref.offset + ref.size] == encoded()


def test_conversations_in_a_shard(tmp_path):
    talk = {"conversations": [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": "A dog."}]}
    members = [("a/1.png", encoded()), ("a/1.json", json.dumps(talk).encode())]
    (sample,), _ = read(write_tar(tmp_path / "talk" / "0.tar", members))
    assert said(sample) == [("user", "<image>What?"), ("assistant", "A dog.")] and sample.images[0].size


def test_a_split_that_a_sample_of_a_shard_names_is_kept_apart(tmp_path):
    """As `hfvla data convert` writes them: what was validation before does not train as a tar."""
    talk = {"messages": [{"role": "user", "content": "What?"}, {"role": "assistant", "content": "A dog."}]}
    members = []
    for number, split in enumerate(("val", "train", "")):
        members += [(f"{number}.png", encoded()), (f"{number}.json", json.dumps({**talk, "split": split}).encode())]
    path = write_tar(tmp_path / "talk" / "0.tar", members)
    samples, census = read(path, split="train")
    assert [(sample.id, sample.split) for sample in samples] == [("1", "train"), ("2", "")]
    assert census["left_out"] == {"val": 1} and [sample.split for sample in read(path, split="val")[0]] == ["val", ""]


@pytest.mark.parametrize(
    ("members", "reason"),
    [
        ([("1.png", encoded())], "caption is not text"),
        ([("1.txt", b"words")], "annotation without its picture"),
        ([("1.png", b""), ("1.txt", b"words")], "picture without bytes"),
        ([("1.png", b"no picture"), ("1.txt", b"words")], "picture cannot be read"),
        ([("1.png", encoded()), ("1.txt", b"w\xff")], "caption is not UTF-8"),
        ([("1.png", encoded()), ("1.txt", b" ")], "empty caption"),
        ([("1.png", encoded()), ("1.json", b"{")], "JSON that cannot be read"),
    ],
)
def test_a_sample_of_a_shard_that_cannot_be_used_is_counted(tmp_path, members, reason):
    path = write_tar(tmp_path / "set" / "0.tar", [*pairs(7), *members])
    samples, census = read(path, max_bad_fraction=0.5)
    assert len(samples) == 1 and list(census["rejected"]) == [reason]
    assert census["rejected"][reason]["first"].startswith("0.tar:1 (1)")


def test_a_shard_that_is_cut_short_is_counted_and_the_next_is_read(tmp_path):
    path = write_tar(tmp_path / "set" / "0.tar", pairs(0, 1))
    whole = path.read_bytes()
    path.write_bytes(whole[: 512 * 9 + 100])  # within the second sample's picture
    write_tar(tmp_path / "set" / "1.tar", pairs(2))
    samples, census = read(tmp_path / "set", max_bad_fraction=0.6)
    assert [sample.id for sample in samples] == ["000000000", "000000002"]
    assert census["rejected"]["tar that is cut short or damaged"]["first"].startswith("0.tar")


def test_conceptual_captions_by_the_names_of_its_own_script(tmp_path):
    root = tmp_path / "cc"
    rows = [("a red dog", "http://localhost/1.jpg"), ("a cat", "http://localhost/2.jpg")]
    root.mkdir()
    (root / "Train_GCC-training.tsv").write_text("".join(f"{text}\t{url}\n" for text, url in rows))
    with pytest.raises(DataError, match="2 of 2 .*only the address of a picture.*http://localhost/1.jpg"):
        read(root / "Train_GCC-training.tsv")
    name = f"0_{zlib.crc32(rows[0][1].encode()) & 0xFFFFFFFF}"
    picture(root / "training" / "x.png").rename(root / "training" / name)
    samples, census = read(root, max_bad_fraction=0.5)
    assert [said(sample)[1][1] for sample in samples] == ["a red dog"] and samples[0].images[0].path.endswith(name)
    assert census["rejected"]["only the address of a picture"]["count"] == 1 and samples[0].split == "train"


def test_tables_of_addresses_beside_shards_are_named_and_not_read(tmp_path):
    root = tmp_path / "laion"
    write_tar(root / "00000.tar", pairs(0))
    write(root / "list.jsonl", [{"url": "http://localhost/1.jpg", "TEXT": "a cat"}])
    samples, census = read(root)
    assert len(samples) == 1 and census["addresses_only"] == ["list.jsonl"] and census["found"] == 1


def test_pictures_with_a_text_beside_each(tmp_path):
    root = tmp_path / "set"
    for number in range(3):
        picture(root / "00000" / f"{number:09d}.jpg")
        if number < 2:
            (root / "00000" / f"{number:09d}.txt").write_text(f"caption {number}\n")
        write(root / "00000" / f"{number:09d}.json", {"key": "x"})
    samples, census = read(root, max_bad_fraction=0.5)
    assert [said(sample)[1][1] for sample in samples] == ["caption 0", "caption 1"]
    assert census["files"] == {"00000": "captioned_files"} and not census["unknown"]
    assert census["rejected"]["picture without a caption"]["first"].startswith("00000/000000002.jpg")

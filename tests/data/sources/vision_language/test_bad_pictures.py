"""Pictures of every kind: read as they are displayed, or counted by reason, and never a black one instead."""

import io
import os
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from hfvla.data.pictures import load_picture
from hfvla.errors import DataError

from .sets import coco_images, picture, read, write


def save(path, image, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    image.save(path, **options)
    return path


def png_header(width, height):
    """Return a PNG that claims a size and holds nothing of it."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + body


@pytest.fixture
def root(tmp_path):
    picture(tmp_path / "set" / "good.png")
    return tmp_path / "set"


def captions(root, *names):
    rows = [{"image": name, "caption": f"of {name}", "id": name} for name in ("good.png", *names)]
    return write(root / "captions.jsonl", rows)


def rotated(path):
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.new("RGB", (8, 4), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 4, 4))  # the left half, which is displayed as the upper one
    return save(path, image, exif=exif, quality=100)


GRADIENT = np.arange(64, dtype=np.uint8).reshape(8, 8)


@pytest.mark.parametrize(
    ("name", "make", "corner"),
    [
        ("cmyk.jpg", lambda path: save(path, Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100), (255, 0, 0)),
        ("palette.png", lambda path: save(path, Image.new("RGB", (8, 8), (0, 0, 255)).quantize(4)), (0, 0, 255)),
        ("grey.png", lambda path: save(path, Image.fromarray(GRADIENT + 7)), (7, 7, 7)),
        ("deep.png", lambda path: save(path, Image.fromarray(np.full((8, 8), 0x8080, np.uint16))), (128, 128, 128)),
        ("moving.gif", lambda path: save(path, Image.new("RGB", (8, 8), (255, 0, 0)), save_all=True, duration=10,
                                         append_images=[Image.new("RGB", (8, 8), (0, 255, 0))]), (255, 0, 0)),
        ("dot.png", lambda path: save(path, Image.new("RGB", (1, 1), (1, 2, 3))), (1, 2, 3)),
        ("wide.png", lambda path: save(path, Image.new("RGB", (20_000, 1), (1, 2, 3))), (1, 2, 3)),
        ("turned.jpg", rotated, (255, 255, 255)),
    ],
)  # fmt: skip
def test_odd_pictures_are_read_as_they_are_displayed(root, name, make, corner):
    make(root / name)
    samples, census = read(captions(root, name), check_images="decode")
    assert [sample.id for sample in samples] == ["good.png", name] and not census["rejected"]
    shown = np.asarray(load_picture(samples[1].images[0].path, name))
    assert np.abs(shown[0, 0].astype(int) - corner).max() <= 2, shown[0, 0]
    if name == "turned.jpg":
        assert shown.shape == (8, 4, 3) and shown[-1, 0].max() <= 2


def cut_jpeg(path):
    save(path, Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)))
    path.write_bytes(path.read_bytes()[:1500])


def dead_link(path):
    path.symlink_to(path.with_name("nothing.png"))


def out_of_root(path):
    path.symlink_to(picture(path.parent.parent / "elsewhere" / "secret.png"))


@pytest.mark.parametrize(
    ("name", "make", "level", "reason"),
    [
        ("cut.jpg", cut_jpeg, "decode", "picture cannot be read"),
        ("empty.png", lambda path: path.touch(), "header", "picture cannot be read"),
        ("text.png", lambda path: path.write_text("no picture"), "header", "picture cannot be read"),
        ("bomb.png", lambda path: path.write_bytes(png_header(20_000, 20_000)), "header", "picture is too large"),
        ("short.png", lambda path: path.write_bytes(png_header(8, 8)), "decode", "picture cannot be read"),
        ("none.png", lambda path: None, "exists", "annotation without its picture"),
        ("folder.png", lambda path: path.mkdir(), "exists", "annotation without its picture"),
        ("dead.png", dead_link, "exists", "annotation without its picture"),
        ("pipe.png", os.mkfifo, "exists", "annotation without its picture"),
        ("link.png", out_of_root, "exists", "link that leads out of the data root"),
        ("../elsewhere/a.png", lambda path: None, "exists", "image path outside the data root"),
        ("/etc/passwd", lambda path: None, "exists", "image path outside the data root"),
        ("x" * 5000 + ".png", lambda path: None, "exists", "no such image path"),
        ("nul\0.png", lambda path: None, "exists", "annotation without its picture"),
    ],
)
def test_a_picture_that_cannot_be_used_is_counted_and_named(root, name, make, level, reason):
    if not name.startswith(("..", "/", "x", "nul")):
        make(root / name)
    samples, census = read(captions(root, name), check_images=level, max_bad_fraction=0.5)
    assert [sample.id for sample in samples] == ["good.png"]
    assert {why: entry["count"] for why, entry in census["rejected"].items()} == {reason: 1}
    first = census["rejected"][reason]["first"]
    assert first.startswith("captions.jsonl:2") and name[:3] in first


def test_damage_that_was_not_looked_for_stops_with_the_name(root):
    cut_jpeg(root / "cut.jpg")
    samples, census = read(captions(root, "cut.jpg"), check_images="header")
    assert len(samples) == 2 and not census["rejected"]
    with pytest.raises(DataError, match=r"sample 7: picture cannot be read"):
        load_picture(samples[1].images[0].path, "sample 7")


def test_links_are_followed_where_the_recipe_says_so(root):
    out_of_root(root / "link.png")
    (root / "disk").symlink_to(picture(root.parent / "disk" / "far.png").parent)
    path = captions(root, "link.png", "disk/far.png")
    samples, census = read(path, max_bad_fraction=0.9)
    assert len(samples) == 1 and set(census["rejected"]) == {"link that leads out of the data root"}
    assert len(read(path, follow_links=True)[0]) == 3


def test_boxes_of_a_picture_that_is_displayed_on_its_side(root):
    rotated(root / "train2017" / f"{9:012d}.jpg")
    value = {
        "images": coco_images(9, size=(8, 4)),
        "annotations": [{"id": 1, "image_id": 9, "category_id": 1, "bbox": [0, 0, 8, 1], "iscrowd": 0}],
        "categories": [{"id": 1, "name": "dog"}],
    }
    path = write(root / "annotations" / "instances_train2017.json", value)
    with pytest.raises(DataError, match="annotated 8 x 4, displayed 4 x 8"):
        read(path)
    value["images"][0].update(width=4, height=8)
    value["annotations"][0]["bbox"] = [0, 0, 1, 8]
    (sample,), _ = read(write(path, value))
    assert sample.boxes[0].normalised == (0.0, 0.0, 0.25, 1.0)


def test_encoded_pictures_in_records_are_looked_at_too(root):
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    rows = [{"image": {"bytes": None, "path": "good.png"}, "caption": "a"}, {"image": {"bytes": None}, "caption": "b"}]
    samples, census = read(write(root / "a.json", rows), max_bad_fraction=0.5)
    assert len(samples) == 1 and list(census["rejected"]) == ["no image path"]

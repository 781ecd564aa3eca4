"""Damaged pictures end in an error that names them, whatever Pillow raises."""

import io

import numpy as np
import pytest
from PIL import Image

from hfvla.data.pictures import read_picture
from hfvla.errors import DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (40, 60, 3)).astype(np.uint8)


def encoded(kind):
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind)
    return buffer.getvalue()


def absurd_size(content):
    place = content.index(b"\xff\xc0") + 5  # height and width, two bytes each
    return content[:place] + b"\xff\xff\xff\xff" + content[place + 4 :]


def broken_chunk(content):
    place = content.index(b"IDAT") - 4
    return content[:place] + b"\x00\x00\x00\x05ID\x01T" + content[place + 8 :]


def test_whole_pictures(tmp_path):
    np.testing.assert_array_equal(read_picture(encoded("PNG"), "a"), PIXELS)
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    np.testing.assert_array_equal(read_picture(str(tmp_path / "a.png"), "a"), PIXELS)


@pytest.mark.parametrize(
    "content",
    [absurd_size(encoded("JPEG")), broken_chunk(encoded("PNG")), encoded("JPEG")[:900], b"", b"text"],
    ids=["absurd size", "broken chunk", "truncated", "empty", "text"],
)
def test_damage_is_named(content):
    with pytest.raises(DataError, match=r"View1/7\.jpg: picture cannot be read"):
        read_picture(content, "View1/7.jpg")


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(DataError, match="No such file"):
        read_picture(str(tmp_path / "gone.jpg"), "gone.jpg")

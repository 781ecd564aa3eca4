"""A picture is read as a viewer shows it; damaged ones end in an error that names them, whatever Pillow raises."""

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from hfvla.data.pictures import check_picture, load_picture, read_picture
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


# ---- as a viewer shows it ----------------------------------------------------------------------------------------


def saved(picture, kind, **options):
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def shown(content):
    return read_picture(content, "a")


# What the viewer does to [H, W] for each EXIF orientation (EXIF 2.32, section 4.6.4, tag 274).
ORIENTATIONS = {
    1: lambda x: x,
    2: np.fliplr,
    3: lambda x: x[::-1, ::-1],
    4: np.flipud,
    5: lambda x: np.swapaxes(x, 0, 1),
    6: lambda x: np.rot90(x, -1),
    7: lambda x: np.swapaxes(x[::-1, ::-1], 0, 1),
    8: np.rot90,
}


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_a_picture_is_turned_and_mirrored_as_its_exif_entry_says(orientation, kind):
    exif = Image.Exif()
    exif[0x0112] = orientation
    np.testing.assert_array_equal(
        shown(saved(Image.fromarray(PIXELS), kind, exif=exif)), ORIENTATIONS[orientation](PIXELS)
    )


def test_an_exif_entry_that_is_no_orientation_leaves_the_picture_as_it_is():
    exif = Image.Exif()
    exif[0x0112] = 77
    np.testing.assert_array_equal(shown(saved(Image.fromarray(PIXELS), "PNG", exif=exif)), PIXELS)
    damaged = saved(Image.fromarray(PIXELS), "JPEG", exif=b"Exif\x00\x00MM\x00*\x00\x00\x00\x08\xff\xff")
    np.testing.assert_array_equal(shown(damaged), shown(encoded("JPEG")))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_sixteen_bits_are_scaled_not_clipped(kind):
    ramp = np.array([[0, 257, 32896, 65535]], np.uint16)
    assert shown(saved(Image.fromarray(ramp), kind))[0, :, 0].tolist() == [0, 1, 128, 255]


def test_floats_within_0_to_1_are_scaled_and_others_refused():
    ramp = np.array([[0.0, 0.25, 0.5, 1.0]], np.float32)
    assert shown(saved(Image.fromarray(ramp), "TIFF"))[0, :, 0].tolist() == [0, 64, 128, 255]
    for wrong, got in ((ramp * 255, "0 to 255"), (ramp - 1, "-1 to 0"), (ramp * np.nan, "nan")):
        for look in (read_picture, check_picture):
            with pytest.raises(DataError, match=f"a: picture whose values tell no range.*{got}"):
                look(saved(Image.fromarray(wrong), "TIFF"), "a")


def test_32_bit_integers_are_refused():
    with pytest.raises(DataError, match="tell no range; got '32-bit integers'"):
        shown(saved(Image.fromarray(np.array([[0, 70000]], np.int32)), "TIFF"))


def transparent(mode):
    colours = {"RGBA": [(200, 0, 0, 0), (200, 0, 0, 255)], "LA": [(10, 0), (10, 255)]}[mode]
    picture = Image.new(mode, (2, 1))
    picture.putdata(colours)
    return picture


@pytest.mark.parametrize(("kind", "mode"), [("PNG", "RGBA"), ("PNG", "LA"), ("WEBP", "RGBA"), ("TIFF", "RGBA")])
def test_colours_hidden_under_transparency_do_not_show(kind, mode):
    options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
    found = shown(saved(transparent(mode), kind, **options))[0].tolist()
    assert found == [[255, 255, 255], [200, 0, 0] if mode == "RGBA" else [10, 10, 10]]


def test_transparent_entries_of_palettes_and_grey_values_are_white():
    palette = Image.new("P", (2, 1))
    palette.putpalette([9, 9, 9, 20, 30, 40])
    palette.putdata([0, 1])
    for kind in ("GIF", "PNG"):
        assert shown(saved(palette, kind, transparency=0))[0].tolist() == [[255, 255, 255], [20, 30, 40]]
        assert shown(saved(palette, kind))[0].tolist() == [[9, 9, 9], [20, 30, 40]]
    grey = Image.fromarray(np.array([[514, 257]], np.uint16))
    assert shown(saved(grey, "PNG", transparency=514))[0, :, 0].tolist() == [255, 1]


def test_cmyk_and_the_first_picture_of_an_animation():
    red = shown(saved(Image.new("RGB", (8, 8), (255, 0, 0)).convert("CMYK"), "JPEG"))
    assert np.abs(red.astype(int) - [255, 0, 0]).max() < 8
    frames = [Image.new("RGB", (4, 4), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    for kind in ("GIF", "WEBP", "TIFF", "PNG"):
        content = saved(frames[0], kind, save_all=True, append_images=frames[1:])
        assert np.abs(shown(content)[0, 0].astype(int) - [250, 0, 0]).max() < 8, kind


def test_a_pil_image_is_read_by_the_same_rules():
    content = saved(transparent("RGBA"), "PNG")
    with Image.open(io.BytesIO(content)) as opened:
        np.testing.assert_array_equal(np.asarray(load_picture(opened)), shown(content))


# ---- what must not be read ---------------------------------------------------------------------------------------


def test_too_many_pixels_are_refused_before_they_are_decoded(monkeypatch):
    monkeypatch.setattr("hfvla.data.pictures.MAX_PIXELS", 2399)  # the picture has 2,400
    for look in (read_picture, check_picture):
        with pytest.raises(DataError, match="big: picture is too large; got '60 x 40 pixels'"):
            look(encoded("PNG"), "big")


def test_a_decompression_bomb_is_an_error_that_names_it():
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 0, 0, 0, 0)
    chunks = [b"IHDR" + header, b"IDAT" + zlib.compress(bytes(60_001))]
    packed = [struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in chunks]
    bomb = b"\x89PNG\r\n\x1a\n" + b"".join(packed)
    for look in (read_picture, check_picture):
        with pytest.raises(DataError, match="bomb: picture cannot be read.*3600000000 pixels"):
            look(bomb, "bomb")


def test_a_postscript_file_is_not_run():
    with pytest.raises(DataError, match="no picture of a kind that is read"):
        shown(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n")


def test_a_pipe_and_a_device_do_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    for path in (tmp_path / "pipe.png", Path("/dev/zero"), tmp_path):
        for look in (read_picture, check_picture):
            with pytest.raises(DataError, match="not a regular file"):
                look(path, "a")


@pytest.mark.parametrize("path", ["x" * 100_000, "a\x00b", "\udc80.png"], ids=["long", "nul", "surrogate"])
def test_paths_that_no_file_can_have_are_named(path):
    with pytest.raises(DataError, match="a: picture cannot be read"):
        read_picture(path, "a")


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM"])
def test_damage_of_every_kind_is_a_data_error_or_no_damage(kind):
    whole, generator = encoded(kind), np.random.default_rng(7)
    for _ in range(60):
        content = bytearray(whole)
        for place in generator.integers(0, min(len(whole), 300), 3):
            content[place] = generator.integers(0, 256)
        try:
            assert shown(bytes(content)).dtype == np.uint8
        except DataError as error:
            assert error.where == "a"

"""Members of a tar by offset: the same as `tarfile` finds, in every format that it writes."""

import io
import random
import tarfile

import pytest

from hfvla.data.sources.vision_language.tar_members import TarMember, iterate_members

NAMES = ["a.jpg", "folder/b.txt", "c" * 100, "d" * 101, "long/" * 30 + "e.jpg", "ü/é.jpg", "f" * 300 + ".jpg"]


def write(path, kind, names=NAMES):
    draw = random.Random(0)
    with tarfile.open(path, "w", format=kind) as archive:
        for name in names:
            data = draw.randbytes(draw.choice([0, 1, 511, 512, 513, 3000]))
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
            folder = tarfile.TarInfo(f"folder of {name[:20]}")
            folder.type = tarfile.DIRTYPE
            archive.addfile(folder)
            link = tarfile.TarInfo(f"link to {name[:20]}")
            link.type, link.linkname = tarfile.SYMTYPE, name[:90]
            archive.addfile(link)
    return path


def theirs(path):
    with tarfile.open(path) as archive:
        return [TarMember(one.name, one.offset_data, one.size) for one in archive if one.isfile()]


def ours(path):
    with open(path, "rb") as file:
        found = []
        for member in iterate_members(file):
            file.seek(0)  # whoever reads may move the file
            found.append(member)
        return found


@pytest.mark.parametrize("kind", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_of_tarfile(tmp_path, kind):
    names = [name for name in NAMES if kind != tarfile.USTAR_FORMAT or len(name) <= 100 or "/" in name[60:]]
    path = write(tmp_path / "a.tar", kind, names)
    assert ours(path) == theirs(path) and len(ours(path)) == len(names)


def test_an_empty_archive_has_none(tmp_path):
    assert ours(write(tmp_path / "a.tar", tarfile.GNU_FORMAT, [])) == []


@pytest.mark.parametrize("cut", range(100, 12_000, 700))
def test_an_archive_that_is_cut_short_ends_where_tarfile_ends(tmp_path, cut):
    path = write(tmp_path / "a.tar", tarfile.PAX_FORMAT)
    whole = ours(path)
    path.write_bytes(path.read_bytes()[:cut])
    found = []
    with open(path, "rb") as file:
        try:
            found += list(iterate_members(file))
        except tarfile.ReadError as error:
            assert "unexpected end" in str(error)
    assert found == whole[: len(found)] and all(one.offset + one.size <= cut for one in found)


@pytest.mark.parametrize(
    ("damage", "match"),
    [(b"\xff" * 512, "checksum"), (b"x" * 512, "a header that is none"), (b"a" * 20, "unexpected end")],
)
def test_damage_is_an_error(tmp_path, damage, match):
    path = tmp_path / "a.tar"
    path.write_bytes(damage)
    with pytest.raises(tarfile.ReadError, match=match):
        ours(path)

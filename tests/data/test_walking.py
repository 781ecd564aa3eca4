"""Links are followed, nothing is read twice, and what is passed over is named."""

import os
from pathlib import Path

import pytest

from hfvla.data.walking import find_files, find_folders, natural_key


def make(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


def names(found, root):
    return [path.relative_to(root).as_posix() for path in found.paths]


def is_h5(name):
    return name.endswith(".h5")


def test_parts_without_leading_zeros_are_in_their_natural_order():
    assert sorted(["a_10", "a_9", "a_1", "b"], key=natural_key) == ["a_1", "a_9", "a_10", "b"]


def test_links_to_files_and_folders_are_followed_wherever_they_lead(tmp_path):
    make(tmp_path / "disk", "old/a.h5", "b.h5")
    root = make(tmp_path / "set", "c.h5", "sub/d.h5", "sub/note.txt")
    (root / "old").symlink_to(tmp_path / "disk/old")
    (root / "b.h5").symlink_to(tmp_path / "disk/b.h5")
    found = find_files(root, is_h5)
    assert names(found, root) == ["b.h5", "c.h5", "old/a.h5", "sub/d.h5"] and not found.lost and not found.passed


def test_nothing_is_read_twice_and_loops_end(tmp_path):
    root = make(tmp_path / "set", "a.h5", "sub/b.h5")
    for link, target in (("again", "sub"), ("sub/up", ".."), ("c.h5", "a.h5"), ("self", "self")):
        (root / link).symlink_to(root / target if target != ".." else root)
    found = find_files(root, is_h5)
    assert names(found, root) == ["a.h5", "sub/b.h5"]
    reasons = {path.name: reason for path, reason in found.passed}
    assert reasons.pop("self") == os.strerror(40)
    assert reasons == dict.fromkeys(("again", "up", "c.h5"), "a link to what is read already")
    assert found.census()["passed_over"]["count"] == 4


def test_what_has_the_name_and_is_of_no_use_is_lost_not_gone(tmp_path):
    root = make(tmp_path / "set", "a.h5", "._a.h5", ".hidden/b.h5")
    (root / "dead.h5").symlink_to(tmp_path / "gone")
    (root / "zero.h5").symlink_to("/dev/zero")
    (root / "unmounted").symlink_to(tmp_path / "gone")
    os.mkfifo(root / "pipe.h5")
    found = find_files(root, is_h5)
    assert names(found, root) == ["a.h5"] and found.hidden == 1
    assert {path.name: reason for path, reason in found.lost} == {
        "dead.h5": "a link to nothing", "zero.h5": "not a regular file", "pipe.h5": "not a regular file"
    }  # fmt: skip
    assert [(path.name, reason) for path, reason in found.passed] == [("unmounted", "a link to nothing")]


def test_folders_are_found_and_not_looked_into(tmp_path):
    root = make(tmp_path / "set", "t/episode_1/episode_2/x", "t/other/episode_3/x", ".cache/episode_4/x")
    make(tmp_path / "disk", "episode_5/x")
    (root / "episode_5").symlink_to(tmp_path / "disk/episode_5")
    (root / "episode_6").symlink_to(tmp_path / "disk/gone")
    (root / "episode_7").symlink_to(root / "t/episode_1")
    found = find_folders(root, lambda name: name.startswith("episode_"))
    assert names(found, root) == ["episode_5", "t/episode_1", "t/other/episode_3"]
    assert [path.name for path, _ in found.lost] == ["episode_6"]
    assert [path.name for path, _ in found.passed] == ["episode_7"]
    assert find_folders(root / "t/episode_1", lambda name: name.startswith("episode_")).paths == [root / "t/episode_1"]


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    root = make(tmp_path / "set", "closed/a.h5")
    (root / "closed").chmod(0)
    assert [path.name for path, _ in find_files(root, is_h5).passed] == ["closed"]
    Path(root / "closed").chmod(0o700)

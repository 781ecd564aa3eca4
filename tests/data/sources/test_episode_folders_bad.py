"""Episode folders that cannot be used are refused whole, named and counted; nothing is guessed."""

import io
import os
import shutil
import warnings
import zipfile

import numpy as np
import pytest
from pydantic import ValidationError

from hfvla.data.sources.episode_folders import EpisodeFoldersOptions, build_episode_folders, count_episode_folders
from hfvla.errors import DataError

from .episode_sets import STATE, recording, write_new, write_old


def build(folder, **options):
    options = {"state": STATE, "gripper": "gripper", "cache_folder": str(folder.parent / "series"), **options}
    return build_episode_folders(EpisodeFoldersOptions(path=str(folder), **options))


# Harm done to an episode, the reason it is counted under, and the value that is named.
def change(path, old, new, count=1):
    path.write_text(path.read_text().replace(old, new, count))


def shifted(seconds):
    def harm(folder):
        made = recording()
        np.savez(folder / "sensor_data.npz", timestamps=made.sensor_ns / 1e9 + seconds, data=made.sensor)

    return harm


def sensor_with(**arrays):
    def harm(folder):
        made = recording()
        given = {"timestamps": made.sensor_ns / 1e9, "data": made.sensor}
        given |= {name: make(made) for name, make in arrays.items()}
        np.savez(folder / "sensor_data.npz", **{name: value for name, value in given.items() if value is not None})

    return harm


def huge_header(folder):
    """The header of an array of 10^12 rows before the values of a few."""
    path = folder / "sensor_data.npz"
    with np.load(path) as content:
        stamps = content["timestamps"]
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (1_000_000_000_000, 5)}
    )
    np.savez(path, timestamps=stamps)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("data.npy", header.getvalue() + bytes(400))


def twin_array(folder):
    with warnings.catch_warnings(), zipfile.ZipFile(folder / "sensor_data.npz", "a") as archive:
        warnings.simplefilter("ignore")
        archive.writestr("data.npy", archive.read("data.npy"))


def dead_link(name):
    def harm(folder):
        (folder / name).unlink(missing_ok=True)
        (folder / name).symlink_to(folder / "gone")

    return harm


def pipe(name):
    def harm(folder):
        (folder / name).unlink(missing_ok=True)
        os.mkfifo(folder / name)

    return harm


def with_value(place, channel, value):
    def make(made):
        values = made.sensor.copy()
        values[place, channel] = value
        return values

    return make


def rows_of(folder):
    return (folder / "robot_states.csv").read_text().splitlines()


def write_rows(folder, rows):
    (folder / "robot_states.csv").write_text("\n".join(rows) + "\n")


def swap_rows(folder):
    rows = rows_of(folder)
    rows[7], rows[8] = rows[8], rows[7]
    write_rows(folder, rows)


def repeat_row(folder):
    rows = rows_of(folder)
    write_rows(folder, [*rows[:5], rows[4], *rows[5:]])


def stop_states(folder, rows=3):
    write_rows(folder, rows_of(folder)[:rows])


def nan_state(folder):
    rows = rows_of(folder)
    cells = rows[6].split(",")
    cells[9] = "nan"
    write_rows(folder, [*rows[:6], ",".join(cells), *rows[7:]])


def picture_paths(folder, view="View1"):
    return sorted((folder / "images" / view).iterdir())


def lose_pictures(folder):
    for path in picture_paths(folder)[4:8]:
        path.unlink()


def rename_picture(name):
    def harm(folder):
        path = picture_paths(folder)[0]
        path.rename(path.with_name(name))

    return harm


def twin_picture(folder):
    path = picture_paths(folder)[3]
    path.with_suffix(".jpeg").write_bytes(path.read_bytes())


def cut_first_picture(folder):
    path = picture_paths(folder)[0]
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"\xff\xda") + 16])  # the header is whole


def move_pictures(folder):
    for path in picture_paths(folder):
        path.rename(path.with_name(f"{int(path.stem) + 3_600_000_000}.jpg"))


def remove_view(folder):
    for path in picture_paths(folder, "View2"):
        path.unlink()
    (folder / "images/View2").rmdir()


def empty_view(folder):
    for path in picture_paths(folder, "View2"):
        path.unlink()


BAD = {
    "no metadata": (lambda f: (f / "metadata.json").unlink(), "metadata are missing", "no metadata.json"),
    "broken metadata": (lambda f: (f / "metadata.json").write_text("{"), "metadata are broken", "line 1"),
    "metadata no object": (lambda f: (f / "metadata.json").write_text("[]"), "metadata are broken", "list"),
    "task no text": (lambda f: (f / "metadata.json").write_text('{"task": 3}'), "metadata are broken", "task 3"),
    "no states": (lambda f: (f / "robot_states.csv").unlink(), "robot states are missing", "robot_states.csv"),
    "no column": (lambda f: change(f / "robot_states.csv", "rz", "r_z"), "column is missing", "rz. Did you mean"),
    "header only": (lambda f: stop_states(f, 1), "empty episode", "no row"),
    "states end early": (lambda f: stop_states(f, 3), "clocks do not overlap", "states"),
    "less than a step": (lambda f: stop_states(f, 30), "empty episode", "0.063 s of states is less than a step"),
    "short row": (lambda f: write_rows(f, [*rows_of(f), "1,2"]), "row of another length", "2 cells, header has 14"),
    "no number": (lambda f: change(f / "robot_states.csv", "5.312", "oops"), "not a number", "oops"),
    "nan state": (nan_state, "value is not finite", "robot_states.csv:7: z"),
    "falling states": (swap_rows, "state times do not ascend", "row 8"),
    "repeated state": (repeat_row, "state times do not ascend", "row 5"),
    "two picture units": (rename_picture("1760000000.jpg"), "two clock units in one series", "View1"),
    "relative pictures": (rename_picture("12.jpg"), "clock of an unknown unit", "12"),
    "picture no time": (rename_picture("frame_a.jpg"), "not a time", "frame_a"),
    "twin pictures": (twin_picture, "two pictures of one time", "View1"),
    "cut picture": (cut_first_picture, "picture cannot be read", "truncated"),
    "empty picture": (lambda f: picture_paths(f)[5].write_bytes(b""), "picture cannot be read", "empty file"),
    "lost pictures": (lose_pictures, "gap in a recording", "pictures of View1"),
    "another hour": (move_pictures, "clocks do not overlap", "View1 17600"),
    "view missing": (remove_view, "view is missing", "View2. Did you mean 'View1'"),
    "view empty": (empty_view, "view without pictures", "View2"),
    "sensor late": (shifted(100), "sensor clock and frames do not overlap", "sensor_data.npz: sensor 99.595"),
    "sensor early": (shifted(-100), "sensor clock and frames do not overlap", "frames 0.000 to 1.200 s"),
    "sensor ends": (shifted(-0.5), "sensor ends before the episode", "episode at 1.200 s"),
    "sensor no data": (sensor_with(data=lambda m: None), "array is missing", "sensor_data.npz: data"),
    "sensor nan": (sensor_with(data=with_value(7, 2, np.nan)), "sensor value is not finite", "sample 7"),
    "sensor inf": (sensor_with(data=with_value(9, 0, np.inf)), "sensor value is not finite", "sample 9"),
    "sensor lengths": (sensor_with(data=lambda m: m.sensor[:-3]), "sensor lengths differ", "timestamps"),
    "sensor channels": (sensor_with(data=lambda m: m.sensor[:, :3]), "wrong sensor dimension", "3 channels"),
    "sensor empty": (sensor_with(timestamps=lambda m: np.zeros(0), data=lambda m: m.sensor[:0]),
                     "empty sensor series", "sensor_data.npz"),
    "sensor float32": (sensor_with(timestamps=lambda m: (m.sensor_ns / 1e9).astype(np.float32)),
                       "times are not float64", "float32"),
    "sensor falls": (sensor_with(timestamps=lambda m: np.r_[m.sensor_ns[:9], m.sensor_ns[8:-1]] / 1e9),
                     "sensor times do not ascend", "sample 9"),
    "sensor nan time": (sensor_with(timestamps=lambda m: np.r_[m.sensor_ns[:9] / 1e9, np.nan, m.sensor_ns[10:] / 1e9]),
                        "a time is not finite", "sample 9"),
    "sensor gap": (sensor_with(timestamps=lambda m: np.r_[m.sensor_ns[:400], m.sensor_ns[500:]] / 1e9,
                               data=lambda m: np.delete(m.sensor, range(400, 500), 0)),
                   "gap in the sensor series", "0.155 s"),
    "sensor cut": (lambda f: (f / "sensor_data.npz").write_bytes((f / "sensor_data.npz").read_bytes()[:900]),
                   "sensor file cannot be read", "sensor_data.npz"),
    "sensor header": (huge_header, "array of another size than its header says", "(1000000000000, 5)"),
    "sensor twice": (twin_array, "array is there twice", "sensor_data.npz: data"),
    "sensor link": (dead_link("sensor_data.npz"), "sensor file cannot be read", "No such file"),
    "sensor pipe": (pipe("sensor_data.npz"), "sensor file cannot be read", "not a regular file"),
    "sensor size": (lambda f: os.truncate(f / "sensor_data.npz", 1 << 40), "sensor file is too large", "sensor_data"),
    "state pipe": (pipe("robot_states.csv"), "robot states are missing", "robot_states.csv"),
    "picture link": (dead_link("images/View1/1760000000.jpg"), "picture cannot be read", "No such file"),
    "picture pipe": (pipe("images/View1/1760000000.jpg"), "picture cannot be read", "not a regular file"),
    "number with a bar": (lambda f: change(f / "robot_states.csv", ",1.0,", ",1_0,"), "not a number", "'1_0'"),
    "column twice": (lambda f: change(f / "robot_states.csv", "gripper", "rz"), "column is there twice", "rz"),
    "deep metadata": (lambda f: (f / "metadata.json").write_text("[" * 100_000), "metadata are broken", "too deeply"),
    "half a character": (lambda f: (f / "metadata.json").write_text('{"task": "\\ud800"}'), "metadata are broken",
                         "no text"),
    "sensor pickled": (sensor_with(data=lambda m: np.array([{}] * len(m.sensor), dtype=object)),
                       "sensor file cannot be read", "pickle"),
}  # fmt: skip


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    root = tmp_path_factory.mktemp("sound") / "set"
    for number in range(2):
        write_new(root / "peg" / f"episode_{number}", recording())
    return root


@pytest.mark.parametrize("name", BAD)
def test_bad_episodes_are_named_and_counted(sound, tmp_path, name):
    harm, reason, detail = BAD[name]
    root = shutil.copytree(sound, tmp_path / "set")
    harm(root / "peg" / "episode_1")
    options = {"window_s": 0.1, "views": ["View1", "View2"]}
    with pytest.raises(DataError, match=f"1 of 2 records are unusable \\(1 {reason}\\)"):
        build(root, **options)
    data = build(root, max_bad_fraction=0.5, **options)
    assert [*data.rejected] == ["set/peg/episode_1"] and detail in data.rejected["set/peg/episode_1"]
    assert data.census["rejected"][reason]["count"] == 1 and "episode_1" in data.census["rejected"][reason]["first"]
    assert data.census["usable"] == 1 and set(data.dataset["episode"]) == {"set/peg/episode_0"}
    assert list((tmp_path / "series").glob("*.part")) == []


def test_sensors_shorter_than_the_window_and_wrong_actions(sound):
    with pytest.raises(DataError, match="2 sensor is shorter than the window.*window_s 60"):
        build(sound, window_s=60.0)
    with pytest.raises(DataError, match="2 wrong action dimension.*7 channels, expected 6"):
        build(sound, action_dim=6)
    assert len(build(sound, action_dim=7).dataset) == 26


def test_too_old_for_the_tolerance(sound):
    with pytest.raises(DataError, match="gap in a recording.*pictures of View1.*tolerance_s 0.02"):
        build(sound, tolerance_s=0.02)


def test_parts_without_leading_zeros_follow_one_another_by_number(tmp_path):
    folder = write_old(tmp_path / "set/peg/recv_all_1", recording())
    (states,) = folder.glob("robot_state_*.csv")
    header, *rows = states.read_text().splitlines()
    states.unlink()
    for number in range(12):
        part = rows[number * len(rows) // 12 : (number + 1) * len(rows) // 12]
        (folder / f"robot_state_{number}.csv").write_text("\n".join([header, *part]) + "\n")
    assert build(tmp_path / "set", layout="old").census["usable"] == 1


def test_linked_episodes_are_read_and_lost_ones_counted(sound, tmp_path):
    root = shutil.copytree(sound, tmp_path / "set")
    (root / "peg" / "episode_1").rename(tmp_path / "elsewhere")
    (root / "peg" / "episode_1").symlink_to(tmp_path / "elsewhere")
    (root / "peg" / "episode_2").symlink_to(tmp_path / "gone")
    (root / "more").symlink_to(root / "peg")
    data = build(root, max_bad_fraction=0.5)
    assert data.census["found"] == 3 and data.census["usable"] == 2 and data.census["passed_over"]["count"] == 1
    assert data.rejected["set/peg/episode_2"] == "episode cannot be read: a link to nothing"


def test_an_old_episode_whose_camera_lost_all_pictures_is_taken_out(tmp_path):
    for number in range(3):
        write_old(tmp_path / f"set/peg/recv_all_{number}", recording())
    for path in picture_paths_of(tmp_path / "set/peg/recv_all_1", "View1"):
        path.unlink()
    data = build(tmp_path / "set", layout="old", max_bad_fraction=0.5)
    assert "View1, which other episodes have" in data.rejected["set/peg/recv_all_1"] and data.census["usable"] == 2


def test_a_camera_behind_a_dead_link_does_not_vanish(sound, tmp_path):
    root = shutil.copytree(sound, tmp_path / "set")
    dead_link("images/View3")(root / "peg" / "episode_1")
    data = build(root, max_bad_fraction=0.5)
    assert data.rejected["set/peg/episode_1"].startswith("view cannot be read: View3")


def picture_paths_of(folder, view):
    return [path for path in folder.rglob("*.jpg") if path.parent.name == view]


@pytest.mark.parametrize("task", ["{task:>999999999}", "{task!r}", "{task.__class__}", "{other}", "{"])
def test_a_template_of_the_task_is_a_text_with_task_in_it(task):
    with pytest.raises(ValidationError, match="task"):
        EpisodeFoldersOptions(path="a", task=task)


def test_counting_passes_over_what_building_counts(sound, tmp_path):
    root = shutil.copytree(sound, tmp_path / "set")
    cut_first_picture(root / "peg" / "episode_1")
    options = EpisodeFoldersOptions(path=str(root), state=STATE, gripper="gripper")
    assert count_episode_folders(options) == len(build(root, max_bad_fraction=0.5).dataset) == 13

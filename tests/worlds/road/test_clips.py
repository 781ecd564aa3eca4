"""Generated road clips: real files that show what their facts say, drawn once, and options that mean what they say."""

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from pydantic import ValidationError

from hfvla.data.samples.video import parse_details, video_question_features
from hfvla.data.video import probe, read_frames, sample_times, segment_centres
from hfvla.errors import DataError
from hfvla.worlds.road import KINDS, ClipFrames, RoadOptions, build_road, count_road, draw_clip
from hfvla.worlds.road.builder import generate_questions
from hfvla.worlds.road.challenge import write_challenge
from hfvla.worlds.road.font import text_mask
from hfvla.worlds.road.holdout import SPLITS, VEHICLES

pytest.importorskip("av")

SECONDS, FPS = 6.0, 8


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Sixty questions on fifteen clips of each split, 96 px."""
    folder = str(tmp_path_factory.mktemp("road"))
    return {split: build_road(RoadOptions(size=60, split=split, folder=folder), seed=0) for split in ("train", "test")}


def clip_of(row):
    _, seed, index = row["group"].removeprefix("road/").split("_")
    return draw_clip(int(index), row["group"].removeprefix("road/").split("_")[0], int(seed))


def test_rows_have_the_shared_features_and_several_questions_a_clip(built):
    data = built["train"]
    assert data.dataset.features == video_question_features()
    assert data.census["found"] == data.census["usable"] == len(data.dataset) == 60 and data.census["clips"] == 15
    assert set(Counter(data.dataset["group"]).values()) == {4} and len(set(data.dataset["id"])) == 60
    assert set(data.dataset["language"]) == {"vi", "en"} and sum(data.census["kinds"].values()) == 60
    for row in data.dataset.to_list():
        assert 2 <= len(row["choices"]) <= 4 and len(set(row["choices"])) == len(row["choices"])
        assert 0 <= row["answer"] < len(row["choices"]) and row["source"] == "road"
        assert all(0 < time < row["duration"] for time in row["support_frames"])


def test_answers_are_the_clips_facts(built):
    english = {"red": "Red", "yellow": "Yellow", "green": "Green", "left": "Left", "right": "Right"}
    for row in built["train"].dataset.to_list():
        details, clip = parse_details(row["details"]), clip_of(row)
        moment = row["kind"] in {"light", "limit", "side", "town"}
        assert details["needs_moment"] == str(int(moment))
        answer = row["choices"][row["answer"]]
        if moment and row["language"] == "en":
            station = clip.stations[int(details["station"])]
            truth = getattr(station, row["kind"])
            assert answer == english.get(truth, truth) and station.vehicle in row["question"]
            assert abs(row["support_frames"][0] / SECONDS - station.middle) < 0.02
        elif row["kind"] == "oncoming":
            assert answer == str(sum(station.oncoming for station in clip.stations))


def test_clips_are_real_files_of_the_size_length_and_rate_asked_for(tmp_path):
    options = RoadOptions(size=1, folder=str(tmp_path), image_size=80, seconds=7.5, fps=10)
    row = build_road(options, seed=2).dataset[0]
    info = probe(row["video"])
    assert (info.width, info.height, info.frames, info.codec) == (80, 80, 75, "h264")
    assert info.duration_s == pytest.approx(7.5) and row["duration"] == 7.5


@pytest.mark.parametrize("split", ["train", "test"])
def test_the_file_shows_at_each_moment_what_was_drawn(built, split):
    row = built[split].dataset[0]
    frames = ClipFrames(clip_of(row), 96, SECONDS, FPS)
    shown = read_frames(row["video"], np.arange(48) / FPS).pixels.astype(int)
    drawn = np.stack(list(frames)).astype(int)
    assert np.abs(shown - drawn).mean() < 4
    assert np.abs(shown[:-12] - drawn[12:]).mean() > 10, "another moment looks different"


def reads(frame, towns):
    """The town whose letters fit best somewhere under the gantry."""
    strip = frame[len(frame) * 30 // 96 : len(frame) // 2].mean(-1)
    scores = {}
    for town in towns:
        ink = text_mask(town)
        ink = np.pad(ink, 1)
        windows = np.lib.stride_tricks.sliding_window_view(strip, ink.shape)
        centred = windows - windows.mean((-1, -2), keepdims=True)
        pattern = ink - ink.mean()
        fit = (centred * pattern).sum((-1, -2)) / (np.linalg.norm(centred, axis=(-1, -2)) + 1e-6)
        scores[town] = fit.max() / np.linalg.norm(pattern)
    return max(scores, key=scores.get)


@pytest.mark.parametrize("size", [64, 96])
def test_small_text_is_legible_at_its_moment_and_not_in_the_middle_of_the_clip(tmp_path, size):
    options = RoadOptions(size=40, split="test", folder=str(tmp_path), kinds=("town",), image_size=size)
    rows = build_road(options, seed=1).dataset.to_list()
    assert {parse_details(row["details"])["needs_text"] for row in rows} == {"1"}
    read = [reads(read_frames(row["video"], row["support_frames"]).pixels[0], row["choices"]) for row in rows]
    truth = [row["choices"][row["answer"]] for row in rows]
    assert np.mean([a == b for a, b in zip(read, truth, strict=True)]) > 0.95
    middle = [reads(read_frames(row["video"], [3.0]).pixels[0], row["choices"]) for row in rows]
    assert np.mean([a == b for a, b in zip(middle, truth, strict=True)]) < 0.5


def lit(frame):
    """Name of the lit lamp: pixels of its colour in clear weather, or ""."""
    colours = {"red": (245, 35, 30), "yellow": (250, 215, 30), "green": (30, 220, 80)}
    top = frame[:47].astype(int)
    found = {name: (np.abs(top - colour).max(-1) < 25).sum() for name, colour in colours.items()}
    best = max(found, key=found.get)
    return best if found[best] > 60 else ""


@pytest.mark.parametrize("seconds", [6.0, 12.0])
def test_each_station_is_seen_whole_around_its_support_frame_and_by_evenly_spread_frames(seconds):
    clips = [clip for clip in (draw_clip(index, "train", 0) for index in range(40)) if clip.weather == "day"][:6]
    for clip in clips:
        frames = ClipFrames(clip, 96, seconds, FPS)
        truth = [station.light for station in clip.stations]

        def at(times, frames=frames):
            return [lit(frames.draw(int(time * FPS + 1e-6))) for time in times]

        assert at(segment_centres(0, seconds, 4)) == truth
        assert at([seconds / 2, 0.0]) == ["", ""], "plain road between stations"
        for station, light in zip(clip.stations, truth, strict=True):
            assert set(at(sample_times(seconds, [station.support * seconds]))) == {light}


def test_a_second_build_draws_nothing_and_gives_the_same(tmp_path):
    options = RoadOptions(size=8, folder=str(tmp_path), image_size=64)
    first, again = (build_road(options, seed=0) for _ in range(2))
    assert (first.census["drawn"], again.census["drawn"]) == (2, 0)
    assert first.dataset.to_list() == again.dataset.to_list()
    larger = build_road(options.model_copy(update={"size": 12}), seed=0)
    assert larger.census["drawn"] == 1 and larger.dataset.to_list()[:8] == first.dataset.to_list()
    assert build_road(options.model_copy(update={"languages": ("vi",)}), seed=0).census["drawn"] == 0


def test_the_same_options_give_the_same_bytes_and_others_get_files_of_their_own(tmp_path):
    def files(folder, **changes):
        data = build_road(RoadOptions(**{"size": 1, "folder": str(tmp_path / folder), "image_size": 64, **changes}))
        path = data.dataset[0]["video"]
        with open(path, "rb") as file:
            return path, file.read()

    (one, first), (_, again) = files("a"), files("b")
    assert first == again
    for changes in ({"image_size": 80}, {"fps": 10}, {"seconds": 8.0}, {"split": "test"}, {"seed": 1}):
        path, content = files("a", **changes)
        assert path != one and content != first


def test_a_damaged_clip_is_drawn_again_and_said(tmp_path, caplog):
    options = RoadOptions(size=4, folder=str(tmp_path), image_size=64)
    path = build_road(options).dataset[0]["video"]
    with open(path, "r+b") as file:
        whole = file.read()
        file.truncate(len(whole) // 2)
    assert build_road(options).census["drawn"] == 1
    with open(path, "rb") as file:
        assert file.read() == whole
    assert "drawing a damaged clip again" in caplog.text


def test_an_interrupted_clip_leaves_no_file(tmp_path, monkeypatch):
    def stop(self, number):
        if number == 5:
            raise KeyboardInterrupt
        return np.zeros((64, 64, 3), np.uint8)

    monkeypatch.setattr(ClipFrames, "draw", stop)
    with pytest.raises(KeyboardInterrupt):
        build_road(RoadOptions(size=1, folder=str(tmp_path), image_size=64))
    assert not list(tmp_path.rglob("*.mp4"))


def test_without_a_folder_clips_lie_beside_the_hubs_cache(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path))
    row = build_road(RoadOptions(size=1, image_size=64)).dataset[0]
    assert row["video"].startswith(str(tmp_path / "hfvla" / "road"))


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"file/x.*Name another folder"):
        build_road(RoadOptions(size=1, folder=str(tmp_path / "file" / "x")))


def test_size_counts_questions_and_few_kinds_need_more_clips(tmp_path):
    options = RoadOptions(size=5, folder=str(tmp_path), image_size=64, kinds=("weather", "first"), languages=("en",))
    data = build_road(options)
    assert len(data.dataset) == 5 == count_road(options) and data.census["clips"] == 3
    assert set(data.dataset["kind"]) == {"weather", "first"} and set(data.dataset["language"]) == {"en"}


def test_the_test_split_has_looks_places_and_names_of_its_own():
    train, test = SPLITS["train"], SPLITS["test"]
    for part in ("palettes", "layouts", "bodies", "towns"):
        assert set(getattr(train, part)).isdisjoint(getattr(test, part)), part
    for split, parts in SPLITS.items():
        for clip in (draw_clip(index, split, 0) for index in range(50)):
            assert clip.palette in parts.palettes and clip.layout in parts.layouts
            assert {station.town for station in clip.stations} <= set(parts.towns)
            assert len({station.vehicle for station in clip.stations} & set(VEHICLES)) == 4


def test_extra_support_frames_stand_beside_the_right_one():
    """The same questions and answers; only what is shown differs."""
    asked = {
        extra: generate_questions(RoadOptions(size=80, extra_support=extra), 0, Path("clips"))[1] for extra in (0, 2)
    }
    for plain, more in zip(asked[0], asked[2], strict=True):
        assert (plain.question, plain.choices, plain.answer) == (more.question, more.choices, more.answer)
        count = len(plain.support_frames)
        assert set(plain.support_frames) <= set(more.support_frames)
        assert len(more.support_frames) == min(count + 2, 4)
        assert list(more.support_frames) == sorted(more.support_frames)
    moments = [question for question in asked[2] if question.details["needs_moment"] == "1"]
    places = Counter(
        question.support_frames.index(plain.support_frames[0])
        for plain, question in zip(asked[0], asked[2], strict=True)
        if question in moments
    )
    assert set(places) == {0, 1, 2}  # which of them it is, the place does not tell


def test_the_order_of_crossing_is_asked_of_the_whole_clip():
    questions = generate_questions(RoadOptions(size=60, kinds=("order",), languages=("en",)), 0, Path("clips"))[1]
    for question in questions:
        clip = clip_of({"group": question.group})
        crossing = next(place for place, each in enumerate(clip.stations) if each.vehicle in question.question)
        assert question.choices[question.answer] == ("First", "Second", "Third", "Fourth")[crossing]
        assert len(question.support_frames) == 4 and question.details["needs_moment"] == "0"


def test_challenge_files_are_drawn_anew_for_other_options(tmp_path):
    write_challenge(tmp_path, RoadOptions(size=1, image_size=64), test_size=1)
    files = write_challenge(tmp_path, RoadOptions(size=1, image_size=80), test_size=1)
    record = json.loads(files.train.read_text(encoding="utf-8"))["data"][0]
    assert set(record) == {"id", "question", "choices", "answer", "support_frames", "video_path"}
    assert record["answer"] in record["choices"] and record["choices"][0].startswith("A. ")
    assert probe(tmp_path / record["video_path"]).width == 80


@pytest.mark.parametrize(
    "bad",
    [{"sizes": 3}, {"size": 0}, {"split": "dev"}, {"languages": []}, {"languages": ["fr"]}, {"kinds": ["speed"]},
     {"image_size": 65}, {"image_size": 32}, {"seconds": 3.0}, {"fps": 4}, {"extra_support": 4}],
)  # fmt: skip
def test_bad_options_are_refused(bad):
    with pytest.raises(ValidationError, match=next(iter(bad))):
        RoadOptions(**bad)


def test_every_kind_is_asked(built):
    asked = set(built["train"].census["kinds"]) | set(built["test"].census["kinds"])
    assert asked == set(KINDS)

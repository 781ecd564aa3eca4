"""What the generated questions give away: nothing by text, nothing by another moment, all by the right one."""

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.stats import chisquare
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression

from hfvla.worlds.road import MOMENT_KINDS, ClipFrames, RoadOptions, draw_clip
from hfvla.worlds.road.builder import generate_questions

SECONDS, FPS, SIDE = 6.0, 8, 24
TRAIN_CLIPS, TEST_CLIPS = 220, 100
CHANCE = {"light": 1 / 3, "limit": 1 / 4, "side": 1 / 2, "town": 1 / 10}


@cache
def questions(split="train", size=4000):
    return generate_questions(RoadOptions(size=size, split=split), 0, Path("clips"))[1]


@pytest.mark.parametrize("split", ["train", "test"])
def test_letters_and_values_are_uniform(split):
    groups = {}
    for question in questions(split):
        groups.setdefault(("letter", len(question.choices)), []).append(question.answer)
        if question.kind not in {"first", "last"}:  # the values of those are the vehicles of the clip
            key = ("value", question.kind, question.language)
            groups.setdefault(key, []).append(question.choices[question.answer])
    assert {len(question.choices) for question in questions(split)} == {2, 3, 4}
    for key, values in groups.items():
        counts = Counter(values)
        assert chisquare(list(counts.values())).pvalue > 1e-3, (key, counts)


def test_every_choice_of_a_kind_is_wrong_as_often_as_it_is_right():
    for kind in ("light", "limit", "side", "weather", "town"):
        asked = [question for question in questions() if question.kind == kind and question.language == "en"]
        offered = Counter(choice for question in asked for choice in question.choices)
        right = Counter(question.choices[question.answer] for question in asked)
        shares = np.array([right[choice] / offered[choice] for choice in offered])
        assert np.abs(shares - 1 / len(asked[0].choices)).max() < 0.15, (kind, shares)


def test_question_and_choices_alone_do_not_tell_the_answer():
    def text(question):
        lettered = [f"{letter}={choice} {letter}" for letter, choice in zip("ABCD", question.choices, strict=False)]
        return " ".join([question.question, *lettered])

    train, test = questions(), questions("test", 2000)
    words = CountVectorizer(ngram_range=(1, 2), token_pattern=r"\S+", min_df=5)
    model = LogisticRegression(C=0.05, max_iter=100)
    model.fit(words.fit_transform(map(text, train)), [question.answer for question in train])
    chance = np.mean([1 / len(question.choices) for question in test])
    right = np.mean(model.predict(words.transform(map(text, test))) == [question.answer for question in test])
    assert right < chance + 0.04, (right, chance)


def features(frame):
    return np.asarray(Image.fromarray(frame).resize((SIDE, SIDE), Image.Resampling.BOX), np.float32).ravel() / 255


@cache
def pictures(split, first, clips):
    """Per station: its support frame, that of another station, the clip's middle frame; and the station's facts."""
    right, other, middle, facts = [], [], [], []
    for index in range(first, first + clips):
        clip = draw_clip(index, split, 0)
        frames = ClipFrames(clip, 64, SECONDS, FPS)
        shown = [features(frames.draw(int(station.support * SECONDS * FPS))) for station in clip.stations]
        between = features(frames.draw(int(SECONDS * FPS / 2)))
        for number, station in enumerate(clip.stations):
            right.append(shown[number])
            other.append(shown[(number + 1 + index % 3) % 4])
            middle.append(between)
            facts.append(station)
    return {"right": np.stack(right), "other": np.stack(other), "middle": np.stack(middle)}, facts


def score(kind, frame, split="train"):
    """Accuracy of a linear model on small pictures, on clips it has not seen."""
    train, train_facts = pictures("train", 0, TRAIN_CLIPS)
    test, test_facts = pictures(split, 10_000, TEST_CLIPS)
    model = LogisticRegression(C=0.3 if frame == "right" else 0.01, max_iter=50, tol=1e-3)
    model.fit(train[frame], [getattr(station, kind) for station in train_facts])
    return model.score(test[frame], [getattr(station, kind) for station in test_facts])


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("kind", ["light", "side", "vehicle"])
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_the_support_frame_is_easy_to_read(kind, split):
    assert score(kind, "right", split) > 0.95


@pytest.mark.parametrize("frame", ["other", "middle"])
@pytest.mark.parametrize("kind", ["light", "limit", "side"])
@pytest.mark.filterwarnings("ignore:lbfgs failed to converge")
def test_another_moment_of_the_clip_says_nothing(kind, frame):
    assert score(kind, frame) < CHANCE[kind] + 0.08


def test_what_a_station_shows_is_independent_of_the_other_stations():
    clips = [draw_clip(index, "train", 7) for index in range(4000)]
    for kind in MOMENT_KINDS:
        same = np.mean([getattr(clip.stations[0], kind) == getattr(clip.stations[2], kind) for clip in clips])
        assert same == pytest.approx(CHANCE[kind], abs=0.035)


def test_the_number_of_support_frames_does_not_tell_a_count():
    counts = {len(question.support_frames) for question in questions() if question.kind == "oncoming"}
    assert counts == {2}


def test_file_names_and_details_of_a_row_hold_no_answer():
    for question in questions()[:400]:
        assert question.choices[question.answer].lower() not in Path(question.video).stem.split("_")
        assert set(question.details) == {"needs_moment", "needs_text", "scene", "station"}

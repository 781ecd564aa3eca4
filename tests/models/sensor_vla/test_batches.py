"""Rows to batches: the right moment of each clock, missing views and sensors, augmentation, fitted statistics."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from datasets import Dataset

from hfvla.data.rows.epoch import AUGMENTATION_SEED
from hfvla.data.rows.splits import grouped_split
from hfvla.data.signals.normalize import Normalizer
from hfvla.errors import CheckpointError, DataError
from hfvla.models.sensor_vla import FAMILY
from hfvla.models.sensor_vla.batches import draw_pictures, fit_normalizers, seen_views
from hfvla.worlds.reaching import draw_episode

from .conftest import settings


def drawn(row, steps=4):
    """Return the step that a row stands for, drawn anew."""
    episode = int(row["episode"].rpartition("_")[2])
    return list(draw_episode(0, episode, 32, steps)[1])[row["index"]]


def edited(rows, **columns):
    """Return rows with some columns replaced, by functions of the row."""
    changed = [{**row, **{name: change(row) for name, change in columns.items()}} for row in rows]
    return Dataset.from_list(changed, features=rows.features)


# ---- clocks ---------------------------------------------------------------------------------------------------------


def test_pictures_and_windows_are_those_of_the_steps_time(model, processor, rows, collate):
    """Cameras run at 20 Hz and the sensor at 400 Hz: a row number of one says nothing about the other."""
    pictures = draw_pictures(processor, model.config, rows)
    batch = collate(model, processor, rows)
    normalizer = processor.normalizer("sensor")
    for number, row in enumerate(rows):
        step = drawn(row)
        assert all(np.array_equal(pictures[number][view], step.views[view]) for view in ("front", "wrist")), row["id"]
        np.testing.assert_allclose(row["state"], step.state)
        np.testing.assert_allclose(row["actions"][0], step.action)
        if row["sensor"]:
            measured = batch["sensor_mask"][number]
            found = normalizer.invert(batch["sensor"][number].double().numpy())[measured]
            np.testing.assert_allclose(found, step.sensor[-int(measured.sum()) :], rtol=1e-4, atol=1e-5)
            assert measured[-1] and int(measured.sum()) == (1 if row["index"] == 0 else 16)  # the series begins at 0 s
    assert sum(bool(row["sensor"]) for row in rows) == 4
    assert batch["sensor_present"].tolist() == [bool(row["sensor"]) for row in rows]


def test_a_recording_of_a_window_that_ends_later_is_refused(model, processor, rows, collate):
    def earlier(row):
        return row["sensor"] and {**row["sensor"], "end_s": row["sensor"]["end_s"] - 0.01}

    later = edited(rows, sensor=earlier)
    with pytest.raises(DataError, match="the sensor window reaches past the step"):
        collate(model, processor, later)


def test_splits_are_by_episode(rows):
    """Windows of neighbouring steps overlap: a split of steps would test on what was trained."""
    assert rows["group"] == rows["episode"] and len(set(rows["group"])) == 2
    train, held_out = grouped_split(rows["group"], 0.5, seed=0)
    assert {rows["episode"][index] for index in train}.isdisjoint({rows["episode"][index] for index in held_out})
    assert len(train) == len(held_out) == 4


# ---- mixed batches --------------------------------------------------------------------------------------------------


def test_one_batch_mixes_sensors_and_views(build, rows, collate):
    """A sample is the same whatever stands beside it in the batch."""
    model, processor = build(fusion="cross_attention")
    processor = deepcopy(processor)
    processor.required_views = []
    chosen = ("front", "wrist")
    mixed = edited(
        rows, views=lambda row: [view for view in row["views"] if view["name"] in chosen[: 1 + row["index"] % 2]]
    )
    batch = collate(model, processor, mixed)
    assert set(batch["sensor_present"].tolist()) == {True, False} and len(batch["image_grid_thw"]) == 12
    with torch.no_grad():
        together = model(**batch)
        for number in range(len(mixed)):
            alone = model(**collate(model, processor, [mixed[number]]))
            torch.testing.assert_close(
                alone.predicted_actions[0], together.predicted_actions[number], atol=1e-5, rtol=1e-4
            )
    assert together.predicted_actions.isfinite().all()


def test_a_row_without_a_required_view_is_refused(model, processor, rows, collate):
    one_eyed = edited(rows, views=lambda row: row["views"][:1])
    with pytest.raises(DataError, match="a view is missing that every training row had.*expected wrist"):
        collate(model, processor, one_eyed)


def test_a_view_of_no_concern_is_not_read(model, processor, rows, collate):
    more = edited(rows, views=lambda row: [*row["views"], {**row["views"][0], "name": "ceiling", "path": "/nowhere"}])
    one, two = collate(model, processor, rows), collate(model, processor, more)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_confidence_comes_from_the_details(model, processor, rows, collate):
    told = edited(rows, details=lambda row: "by=hand;confidence=0.25" if row["index"] == 0 else "")
    expected = [0.25 if row["index"] == 0 else 1.0 for row in rows]
    assert collate(model, processor, told)["confidence"].tolist() == expected
    for wrong in ("-1", "high", "nan"):
        with pytest.raises(DataError, match=f"confidence of a sample; got '?{wrong}"):
            collate(model, processor, edited(rows, details=lambda row, wrong=wrong: f"confidence={wrong}"))


def test_processor_and_config_must_agree(model, processor):
    other = deepcopy(processor)
    other.sensor = {**other.sensor, "points": 8}
    with pytest.raises(CheckpointError, match="processor and config disagree about sensor"):
        FAMILY.load("collator")(other, model.config)


# ---- augmentation ---------------------------------------------------------------------------------------------------


def seeded(rows, seed):
    return [{**row, AUGMENTATION_SEED: seed + number} for number, row in enumerate(rows)]


def test_view_dropout_keeps_one_and_repeats(build, rows):
    model, processor = build(view_dropout=0.5)
    assert processor.required_views == []
    rounds = [draw_pictures(processor, model.config, seeded(rows, 100 * number)) for number in range(40)]
    kept = [tuple(sorted(found)) for pictures in rounds for found in pictures]
    assert set(kept) == {("front",), ("wrist",), ("front", "wrist")}
    # Both stay with 1/4, one of them with 1/2, and of none (1/4) one is drawn again.
    assert 0.18 < kept.count(("front", "wrist")) / len(kept) < 0.32
    assert 0.29 < kept.count(("front",)) / len(kept) < 0.46
    again = draw_pictures(processor, model.config, seeded(rows, 0))
    assert [sorted(found) for found in again] == [sorted(found) for found in rounds[0]]
    plain = draw_pictures(processor, model.config, rows)
    assert all(len(found) == 2 for found in plain)  # a row without a seed is not augmented


def test_image_shift_moves_pictures_and_repeats(build, rows):
    model, processor = build(image_shift=3)
    plain = draw_pictures(processor, model.config, rows)
    one, two, three = (draw_pictures(processor, model.config, seeded(rows, seed)) for seed in (5, 5, 500))
    places, differ = set(), 0
    for before, after, same, other in zip(plain, one, two, three, strict=True):
        for view in before:
            assert np.array_equal(after[view], same[view]) and after[view].shape == before[view].shape
            padded = np.pad(before[view], ((3, 3), (3, 3), (0, 0)), mode="edge")
            found = {
                (down, right)
                for down in range(7)
                for right in range(7)
                if np.array_equal(padded[down : down + 32, right : right + 32], after[view])
            }
            assert found, "a shifted picture is no crop of the padded one"
            places |= found
        differ += any(not np.array_equal(after[view], other[view]) for view in before)
    assert len(places) > 5 and differ > 4
    assert FAMILY.feature_cuts["backbone"].load("augments")(type("C", (), {"config": model.config}))


# ---- statistics -----------------------------------------------------------------------------------------------------


def test_statistics_are_those_of_valid_training_actions(model, processor, rows):
    statistics = Normalizer.from_dict(processor.normalizers["action"]).statistics
    valid = np.concatenate([np.asarray(row["actions"])[np.asarray(row["action_mask"])] for row in rows])
    assert statistics.count == len(valid) == 2 * (4 + 3 + 2 + 1)
    np.testing.assert_allclose(statistics.mean, valid.mean(0), atol=1e-7)
    np.testing.assert_allclose(statistics.low, np.quantile(valid, 0.01, axis=0), atol=1e-7)
    states = np.asarray(rows["state"])
    np.testing.assert_allclose(Normalizer.from_dict(processor.normalizers["state"]).statistics.std, states.std(0))
    samples = np.concatenate([drawn(row).sensor[-row["sensor"]["count"] :] for row in rows if row["sensor"]])
    found = Normalizer.from_dict(processor.normalizers["sensor"]).statistics
    assert found.count == len(samples) == 1 + 3 * 16
    np.testing.assert_allclose(found.mean, samples.mean(0), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("action", [{"horizon": 8}, {"dim": 7}])
def test_another_horizon_or_dimension_is_refused_with_the_fix(rows, action):
    with pytest.raises(DataError, match=r"another size than the model's.*got \(4, 4\).*Set model.config.action"):
        FAMILY.load("initialise")({"config": settings(action=action), "options": {}}, rows, seed=0)


def test_other_data_than_the_config_says_is_refused(rows):
    initialise = FAMILY.load("initialise")
    without = edited(rows, sensor=lambda row: None)
    with pytest.raises(DataError, match="the model has a sensor, and no training row has one.*sensor: null"):
        initialise({"config": settings(), "options": {}}, without, seed=0)
    with pytest.raises(DataError, match=r"state: wrong shape; got \(8, 4\); expected '?\[N, 7\]"):
        initialise({"config": settings(state_dim=7), "options": {}}, rows, seed=0)
    with pytest.raises(DataError, match="no training row has a view of the config; got 'left'"):
        initialise({"config": settings(views=["front", "left"]), "options": {}}, rows, seed=0)
    channels = settings(sensor={"channels": 5})
    with pytest.raises(DataError, match=r"sensor: wrong shape.*6\)"):
        initialise({"config": channels, "options": {}}, rows, seed=0)


def test_bad_numbers_in_training_rows_are_named(model, processor, rows):
    def broken(row):
        return [[float("nan")] * 4, *row["actions"][1:]] if row["index"] == 1 else row["actions"]

    with pytest.raises(DataError, match="actions: 4 values are not finite|actions: 8 values are not finite"):
        fit_normalizers(processor, model.config, edited(rows, actions=broken))
    with pytest.raises(DataError, match="there are no training rows"):
        fit_normalizers(processor, model.config, rows.select([]))


def test_required_views_are_those_of_every_row(model, rows):
    first = rows[0]["id"]
    some = edited(rows, views=lambda row: row["views"][:1] if row["id"] == first else row["views"])
    assert seen_views(rows, model.config) == ["front", "wrist"] and seen_views(some, model.config) == ["front"]

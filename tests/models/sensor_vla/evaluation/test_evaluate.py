"""Open loop: scores and baselines by hand, ablations that change the input, rows that cannot be read."""

from copy import deepcopy

import numpy as np
import pytest
import torch
from datasets import Dataset

from hfvla.errors import DataError
from hfvla.evaluation.plots import HTML_KINDS, render
from hfvla.family import EvaluationContext
from hfvla.models.sensor_vla import FAMILY
from hfvla.models.sensor_vla.build import compute_metrics
from hfvla.models.sensor_vla.evaluation.ablation import DonorWindows, donor_rows
from hfvla.models.sensor_vla.evaluation.predicting import ABLATIONS
from hfvla.worlds.reaching import ReachingOptions, build_reaching

from ..scripted import TellingModel

BATCHES = 3  # of 12 rows


@pytest.fixture(scope="module")
def episodes():
    """Three episodes of four steps, in no order; the first two have a sensor."""
    rows = build_reaching(ReachingOptions(episodes=3, steps=4, with_sensor=0.7), seed=1).dataset
    return rows.shuffle(seed=0)


@pytest.fixture(scope="module")
def telling(build):
    """A model that tells what it sees, and a processor with the normalisation of `build`."""
    real, processor = build(action={"names": ["dx_m", "dy_m", "dz_m", "grip"]})
    return real.config, processor


def evaluate(telling, rows, **context):
    model = TellingModel(telling[0])
    settings = {"batch_size": 4, "bootstrap_samples": 20, **context}
    return FAMILY.load("evaluate")(model, telling[1], rows, EvaluationContext(**settings)), model


def edited(rows, **columns):
    changed = [{**row, **{name: change(row) for name, change in columns.items()}} for row in rows]
    return Dataset.from_list(changed, features=rows.features)


def error(predicted, rows):
    """Mean squared error over valid steps and channels."""
    squares = []
    for chunk, row in zip(predicted, rows, strict=True):
        valid = np.asarray(row["action_mask"])
        squares.append(np.square(np.asarray(chunk) - np.asarray(row["actions"]))[valid].reshape(-1))
    return float(np.concatenate(squares).mean())


def test_scores_are_in_the_robots_units(telling, episodes):
    result, _ = evaluate(telling, episodes)
    predicted = [row["prediction"] for row in result.rows]
    normalizer = telling[1].normalizer("action")
    state = telling[1].encode_state([np.asarray(row["state"]) for row in episodes]).numpy()
    for chunk, row, own in zip(predicted, episodes, state, strict=True):
        assert chunk[0][0] == pytest.approx(own[0] * normalizer.scale[0] + normalizer.offset[0], rel=1e-5), row["id"]
    assert result.metrics["mse"] == pytest.approx(error(predicted, episodes))
    first = [
        np.square(np.subtract(chunk[0], row["actions"][0])).mean()
        for chunk, row in zip(predicted, episodes, strict=True)
    ]
    assert result.metrics["first_mse"] == pytest.approx(np.mean(first))
    assert result.metrics["mse/grip"] == 0 and result.metrics["n"] == 12 and result.metrics["failures"] == 0
    each = [row["scores"]["mse"] for row in result.rows]
    assert np.concatenate(each).mean() == pytest.approx(result.metrics["mse"])
    low, high = result.intervals["mse"]
    assert low <= result.metrics["mse"] <= high
    assert result.metrics["data/share_with_sensor"] == pytest.approx(2 / 3)


def test_rows_with_a_sensor_and_without_are_also_scored_apart(telling, episodes):
    result, _ = evaluate(telling, episodes)
    having = [bool(row["sensor"]) for row in episodes]
    predicted = [row["prediction"] for row in result.rows]
    for name, wanted in (("rows_with_sensor", True), ("rows_without_sensor", False)):
        rows = [row for row, has in zip(episodes, having, strict=True) if has is wanted]
        chunks = [chunk for chunk, has in zip(predicted, having, strict=True) if has is wanted]
        assert result.metrics[f"{name}/n"] == len(rows) == (8 if wanted else 4)
        assert result.metrics[f"{name}/mse"] == pytest.approx(error(chunks, rows))
    assert result.metrics["rows_with_sensor/mse"] != result.metrics["rows_without_sensor/mse"]
    all_have, _ = evaluate(telling, episodes.filter(lambda row: bool(row["sensor"])))
    assert not [name for name in all_have.metrics if name.startswith("rows_with")]


def test_baselines_by_hand(telling, episodes):
    """'Hold last' repeats the action before the chunk: not the chunk's own first action, which it must not know."""
    result, _ = evaluate(telling, episodes)
    mean = np.asarray(telling[1].normalizer("action").statistics.mean)
    done = {(row["episode"], row["index"]): row["actions"][0] for row in episodes}
    held = [[done.get((row["episode"], row["index"] - 1), mean)] * 4 for row in episodes]
    assert sum(row["index"] == 0 for row in episodes) == 3
    assert result.baselines["hold_last"]["mse"] == pytest.approx(error(held, episodes))
    assert result.baselines["mean_action"]["mse"] == pytest.approx(error([[mean] * 4] * 12, episodes))
    for name, scores in result.baselines.items():
        assert result.metrics[f"skill/{name}"] == pytest.approx(1 - result.metrics["mse"] / scores["mse"])
    assert any("in the 3 rows without one" in note for note in result.notes)
    later = episodes.filter(lambda row: row["index"] % 2 == 1, load_from_cache_file=False)
    thinned, _ = evaluate(telling, later)
    held = [[done[row["episode"], row["index"] - 1]] * 4 for row in later]
    assert thinned.baselines["hold_last"]["mse"] == pytest.approx(error(held, later))
    assert any("in the 0 rows without one" in note for note in thinned.notes)


def test_nothing_moves(telling, episodes):
    """No skill is defined against a baseline without error; the evaluation does not end over it."""
    processor = deepcopy(telling[1])
    processor.normalizers["action"]["statistics"]["mean"] = [0.5] * 4
    processor._normalizers = {}
    result, _ = evaluate((telling[0], processor), edited(
        episodes, actions=lambda row: [[0.5] * 4] * 4, previous_action=lambda row: [0.5] * 4 if row["index"] else []
    ))  # fmt: skip
    assert result.baselines["mean_action"]["mse"] == result.baselines["hold_last"]["mse"] == 0
    assert not [name for name in result.metrics if name.startswith("skill")] and result.metrics["mse"] > 0


def test_targets_never_reach_the_model(telling, episodes, build):
    _, model = evaluate(telling, episodes)
    assert model.shown and not any({"actions", "action_mask", "confidence"} & set(batch) for batch in model.shown)
    shifted = edited(episodes, actions=lambda row: (np.asarray(row["actions"]) * -3 + 0.5).tolist())
    real, processor = build(expert={"kind": "flow"})
    context = EvaluationContext(batch_size=4, bootstrap_samples=5, ablations=False)
    found = [FAMILY.load("evaluate")(deepcopy(real), processor, given, context) for given in (episodes, shifted)]
    assert [row["prediction"] for row in found[0].rows] == [row["prediction"] for row in found[1].rows]
    assert found[0].metrics["mse"] != found[1].metrics["mse"]


def test_ablations_change_what_the_model_is_shown(telling, episodes):
    result, model = evaluate(telling, episodes)
    kinds = ["as it is", *ABLATIONS]
    assert set(result.ablations) == set(ABLATIONS) and len(model.shown) == BATCHES * len(kinds)

    def shown(kind, name):
        start = BATCHES * kinds.index(kind)
        return torch.cat([batch[name] for batch in model.shown[start : start + BATCHES]])

    whole = {name: shown("as it is", name) for name in ("sensor_present", "sensor", "state", "pixel_values")}
    present = whole["sensor_present"]
    changes = {
        "without_sensor": {"sensor_present"},
        "shuffled_sensor": {"sensor"},
        "blank_views": {"pixel_values"},
        "without_state": {"state"},
    }
    for kind, changed in changes.items():
        assert {name for name in whole if not torch.equal(shown(kind, name), whole[name])} == changed, kind
    assert not shown("without_sensor", "sensor_present").any() and present.any()
    assert not shown("without_state", "state").any()  # normalised: 0 is the training rows' mean
    pixels = shown("blank_views", "pixel_values")
    assert pixels.reshape(len(pixels), 3, -1).std(2).max() < 1e-6  # one value a colour
    assert not torch.equal(shown("shuffled_sensor", "sensor")[present], whole["sensor"][present])
    assert all(result.ablations[name]["mse"] != result.metrics["mse"] for name in changes)
    plain, model = evaluate(telling, episodes, ablations=False)
    assert not plain.ablations and len(model.shown) == BATCHES


def test_a_shuffled_window_is_of_another_episode(telling):
    """Steps of one episode have overlapping windows: shuffled among them, the sensor would still tell its own."""
    options = ReachingOptions(episodes=4, steps=6, with_sensor=0.75)
    rows = build_reaching(options, seed=1).dataset.shuffle(seed=3)
    donors = donor_rows(rows, seed=0)
    having = [number for number, sensor in enumerate(rows["sensor"]) if sensor]
    assert sorted(donors) == having and len(having) == 18 and len(set(donors.values())) == 18
    for one, other in donors.items():
        assert rows[one]["episode"] != rows[other]["episode"] and rows[one]["index"] == rows[other]["index"]
    assert donors == donor_rows(rows, seed=0) and any(donors != donor_rows(rows, seed) for seed in range(1, 5))
    bad = having[4]
    found = donor_rows(rows, 0, {bad})
    assert bad not in found and bad not in found.values()
    kept = {one: other for one, other in donors.items() if bad not in (one, other)}
    assert {one: found[one] for one in kept} == kept  # the others' are as before
    alone = rows.filter(lambda row: row["episode"] == rows[having[0]]["episode"], load_from_cache_file=False)
    assert donor_rows(alone, 0) == {}
    result, _ = evaluate(telling, alone)
    assert "shuffled_sensor" not in result.ablations and "without_sensor" in result.ablations


def test_windows_of_an_episode_at_a_time(telling, episodes):
    donors = DonorWindows(telling[1], episodes)
    chosen = set()
    for seed in range(8):
        donors.choose(np.random.default_rng(seed))
        window = donors.at(0.17)  # steps are at 0, 0.05, 0.1 and 0.15 s
        assert window.times_s[-1] == pytest.approx(0.17) and len(window.times_s) == 16
        late, early = donors.at(9.0), donors.at(0.0)
        assert np.array_equal(late.values, window.values) and late.times_s[-1] == pytest.approx(9.0)
        assert len(early.times_s) == 1 and not np.array_equal(early.values[-1], window.values[-1])
        chosen.add(window.values.tobytes())
    assert len(chosen) == 2  # both episodes with a sensor
    with pytest.raises(DataError, match="no row has a sensor"):
        DonorWindows(telling[1], edited(episodes, sensor=lambda row: None))


def test_a_model_without_a_sensor_has_no_sensor_ablation(build, episodes):
    real, processor = build(sensor=None, state_dim=0)
    context = EvaluationContext(bootstrap_samples=5)
    result = FAMILY.load("evaluate")(deepcopy(real), processor, episodes, context)
    assert set(result.ablations) == {"blank_views"}


def broken_views(row, which):
    gone = [{**view, "path": "/nowhere/gone.parquet"} for view in row["views"]]
    return gone if row["id"] in which else row["views"]


def test_a_row_that_cannot_be_read_is_counted_and_named(telling, episodes):
    bad = episodes[2]["id"]
    damaged = edited(episodes, views=lambda row: broken_views(row, {bad}))
    with pytest.raises(DataError, match=rf"{bad}: 1 of 12 rows cannot be read; .*gone.parquet.*at most 1.0%"):
        evaluate(telling, damaged)
    result, _ = evaluate(telling, damaged, max_bad_fraction=0.2)
    assert result.metrics["n"] == 11 and result.metrics["failures"] == 1
    assert [row["id"] for row in result.rows if row["prediction"] is None] == [bad]
    assert any(bad in note and "gone.parquet" in note for note in result.notes)
    whole, _ = evaluate(telling, episodes)
    kept = [(one, two) for one, two in zip(whole.rows, result.rows, strict=True) if two["prediction"]]
    assert len(kept) == 11 and all(np.allclose(np.array(one["prediction"])[:, :3], np.array(two["prediction"])[:, :3])
                                  for one, two in kept)  # fmt: skip
    readable = [row for row in episodes if row["id"] != bad]
    assert result.metrics["mse"] == pytest.approx(error([two["prediction"] for _, two in kept], readable))


def test_a_broken_window_is_given_to_no_other_row(telling, episodes):
    bad = next(row["id"] for row in episodes if row["sensor"])
    damaged = edited(
        episodes, sensor=lambda row: {**row["sensor"], "path": "/gone.parquet"} if row["id"] == bad else row["sensor"]
    )
    result, _ = evaluate(telling, damaged, max_bad_fraction=0.2)
    assert result.metrics["failures"] == 1
    assert all(np.isfinite(scores["mse"]) for scores in result.ablations.values())


def test_nothing_to_evaluate(telling, episodes):
    with pytest.raises(DataError, match="there is nothing to evaluate"):
        evaluate(telling, episodes.select([]))


def test_options_reach_the_expert(telling, episodes):
    assert evaluate(telling, episodes)[1].steps is None
    assert evaluate(telling, episodes, options={"denoising_steps": 3})[1].steps == 3


def test_every_figure_can_be_drawn(telling, episodes):
    result, _ = evaluate(telling, episodes)
    names = {"trajectory", "horizon", "step_errors", "channel_errors", "frames"}
    assert {figure.name for figure in result.figures} == names
    assert all(render(figure) for figure in result.figures if figure.kind not in HTML_KINDS)
    trajectory = next(figure for figure in result.figures if figure.name == "trajectory")
    rows = next(figure for figure in result.figures if figure.name == "channel_errors").data["rows"]
    assert {row[0] for row in rows} == {"dx_m", "dy_m", "dz_m", "grip"}
    worst = [row[3] for row in rows]
    assert worst == sorted(worst, reverse=True)
    for panel, row in zip(trajectory.data["panels"], rows, strict=True):  # the same order
        assert panel["title"] == f"{row[0]}: error {row[1]:.3g}"
    frames = next(figure for figure in result.figures if figure.name == "frames")
    assert len(frames.data["examples"]) == 6 and all(example["image"] for example in frames.data["examples"])
    times_s = trajectory.data["panels"][0]["series"]["done"]["x"]
    assert times_s == sorted(times_s) and len(times_s) == 4  # one episode, in its order


def test_quick_metrics_by_hand():
    class Prediction:
        predictions = np.array([[[1.0, 0.0], [5.0, 5.0]], [[0.0, 2.0], [0.0, 0.0]]])
        label_ids = (np.zeros((2, 2, 2)), np.array([[True, False], [True, True]]))

    # Errors by valid step: (1 + 0) / 2, (0 + 4) / 2, 0.
    assert compute_metrics(Prediction, None) == {"action_mse": pytest.approx(2.5 / 3), "first_action_mse": 1.25}

"""The policy of a closed loop, and its evaluation on a simulator that only writes down what it is asked."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from datasets import Dataset

from hfvla.data.samples.actions import SensorRef
from hfvla.data.signals.sensor_loader import SensorLoader, SensorSamples
from hfvla.errors import DataError
from hfvla.evaluation.plots import render
from hfvla.family import EvaluationContext, EvaluationResult
from hfvla.models.sensor_vla import FAMILY
from hfvla.models.sensor_vla.evaluation import closed_loop
from hfvla.models.sensor_vla.evaluation.ablation import DonorWindows
from hfvla.models.sensor_vla.evaluation.closed_loop import ChunkedPolicy, run_closed_loop

from ....data.together import together
from ..conftest import observe
from ..scripted import RecordingModel


def told(rows, details, **columns):
    changed = [{**row, "details": details, **columns} for row in rows]
    return Dataset.from_list(changed, features=rows.features)


@pytest.fixture
def simulator(monkeypatch):
    """A simulator that asks each policy once a seed; the first two of three seeds succeed with a sensor only."""
    module, calls = ModuleType("toyroom_simulator"), []

    def run_episodes(policy, seeds, **arguments):
        calls.append({"seeds": list(seeds), "plans": [], **arguments})
        rollouts = []
        for seed in seeds:
            policy.reset(seed)
            now = observe(seed)
            calls[-1]["plans"].append(policy.plan(now))
            asked = policy.model.asked[-1].sensor
            genuine = asked is not None and np.array_equal(asked.values, now.sensor.values)
            rollouts.append(SimpleNamespace(seed=seed, success=genuine and seed != 902))
        return rollouts

    def summarise(rollouts):
        rate = float(np.mean([one.success for one in rollouts]))
        return {
            "episodes": len(rollouts), "success_rate": rate, "interval": [rate / 2, (1 + rate) / 2],
            "peak_force_n": {"median": 5.0, "p95": 9.0}, "within_budget": 1.0, "mean_contact_force_n": 2.0,
            "success_steps": 7.0 if rate else None, "by_direction": {"left": [1, 2]},
        }  # fmt: skip

    def write_film(path, rollouts):
        path.write_bytes(b"film of " + str([one.seed for one in rollouts]).encode())
        return path

    module.evaluation_seeds = lambda count: [900 + number for number in range(count)]
    module.run_episodes, module.summarise, module.write_film = run_episodes, summarise, write_film
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setitem(closed_loop.ENVIRONMENTS, "toyroom", module.__name__)
    return calls


def run(processor, rows, episodes=3, **context):
    result, model = EvaluationResult(metrics={"n": 8}), RecordingModel()
    run_closed_loop(result, model, processor, rows, EvaluationContext(**context), episodes)
    return result, model


# ---- the policy -----------------------------------------------------------------------------------------------------


def test_only_the_first_actions_are_executed(processor):
    assert ChunkedPolicy(RecordingModel(), processor).plan(observe()).tolist() == [[n] * 4 for n in range(4)]
    policy = ChunkedPolicy(RecordingModel(), processor, action_steps=2, denoising_steps=5)
    assert policy.plan(observe()).tolist() == [[0.0] * 4, [1.0] * 4]
    assert policy.model.options[0]["steps"] == 5
    for wrong in (0, 5):
        with pytest.raises(DataError, match=f"action_steps; got {wrong}; expected '?1 to 4"):
            ChunkedPolicy(RecordingModel(), processor, action_steps=wrong)


def test_without_and_with_shuffled_windows(processor, rows):
    now = observe(time_s=12.0)
    donors = DonorWindows(processor, rows)
    for kind in ("as_it_is", "without", "shuffled"):
        policy = ChunkedPolicy(RecordingModel(), processor, sensor=kind, donors=donors if kind == "shuffled" else None)
        policy.plan(now)
        shown = policy.model.asked[0]
        assert shown.views is now.views and shown.state is now.state
        if kind == "as_it_is":
            assert shown.sensor is now.sensor
        elif kind == "without":
            assert shown.sensor is None
        else:
            last = next(row for row in rows if row["index"] == 3 and row["sensor"])  # 12 s is past its episode's end
            recorded = SensorLoader().load(SensorRef(**last["sensor"]))
            assert np.array_equal(shown.sensor.values, recorded.values)
            np.testing.assert_allclose(shown.sensor.times_s, recorded.times_s - 0.15 + 12.0)  # laid to now
            processor.check_observation(shown)


def test_an_episode_is_a_function_of_its_seed(processor):
    chosen = []

    class Donors:
        def choose(self, generator):
            chosen.append(float(generator.random()))

        def at(self, time_s):
            return SensorSamples(np.array([time_s]), np.full((1, 6), chosen[-1], np.float32))

    policy = ChunkedPolicy(RecordingModel(), processor, sensor="shuffled", donors=Donors())
    for seed in (3, 3, 4):
        policy.reset(seed)
        policy.plan(observe())
        policy.plan(observe())
    draws = [options["draw"] for options in policy.model.options]
    windows = [float(one.sensor.values[0, 0]) for one in policy.model.asked]
    assert draws[:2] == draws[2:4] != draws[4:] and windows[:2] == windows[2:4] != windows[4:]
    assert draws[0] != draws[1] and windows[0] == windows[1]  # one other episode for all of this one


# ---- the evaluation -------------------------------------------------------------------------------------------------


def test_the_simulator_is_asked_what_the_rows_say(simulator, processor, rows):
    given = told(rows, "environment=toyroom;variant=hidden;image_size=32")
    result, _ = run(processor, given, options={"action_steps": 3, "videos": 2})
    assert [call["seeds"] for call in simulator] == [[900, 901, 902]] * 3  # the same for every ablation
    assert all((call["variant"], call["image_size"]) == ("hidden", 32) for call in simulator)
    assert all(call["views"] == ("front", "wrist") and call["window_s"] == processor.window_s for call in simulator)
    assert all(len(plan) == 3 for call in simulator for plan in call["plans"])
    assert [call["record_frames_for"] for call in simulator] == [2, 0, 0]
    assert result.files == {"closed_loop.mp4": b"film of [900, 901]"}
    assert result.metrics["success_rate"] == pytest.approx(2 / 3) and result.metrics["episodes"] == 3
    assert result.intervals["success_rate"] == pytest.approx((1 / 3, 5 / 6))
    assert result.metrics["closed_loop/success_rate_left"] == 0.5 and result.metrics["peak_force_n"] == 5.0
    for name in ("without_sensor", "shuffled_sensor"):
        assert result.ablations[name]["success_rate"] == 0.0
        assert "closed_loop/steps_of_successes" not in result.ablations[name]
    [figure] = result.figures
    assert list(figure.data["series"]) == ["as it is", "without sensor", "shuffled sensor"] and render(figure)
    assert "3 episodes of 'toyroom'" in result.notes[0]


def test_shuffled_windows_come_from_the_rows(simulator, processor, rows):
    _, model = run(processor, told(rows, "environment=toyroom"))
    windows = [one.sensor.values for one in model.asked[6:]]
    recorded = {sensor["count"] for sensor in rows["sensor"] if sensor}
    assert all(len(values) in recorded for values in windows) and len(model.asked) == 9


def test_no_ablation_no_video_no_sensor_in_the_rows(simulator, processor, rows):
    given = told(rows, "environment=toyroom")
    result, _ = run(processor, given, ablations=False, options={"videos": 0})
    assert len(simulator) == 1 and not result.files and not result.ablations
    run(processor, told(rows, "environment=toyroom", sensor=None))
    assert len(simulator) == 3  # as it is and without: there is no window to shuffle in


def test_rows_of_no_simulator_are_refused(processor, rows):
    with pytest.raises(DataError, match="come from no simulator.*expected insertion.*Set closed_loop to 0"):
        run(processor, rows)
    with pytest.raises(DataError, match="got 'insertoin'.*Did you mean 'insertion'"):
        run(processor, told(rows, "environment=insertoin"))


def test_a_closed_loop_is_refused_before_the_work(build, rows):
    model, processor = build()
    for options, match in (
        ({"closed_loop": 5}, "come from no simulator"),
        ({"closed_loop": "many"}, "closed_loop: option of the evaluation; got 'many'; expected a whole number"),
        ({"closed_loop": -1}, "got -1"),
    ):
        asked = RealEnough(model)
        with pytest.raises(DataError, match=match):
            FAMILY.load("evaluate")(asked, processor, rows, EvaluationContext(options=options))


def test_an_evaluation_runs_it_when_asked(simulator, build, rows):
    model, processor = build()
    given = told(rows, "environment=toyroom")
    for episodes in (0, "2"):  # the command line gives text
        context = EvaluationContext(bootstrap_samples=5, ablations=False, options={"closed_loop": episodes})
        result = FAMILY.load("evaluate")(RealEnough(model), processor, given, context)
        assert ("success_rate" in result.metrics) == (episodes == "2")
    assert simulator[0]["seeds"] == [900, 901] and np.isfinite(simulator[0]["plans"][0]).all()


class RealEnough:
    """The real model, which also writes down what it is asked."""

    def __init__(self, model):
        self.model, self.asked = model, []

    def __getattr__(self, name):
        return getattr(self.model, name)

    def eval(self):
        self.model.eval()
        return self

    def to(self, _device):
        return self

    def predict_actions(self, processor, observations, **options):
        self.asked += observations
        return self.model.predict_actions(processor, observations, **options)


@pytest.mark.parametrize("count", [2, 3])
def test_episodes_are_shared_and_the_first_ones_are_filmed(count):
    """Five seeds on two or three processes: each runs its own, all get all in order, the first three have frames."""

    class Simulator:
        @staticmethod
        def run_episodes(policy, seeds, record_frames_for, **arguments):
            assert arguments == {"views": ("front",)}
            return [(seed, number < record_frames_for) for number, seed in enumerate(seeds)]

    def work(processes):
        context = EvaluationContext(processes=processes)
        return closed_loop._shared_episodes(Simulator, None, [10, 11, 12, 13, 14], 3, context, views=("front",))

    assert together(count, work) == [[(10, True), (11, True), (12, True), (13, False), (14, False)]] * count

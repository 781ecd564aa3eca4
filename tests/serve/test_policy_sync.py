"""The policy in the caller's thread: chunks, queue, seeds, ensembling, and what stops it."""

import numpy as np
import pytest

from hfvla.data.signals.sensor_loader import SensorSamples
from hfvla.errors import DataError, HfvlaError
from hfvla.serve.policy import ChunkPolicy, PolicyOptions, PolicyStopped, TemporalEnsemble, ensemble_weights

from .policy_fakes import ACTIONS, HORIZON, Model, Processor, observe


class Careful(Processor):
    sensor = {"max_age_s": 0.05}


class Blind(Processor):
    window_s = 0.0


def build(model=None, **options):
    on_stop = options.pop("on_stop", None)
    return ChunkPolicy(model or Model(), Processor(), PolicyOptions(**options), on_stop=on_stop)


def test_a_plan_is_the_first_actions_of_a_chunk():
    plan = build(n_action_steps=3, denoising_steps=5).plan(observe(state=2.0, brightness=7))
    assert plan.shape == (3, ACTIONS)
    assert plan[:, 0] == pytest.approx([2.0, 2.01, 2.02]) and (plan[:, 1] == 7).all()
    assert build().plan(observe()).shape == (HORIZON, ACTIONS)


def test_denoising_steps_reach_the_model():
    model = Model()
    build(model, denoising_steps=5).plan(observe())
    build(model).plan(observe())
    assert [call.steps for call in model.predicted] == [5, None]


def test_the_queue_asks_the_model_once_a_chunk():
    model = Model()
    policy = build(model, n_action_steps=2)
    actions = [policy.select_action(observe(state=float(step))) for step in range(5)]
    assert [call.seen.state[0] for call in model.predicted] == [0, 2, 4]
    assert [action[0] for action in actions] == pytest.approx([0.0, 0.01, 2.0, 2.01, 4.0])
    policy.reset(0)
    assert policy.select_action(observe(state=9.0))[0] == 9.0  # nothing of the old queue


def test_seeds_repeat():
    policy = build()
    draws = []
    for seed in (1, 1, 2):
        policy.reset(seed)
        policy.warm_up(observe())  # leaves the episode's noise alone
        draws.append(np.concatenate([policy.plan(observe()), policy.plan(observe())]))
    assert np.array_equal(draws[0], draws[1]) and not np.array_equal(draws[0], draws[2])
    assert not np.array_equal(draws[0][:HORIZON, 2], draws[0][HORIZON:, 2])  # and noise goes on within an episode


def test_warm_up_runs_the_model():
    model = Model()
    assert len(build(model).warm_up(observe(), runs=3)) == 3 and len(model.predicted) == 3


def test_ensemble_weights_by_hand():
    """Oldest first: 1, e^-0.5, e^-1 = 1, 0.60653, 0.36788, of a sum of 1.97441."""
    assert ensemble_weights(3, 0.5) == pytest.approx([0.50648, 0.30720, 0.18633], abs=1e-5)
    assert ensemble_weights(4, 0.0).tolist() == [0.25] * 4
    assert np.argmax(ensemble_weights(3, -0.5)) == 2


def test_ensembling_by_hand():
    """Chunks of two steps: an action is of at most two chunks, the older with 1 and the newer with e^-m = 0.5."""
    ensemble = TemporalEnsemble(float(np.log(2)))
    chunks = [np.array([[first], [second]], dtype=np.float64) for first, second in ((0, 3), (6, 9), (12, 15))]
    # Step 0: 0. Step 1: (1 * 3 + 0.5 * 6) / 1.5 = 4. Step 2: (1 * 9 + 0.5 * 12) / 1.5 = 10.
    assert [float(ensemble.update(chunk)[0]) for chunk in chunks] == pytest.approx([0, 4, 10])
    ensemble.reset()
    assert ensemble.update(chunks[2])[0] == 12


def test_a_policy_that_ensembles_gives_one_action():
    model = Model()
    policy = build(model, ensemble_decay=float(np.log(2)))
    first = policy.plan(observe(state=0.0))
    second = policy.plan(observe(state=3.0))
    # The first chunk said 0.01 for step 1, the second says 3.0: (0.01 + 0.5 * 3) / 1.5.
    assert first.shape == (1, ACTIONS) and second[0, 0] == pytest.approx((0.01 + 1.5) / 1.5, abs=1e-6)
    policy.reset(0)
    assert policy.plan(observe(state=3.0))[0, 0] == 3.0
    assert len(model.predicted) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n_action_steps": 9}, "n_action_steps; got 9; expected 1 to the horizon, 8"),
        ({"n_action_steps": 0}, "n_action_steps; got 0"),
        ({"n_action_steps": 4, "ensemble_decay": 0.01}, "with temporal ensembling; got 4; expected 1"),
        ({"ensemble_decay": float("nan")}, "ensemble_decay; got nan"),
        ({"denoising_steps": 0}, "denoising_steps; got 0"),
        ({"max_sensor_age_s": -1.0}, "max_sensor_age_s; got -1.0"),
        ({"safe_action": "stay"}, "safe_action; got 'stay'"),
        ({"safe_action": [0.0]}, "expected 3 finite numbers"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(HfvlaError, match=message):
        build(**options)


def test_a_model_without_actions():
    with pytest.raises(HfvlaError, match="predicts no actions; got 'object'"):
        ChunkPolicy(object(), Processor())


def test_a_stale_sensor_stops_until_reset():
    stops = []
    policy = build(safe_action=[0.0, 0.0, -1.0], on_stop=stops.append)
    policy.select_action(observe(sensor_age_s=0.09))
    with pytest.raises(PolicyStopped, match=r"the sensor is stale; got 'newest sample 0.110 s old'; expected at most"):
        policy.select_action(observe(sensor_age_s=0.11))  # although planned actions remain
    with pytest.raises(PolicyStopped, match="stale") as again:
        policy.plan(observe())
    assert again.value.safe_action.tolist() == [0.0, 0.0, -1.0]
    assert again.value.where == "sensor at 100.000 s" and len(stops) == 1
    policy.reset(0)
    assert policy.plan(observe()).shape == (HORIZON, ACTIONS)


def test_no_limit_and_other_sensors():
    assert build(max_sensor_age_s=None).plan(observe(sensor_age_s=60.0)) is not None
    policy = build()
    policy.plan(observe(sensor=False))  # a policy without a sensor
    policy.plan(observe())
    with pytest.raises(PolicyStopped, match="the sensor is gone"):
        policy.plan(observe(sensor=False))
    with pytest.raises(PolicyStopped, match="require_sensor is set"):
        build(require_sensor=True).plan(observe(sensor=False))
    with pytest.raises(PolicyStopped, match="expected at most 0.05 s"):  # the processor's own limit is shorter
        ChunkPolicy(Model(), Careful()).plan(observe(sensor_age_s=0.06))
    assert ChunkPolicy(Model(), Blind()).plan(observe(sensor_age_s=60.0)) is not None  # it looks at no sensor
    with pytest.raises(HfvlaError, match="looks at no sensor"):
        ChunkPolicy(Model(), Blind(), PolicyOptions(require_sensor=True))
    empty = observe()
    object.__setattr__(empty, "sensor", SensorSamples(np.empty(0), np.empty((0, 2))))
    with pytest.raises(PolicyStopped, match="no sample; got '0 samples'"):
        build().plan(empty)


def test_hold_last_is_what_was_executed():
    policy = build(safe_action="hold_last")
    with pytest.raises(PolicyStopped) as nothing:
        policy.select_action(observe(sensor_age_s=9))
    assert nothing.value.safe_action is None  # nothing was executed yet
    policy.reset(0)
    last = [policy.select_action(observe(state=4.0)) for _ in range(2)][-1]
    with pytest.raises(PolicyStopped) as stopped:
        policy.select_action(observe(sensor_age_s=9))
    assert np.array_equal(stopped.value.safe_action, last)


def test_actions_that_are_not_finite_stop():
    model = Model()
    predict = model.predict_actions

    def broken(*arguments, **options):
        chunk = predict(*arguments, **options)
        chunk[0, 4, 1] = np.nan
        return chunk

    model.predict_actions = broken
    policy = build(model)
    with pytest.raises(PolicyStopped, match="step 4, channel 1 of the chunk: the model's actions are not finite"):
        policy.plan(observe())
    with pytest.raises(PolicyStopped):
        policy.plan(observe())


def test_a_model_with_other_shapes_and_a_bad_observation():
    model = Model()
    model.predict_actions = lambda *_, **__: np.zeros((1, 4, ACTIONS))
    with pytest.raises(DataError, match=r"got \(1, 4, 3\); expected \(1, 8, 3\)"):
        build(model).plan(observe())
    short = observe()
    object.__setattr__(short, "state", np.zeros(5, dtype=np.float32))
    with pytest.raises(DataError, match="state; got 5"):
        build().plan(short)


def test_a_policy_from_a_checkpoint(tmp_path):
    """The whole way of a user: a saved model, its policy, an observation that the processor makes up."""
    from hfvla import AsyncChunkPolicy, ChunkPolicy, get_family
    from hfvla.serve.policy import AsyncOptions

    spec = get_family("sensor_vla")
    rows = spec.load("examples")(8, 0)
    recipe = {"config": spec.load("config").tiny().to_dict(), "options": {}}
    model, processor = spec.load("initialise")(recipe, rows, seed=0)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    observation = processor.example_observation()
    policy = ChunkPolicy.from_pretrained(tmp_path, PolicyOptions(n_action_steps=2), device="cpu")
    expected = model.predict_actions(processor, [observation])[0, :2]
    assert np.array_equal(policy.plan(observation), expected)
    options = AsyncOptions(expert="inline", deadline_s=None, max_sensor_age_s=None)
    with AsyncChunkPolicy.from_pretrained(tmp_path, options, device="cpu", clock=lambda: 0.0) as later:
        later.reset(0)
        assert np.allclose(later.plan(observation), expected[:1])


def test_a_family_without_actions_is_refused(tmp_path):
    from hfvla import ChunkPolicy, get_family

    get_family("ember_vlm").load("config").tiny().save_pretrained(tmp_path)
    with pytest.raises(HfvlaError, match="predicts no actions"):
        ChunkPolicy.from_pretrained(tmp_path)

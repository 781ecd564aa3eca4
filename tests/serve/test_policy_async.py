"""Backbone, expert and control loop each at its own rate: reuse, real-time chunking, and everything that stops."""

import contextlib
import threading

import numpy as np
import pytest

from hfvla.errors import DataError, HfvlaError
from hfvla.serve.policy import AsyncChunkPolicy, AsyncOptions, PolicyStopped, SensorBuffer

from .policy_fakes import ACTIONS, HORIZON, Clock, Gate, Model, Processor, observe, wait_until

STEP_S = 1 / Processor.fps


@contextlib.contextmanager
def running(model=None, clock=None, sensor=None, on_stop=None, **options):
    """A policy in its first episode, with a clock that stands still and no watchdog unless asked for."""
    options = {"deadline_s": None} | options
    with AsyncChunkPolicy(
        model or Model(), Processor(), AsyncOptions(**options), sensor=sensor, clock=clock or Clock(), on_stop=on_stop
    ) as policy:
        policy.reset(0)
        yield policy
    assert not [t.name for t in threading.enumerate() if t.name.startswith("hfvla-")]  # a clean shutdown


def steps(policy, clock, count, before=lambda number: None):
    """Run control steps a period apart; return the executed actions."""
    actions = []
    for number in range(count):
        before(number)
        actions.append(policy.select_action(observe(clock(), state=float(number))))
        clock.turn(STEP_S)
    return np.stack(actions)


# Features


def test_inline_experts_reuse_features_between_encodings():
    """The backbone at 2 Hz and the expert at 10 Hz: 11 chunks on 3 encodings, each on the newest state."""
    model, clock = Model(), Clock()
    with running(model, clock, expert="inline", backbone_hz=2.0) as policy:
        for number in range(11):
            policy.plan(observe(clock(), state=float(number), brightness=number))
            wait_until(lambda due=1 + number // 5: policy.statistics().encoded == due)
            clock.turn(STEP_S)
        counted = policy.statistics()
    assert (counted.steps, counted.encoded, counted.planned) == (11, 3, 11)
    assert [call.seen.state[0] for call in model.predicted] == list(range(11))
    brightness = [call.features.brightness for call in model.predicted]
    # Observations 0, 5 and 10 are encoded; a chunk may still see the features before.
    assert brightness[:5] == [0] * 5 and set(brightness[6:10]) == {5} and counted.reused >= 8


def test_the_backbone_takes_only_the_newest_observation():
    model, clock, gate = Model(), Clock(), Gate()
    with running(model, clock, expert="inline", max_features_age_s=9) as policy:
        steps(policy, clock, 1)
        wait_until(lambda: policy.statistics().encoded == 1)
        model.before_encode = gate
        steps(policy, clock, 1)
        assert gate.entered.wait(5)
        steps(policy, clock, 4)  # they do not wait for the backbone
        gate.opened.set()
        wait_until(lambda: policy.statistics().encoded == 3)
    assert [round(one.time_s - 100, 3) for one in model.encoded] == [0.0, 0.1, 0.5]  # 0.2 to 0.4 s were passed over


def test_inline_ensembling_and_chunks():
    model, clock = Model(), Clock()
    with running(model, clock, expert="inline", n_action_steps=3) as policy:
        actions = steps(policy, clock, 6)
    assert actions[:, 0] == pytest.approx([0, 0.01, 0.02, 3, 3.01, 3.02]) and len(model.predicted) == 2
    with running(clock=clock, expert="inline", ensemble_decay=float(np.log(2))) as policy:
        actions = steps(policy, clock, 2)
    assert actions[1, 0] == pytest.approx((0.01 + 0.5 * 1.0) / 1.5, abs=1e-6)


# Real-time chunking


def chunked(model, release_at, count=9, **options):
    """Run control steps; the second plan, asked for at step 3, is held until step `release_at`."""
    clock, gate = Clock(), Gate()
    with running(model, clock, n_action_steps=3, **options) as policy:

        def before(number):
            if number == 3:
                model.before_predict = gate
            if number == release_at:
                assert gate.entered.wait(5)
                gate.opened.set()
                wait_until(lambda: policy.statistics().planned >= 2)

        return steps(policy, clock, count, before), policy.statistics()


def test_the_prefix_is_what_was_executed():
    model = Model(can_continue=True)
    actions, counted = chunked(model, release_at=5, delay_steps=2, count=6)
    first, second = model.predicted[0], model.predicted[1]
    assert first.prefix is None and second.prefix.shape == (1, 2, ACTIONS)
    assert np.array_equal(second.prefix[0], actions[3:5])  # executed while the second plan was made
    assert second.seen.state[0] == 3.0
    # Step 5 is the third action of the plan that begins at step 3, and the fake's own.
    assert actions[5, 0] == pytest.approx(3.02) and actions[4, 0] == pytest.approx(0.04)
    assert counted.late_chunks == 0 and counted.waits == 0


def test_the_prefix_is_kept_by_an_expert_that_does_not():
    """The fake answers with other actions than its prefix; a change-over before step 5 must not show them."""
    model = Model(can_continue=True)
    actions, _ = chunked(model, release_at=4, delay_steps=2, count=6)
    assert actions[:, 0] == pytest.approx([0, 0.01, 0.02, 0.03, 0.04, 3.02])


def test_a_plan_later_than_its_prefix_is_counted():
    actions, counted = chunked(Model(can_continue=True), release_at=6, delay_steps=2, count=7)
    assert counted.late_chunks == 1 and actions[5, 0] == pytest.approx(0.05) and actions[6, 0] == pytest.approx(3.03)


def test_without_prefix_support_the_old_chunk_leads_over():
    """Two steps fixed, two blended: 2/3 * 0.05 + 1/3 * 3.02 at step 5, 1/3 * 0.06 + 2/3 * 3.03 at step 6."""
    model = Model(can_continue=False)
    actions, _ = chunked(model, release_at=4, delay_steps=2, count=6, blend_steps=2)
    assert model.predicted[1].prefix is None
    expected = [0, 0.01, 0.02, 0.03, 0.04, 2 / 3 * 0.05 + 1 / 3 * 3.02]
    assert actions[:, 0] == pytest.approx(expected, abs=1e-5)
    model = Model(can_continue=True)
    actions, _ = chunked(model, release_at=4, delay_steps=2, count=6, chunking="blend")
    assert model.predicted[1].prefix is None and actions[:, 0] == pytest.approx(expected, abs=1e-5)


def test_the_delay_is_measured():
    """A plan that takes 0.25 s of a robot at 10 Hz has three fixed actions."""
    model, clock = Model(can_continue=True), Clock()
    with running(model, clock, n_action_steps=4) as policy:
        model.before_predict = lambda: clock.turn(0.25)
        policy.warm_up(observe(clock()))
        model.before_predict = lambda: None
        assert policy.statistics().delay_steps == 3 and policy.statistics().plan_s == pytest.approx(0.25)
        steps(policy, clock, 5)
        wait_until(lambda: policy.statistics().planned == 2)
    assert model.predicted[-1].prefix.shape == (1, 3, ACTIONS)


def test_a_chunk_used_up_stops():
    model, clock, gate = Model(), Clock(), Gate()
    with running(model, clock, wait_s=0.02, max_features_age_s=9) as policy:
        assert policy.n_action_steps == HORIZON // 2
        policy.plan(observe(clock()))
        model.before_predict = gate
        for _ in range(HORIZON - 1):
            clock.turn(STEP_S)
            policy.plan(observe(clock()))
        with pytest.raises(PolicyStopped, match="control step 8: the chunk is used up and the next one is not there"):
            policy.plan(observe(clock()))
        assert policy.statistics().waits == 1
        gate.opened.set()


def test_a_late_chunk_is_waited_for():
    model, clock = Model(), Clock()
    with running(model, clock, n_action_steps=HORIZON, wait_s=5.0) as policy:
        actions = steps(policy, clock, HORIZON + 1)
        assert actions[HORIZON, 0] == 8.0 and policy.statistics().waits == 1


def test_the_first_chunk_and_features_have_a_time_limit():
    model, gate = Model(), Gate()
    with running(model, start_timeout_s=0.02) as policy:
        model.before_predict = gate
        with pytest.raises(PolicyStopped, match="the first chunk did not come"):
            policy.plan(observe())
        gate.opened.set()
    model, gate = Model(), Gate()
    with running(model, start_timeout_s=0.02) as policy:
        model.before_encode = gate
        with pytest.raises(PolicyStopped, match="gave no features.*expected features in 0.02 s"):
            policy.plan(observe())
        gate.opened.set()


# What stops


def test_stale_features_stop():
    model, clock, gate = Model(), Clock(), Gate()
    with running(model, clock, max_features_age_s=0.25) as policy:
        steps(policy, clock, 1)
        wait_until(lambda: policy.statistics().encoded == 1)
        model.before_encode = gate
        steps(policy, clock, 2)  # features 0.1 and 0.2 s old
        with pytest.raises(
            PolicyStopped, match=r"features are stale; got 'features 0.300 s old'; expected at most 0.25"
        ):
            policy.plan(observe(clock()))
        gate.opened.set()


@pytest.mark.parametrize("expert", ["inline", "background"])
def test_a_stale_sensor_stops(expert):
    clock, stops = Clock(), []
    buffer = SensorBuffer(1000, 2)
    buffer.push(clock(), np.zeros(2))
    with running(clock=clock, sensor=buffer, expert=expert, safe_action=[0, 0, 1], on_stop=stops.append) as policy:
        steps(policy, clock, 1)
        with pytest.raises(PolicyStopped, match="the sensor is stale"):
            clock.turn(0.01)
            policy.plan(observe(clock()))  # the observation's own sensor is fresh: the buffer counts
        assert stops[0].safe_action.tolist() == [0, 0, 1]
        buffer.push(clock(), np.zeros(2))
        with pytest.raises(PolicyStopped, match="the sensor is stale"):
            policy.plan(observe(clock()))
        policy.reset(1)
        assert policy.plan(observe(clock())).shape == (1, ACTIONS)
    empty = SensorBuffer(10, 2)
    with running(clock=clock, sensor=empty) as policy, pytest.raises(PolicyStopped, match="has no sample"):
        policy.plan(observe(clock()))


def test_the_expert_sees_the_newest_window_and_nothing_later():
    clock, model, buffer = Clock(), Model(), SensorBuffer(1000, 2)
    with running(model, clock, sensor=buffer, expert="inline") as policy:
        for number in range(3):
            times = clock() + np.arange(-9, 11) * 0.005  # half of them later than now
            times = times[times > (buffer.latest_s or 0.0)]
            buffer.push(times, np.full((len(times), 2), number))
            policy.plan(observe(clock()))
            clock.turn(STEP_S)
    for number, call in enumerate(model.predicted):
        found = call.seen.sensor
        assert found.times_s[-1] <= call.seen.time_s and found.times_s[-1] > call.seen.time_s - 0.006
        assert found.values[-1, 0] == number and found.times_s[0] >= call.seen.time_s - 0.1 - 0.06


def test_errors_of_the_threads_surface_at_the_next_call():
    for part in ("before_encode", "before_predict"):
        model, clock = Model(), Clock()

        def fail():
            raise RuntimeError("out of memory")

        with running(model, clock, n_action_steps=1) as policy:
            steps(policy, clock, 1)
            wait_until(lambda policy=policy: policy.statistics().encoded == 1)
            setattr(model, part, fail)
            policy.plan(observe(clock()))
            wait_until(lambda policy=policy: policy._latch.stopped)
            name = "backbone" if part == "before_encode" else "expert"
            with pytest.raises(
                PolicyStopped, match=f"the {name} thread failed: RuntimeError: out of memory"
            ) as caught:
                policy.plan(observe(clock()))
            assert isinstance(caught.value.__cause__, RuntimeError)
            setattr(model, part, lambda: None)
            policy.reset(0)  # the threads are still there
            assert policy.plan(observe(clock())).shape == (1, ACTIONS)


def test_an_error_while_the_control_loop_waits_is_told_at_once():
    model = Model()

    def fail():
        raise ValueError("no such view")

    model.before_encode = fail
    with running(model, start_timeout_s=60) as policy, pytest.raises(PolicyStopped, match="ValueError: no such view"):
        policy.plan(observe())


def test_a_missed_deadline_stops():
    clock, tripped = Clock(), threading.Event()
    with running(clock=clock, deadline_s=0.2, safe_action="hold_last", on_stop=lambda _: tripped.set()) as policy:
        action = steps(policy, clock, 2)[-1]
        clock.turn(0.15)  # 0.25 s since the last action
        assert tripped.wait(5)  # from the watchdog's own thread, while the control loop is away
        with pytest.raises(
            PolicyStopped, match="watchdog: the control loop missed its deadline; got '0.250 s"
        ) as late:
            policy.plan(observe(clock()))
        assert np.array_equal(late.value.safe_action, action)
        policy.reset(0)
        clock.turn(9)  # not armed before the first action
        assert policy.plan(observe(clock())).shape == (1, ACTIONS)


def test_a_deadline_missed_while_planning_gives_no_action():
    model, clock, tripped = Model(), Clock(), threading.Event()
    with running(model, clock, deadline_s=0.2, expert="inline", on_stop=lambda _: tripped.set()) as policy:
        steps(policy, clock, 1)

        def slow():
            clock.turn(0.3)
            assert tripped.wait(5)

        model.before_predict = slow
        with pytest.raises(PolicyStopped, match="missed its deadline"):
            policy.plan(observe(clock()))


# Episodes and misuse


def test_an_old_episodes_plan_is_thrown_away():
    model, clock, gate = Model(), Clock(), Gate()
    with running(model, clock, n_action_steps=1) as policy:
        steps(policy, clock, 1)
        model.before_predict = gate
        steps(policy, clock, 1)  # asks for a plan on state 0.0
        assert gate.entered.wait(5)
        policy.reset(1)
        gate.opened.set()
        assert policy.select_action(observe(clock(), state=7.0))[0] == 7.0
        assert policy.statistics().steps == 1


@pytest.mark.parametrize("fails", [False, True])
def test_an_old_episodes_features_and_errors_are_thrown_away(fails):
    model, clock, gate = Model(), Clock(), Gate()
    with running(model, clock) as policy:
        steps(policy, clock, 1)
        wait_until(lambda: policy.statistics().encoded == 1)

        def hold():
            gate()
            if fails:
                raise RuntimeError("of the old episode")

        model.before_encode = hold
        policy.plan(observe(clock(), brightness=2))
        assert gate.entered.wait(5)
        policy.reset(1)
        model.before_encode, got = Gate(), []
        new = observe(clock(), brightness=7)
        control = threading.Thread(target=lambda: got.append(policy.select_action(new)))
        control.start()
        gate.opened.set()
        assert model.before_encode.entered.wait(5)  # the thread has passed the old episode
        control.join(0.05)
        assert not got  # there are no features of this one yet
        model.before_encode.opened.set()
        control.join(5)
        assert got[0][1] == 7.0 and policy.select_action(new)[1] == 7.0


def test_seeds_repeat_the_first_chunk():
    draws = []
    with running() as policy:
        for seed in (1, 1, 2):
            policy.reset(seed)
            draws.append(policy.select_action(observe())[2])
    assert draws[0] == draws[1] != draws[2]


def test_misuse_is_named():
    clock = Clock()
    policy = AsyncChunkPolicy(Model(), Processor(), clock=clock)
    with pytest.raises(HfvlaError, match="plan before reset"):
        policy.plan(observe())
    policy.reset(0)
    policy.plan(observe())
    with pytest.raises(DataError, match="another task.*got 'cut'; expected insert"):
        policy.plan(observe(task="cut"))
    with pytest.raises(DataError, match="from the future.*Pass the robot's own clock"):
        policy.plan(observe(time_s=clock() + 1))
    policy.close()
    policy.close()
    with pytest.raises(HfvlaError, match="closed"):
        policy.plan(observe())
    with pytest.raises(HfvlaError, match="closed"):
        policy.reset(0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"expert": "later"}, "expert; got 'later'"),
        ({"chunking": "prefix"}, "takes no prefix"),
        ({"chunking": "mean"}, "chunking; got 'mean'"),
        ({"ensemble_decay": 0.01}, "needs a chunk each step"),
        ({"max_features_age_s": 0}, "max_features_age_s; got 0"),
        ({"backbone_hz": -1.0}, "backbone_hz; got -1.0"),
        ({"deadline_s": 0}, "deadline_s; got 0"),
        ({"delay_steps": 0}, "'delay_steps': 0"),
        ({"blend_steps": -1}, "blend_steps; got -1"),
        ({"n_action_steps": 9}, "n_action_steps; got 9"),
    ],
)
def test_options_that_do_not_fit(options, message):
    with pytest.raises(HfvlaError, match=message):
        AsyncChunkPolicy(Model(), Processor(), AsyncOptions(**options))


def test_real_time_at_fifty_hertz():
    """With the machine's own clock: a backbone of 30 ms, an expert of 5 ms and a control step of 20 ms go together."""
    import time

    class Fast(Processor):
        fps = 50.0

    model = Model(can_continue=True)
    model.before_encode, model.before_predict = lambda: time.sleep(0.03), lambda: time.sleep(0.005)
    options = AsyncOptions(deadline_s=2.0, wait_s=1.0)
    with AsyncChunkPolicy(model, Fast(), options) as policy:
        policy.reset(0)
        longest = 0.0
        for number in range(25):
            start = time.monotonic()
            policy.plan(observe(time.monotonic(), state=float(number)))
            longest = max(longest, time.monotonic() - start if number else 0.0)
            time.sleep(max(0.0, 0.02 - (time.monotonic() - start)))
        counted = policy.statistics()
    assert counted.steps == 25 and counted.planned >= 4 and counted.encoded >= 5 and counted.reused >= 1
    assert counted.encoded < counted.steps and longest < 1.0
